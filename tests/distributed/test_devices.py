"""Which GPUs each of several processes takes; the machines are described, for a CPU has none."""

from dataclasses import replace

import pytest

from experiments.config.compose import compose
from experiments.config.launcher_config import Cluster
from experiments.config.run_config import RunConfig
from experiments.launching.slurm import parameters, resources_of
from experiments.models.placing import own_devices
from experiments.training.ranks import gpus_of
from zo.distributed import _backend
from zo.errors import ConfigError
from zo.rank_env import RankInfo, devices_of, rank_info, shared_devices


def opt_66b() -> RunConfig:
    config = compose(["model=opt-66b"]).config
    assert config is not None
    return config


def test_opt_66b_runs_as_four_ranks_of_two_gpus(tmp_path):
    """From what SLURM is asked for to the cards each rank spreads its layers over."""
    config = opt_66b()
    cluster = Cluster(tasks=4)
    asked = parameters(resources_of(config, cluster), cluster, tmp_path, "n")
    assert (asked["gpus_per_node"], asked["ntasks_per_node"], asked["mem"]) == (8, 4, "768GB")
    choice = config.model
    places = [RankInfo(rank, 4, rank, 4) for rank in range(4)]
    assert [own_devices(place, 8, choice) for place in places] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert gpus_of(config.model, places[0]) == 2
    # Two nodes of two tasks: each node has cards of its own from 0 on.
    assert [own_devices(RankInfo(r, 4, r % 2, 2), 4, choice) for r in range(4)] == [
        [0, 1],
        [2, 3],
        [0, 1],
        [2, 3],
    ]
    assert own_devices(RankInfo(), 8, choice) is None  # alone it may have all


@pytest.mark.parametrize(
    ("place", "visible", "each", "own"),
    [(RankInfo(3, 8, 3, 8), 8, 1, [3]), (RankInfo(3, 8, 3, 8), 1, 1, [0]), (RankInfo(1, 2, 1, 2), 2, 2, [0, 1]),
     (RankInfo(1, 2, 1, 2), 0, 1, []), (RankInfo(1, 2, 1, 2), 8, 2, [2, 3])],
)  # fmt: skip
def test_devices_are_a_processs_own(place, visible, each, own):
    """By its number on the machine; all that it sees where srun has bound its own to it."""
    assert devices_of(place, visible, each) == own


@pytest.mark.parametrize(("here", "visible", "each"), [(8, 4, 1), (4, 2, 1), (4, 7, 2), (2, 1, 2)])
def test_too_few_devices_are_refused(here, visible, each):
    with pytest.raises(ConfigError, match=f"need {here * each} GPUs, of which {visible} can be seen"):
        devices_of(RankInfo(0, here, 0, here), visible, each)


def test_the_backend_follows_what_all_ranks_have():
    """nccl also where srun shows each process one card, which is another one for each."""
    bound = [["node1 GPU-a"], ["node1 GPU-b"], ["node2 GPU-c"]]
    assert _backend("auto", bound, True) == "nccl"
    assert _backend("auto", [["node1 GPU-a"], []], True) == "gloo"
    assert _backend("auto", [[], []], True) == "gloo"
    assert _backend("gloo", bound, True) == "gloo"
    same = [["node1 GPU-a"], ["node1 GPU-b"], ["node1 GPU-a"]]
    assert shared_devices(same) == [(0, 2)]
    assert _backend("auto", same, False) == "gloo"  # a library's user who did not ask for cards of its own
    with pytest.raises(ConfigError, match="ranks 0 and 2"):
        _backend("auto", same, True)


def test_devices_that_are_named_are_not_shared_out():
    model = opt_66b().model
    two = RankInfo(0, 2, 0, 2)
    assert gpus_of(replace(model, device_map=None), two) == 1
    assert gpus_of(replace(model, device_map=None, device="cpu"), two) == 0
    assert gpus_of(replace(model, device_map=None, device="cuda:1"), two) == 0
    with pytest.raises(ConfigError, match="names devices"):
        gpus_of(replace(model, device_map={"": 0}), two)


def test_several_nodes_are_counted_by_srun():
    task = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2",
            "SLURM_STEP_NODELIST": "gpu[01-02]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_ID": "7"}  # fmt: skip
    place = rank_info(task)
    assert (place.address, place.here) == ("gpu01", 2) and devices_of(place, 4, 2) == [0, 1]
