"""What several processes promise beside equal losses: they end together, stop together, agree, and go on."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.distributed import ranks
from tests.train.test_loop import batches as batches_of_loop
from tests.train.test_loop import make_model, objective
from zo import FZOO, ConfigError, InPlace, Journal, MeZO, ModuleLook, Ranks, Snapshots, Weights, train
from zo.digests import checksum
from zo.journal import Copy, opened
from zo.look import MicroBatches
from zo.rank_env import RankInfo, first_host, rank_info

STEPS = 8


def fzoo(model):
    return FZOO(Weights(model), lr=0.02, n=4)


def steps(team, folder=None, on_step=None, before=None, limit=STEPS, pause=0.0, **options):
    """A run of a small network; its digest and how many steps it took."""
    model = make_model()
    optimizer = fzoo(model)
    look = ModuleLook(model, objective, optimizer)

    def batch(t):
        time.sleep(pause)
        if before is not None:
            before(t, model)
        return batches_of_loop(t)

    journal = None
    if folder is not None:
        journal = opened(team, lambda: Journal(folder / "journal", {}, optimizer.losses_per_step))
    try:
        done = train(optimizer, look, batch, limit, team=team, journal=journal, on_step=on_step, **options)
    finally:
        if journal is not None:
            journal.close()
    return {"sha": optimizer.weights.sha256(), "done": done, "looked": look.forward_passes}


@pytest.fixture(scope="module")
def alone():
    from zo import Solo

    return steps(Solo())


def test_a_rank_that_dies_ends_all_within_seconds(tmp_path):
    """Signal 9 to one of three; the others raise RankLost, although the timeout is a minute."""

    def task(team):
        return steps(team, limit=10**6, pause=0.01)

    pids = ranks.start(3, tmp_path, task)
    time.sleep(2.0)
    os.kill(pids[1], signal.SIGKILL)
    began = time.monotonic()
    made = ranks.results(tmp_path, pids)
    assert time.monotonic() - began < 10
    assert made[1] is None
    assert [made[0]["error"], made[2]["error"]] == ["RankLost", "RankLost"]
    assert "lost another rank at step" in made[0]["message"]


def test_a_rank_that_fails_ends_all(tmp_path):
    def task(team):
        def before(t, model):
            if team.rank == 1 and t == 3:
                raise ValueError("only here")

        return steps(team, before=before)

    made = ranks.run(2, tmp_path, task)
    assert [rank["error"] for rank in made] == ["RankLost", "ValueError"]


def test_a_rank_that_hangs_is_given_up(tmp_path):
    def task(team):
        return steps(team, before=lambda t, _: time.sleep(6 if team.rank == 1 and t == 2 else 0))

    began = time.monotonic()
    made = ranks.run(2, tmp_path, task, timeout=2.0)
    assert made[0]["error"] == "RankLost"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("wished", [0, 1])
def test_a_wish_to_stop_on_one_rank_stops_all_at_the_same_step(tmp_path, wished):
    def task(team):
        told = []
        team.report = lambda: (signal.SIGTERM if told and team.rank == wished else 0, 0.0)
        ended = steps(
            team,
            before=lambda t, _: told.append(t) if t == 3 else None,
            on_step=lambda t, seen, replayed: team.stop != 0,
        )
        return ended | {"stop": team.stop}

    made = ranks.run(2, tmp_path, task)
    assert [rank["done"] for rank in made] == [4, 4]
    assert [rank["stop"] for rank in made] == [signal.SIGTERM] * 2


@pytest.mark.parametrize("size, odd", [(2, 1), (3, 1), (3, 0)])
def test_other_weights_on_one_rank_are_found_and_named(tmp_path, size, odd, alone):
    """One bit of one number, flipped after step 3; looked for every 2 steps."""

    def task(team):
        def flip(t, model):
            if t == 3 and team.rank == odd and not (tmp_path / "again").exists():
                with torch.no_grad():
                    model[0].weight.view(-1)[0:1].view(torch.int32).bitwise_xor_(torch.tensor([1]).int())

        return steps(team, folder=tmp_path, before=flip)

    for rank in ranks.run(size, tmp_path, task, check_every=2):
        assert rank["error"] == "RanksDiverged"
        assert f"Step 4: rank {odd} holds other weights" in rank["message"]
        assert "after step 2" in rank["message"]
    with Journal(tmp_path / "journal", {}, 5) as journal:
        assert len(journal) == 2  # where all agreed; the same command goes on from there
    (tmp_path / "again").touch()
    assert {rank["sha"] for rank in ranks.run(size, tmp_path, task, check_every=2)} == {alone["sha"]}


@pytest.mark.parametrize("sizes", [(1, 3), (3, 2), (2, 1)])
@pytest.mark.parametrize("snapshots", [False, True])
def test_resumed_with_another_number_of_ranks(tmp_path, alone, sizes, snapshots):
    """The journal lies with rank 0 only; the others copy it."""

    def part(limit):
        def task(team):
            kept = {}
            if snapshots:
                kept = {"snapshots": Snapshots(tmp_path / "snapshots"), "max_replay_seconds": 0.0}
            return steps(team, folder=tmp_path, limit=limit, **kept)

        return task

    first = ranks.run(sizes[0], tmp_path, part(5))
    again = ranks.run(sizes[1], tmp_path, part(STEPS))
    assert {rank["sha"] for rank in again} == {alone["sha"]}
    assert sum(rank["looked"] for rank in [*first, *again]) == alone["looked"]  # no step is looked at twice


def test_a_shared_batch_changes_losses_by_rounding(tmp_path):
    """Matrix products of fewer rows: 1e-6 of the loss."""

    def task(team):
        model = make_model()
        optimizer = MeZO(Weights(model), lr=0.0)
        look = ModuleLook(model, objective, optimizer)
        shared = look if team is None else team.over(look, optimizer)
        return [shared(optimizer.ask(t), batches_of_loop(t)) for t in range(5)]

    expected = torch.tensor(task(None))
    for share in ("batch", "both"):
        for told in ranks.run(3, tmp_path / share, task, share=share):
            torch.testing.assert_close(torch.tensor(told), expected, rtol=1e-6, atol=0.0)


def test_in_place_looks_are_refused():
    model = nn.Linear(2, 1)
    optimizer = MeZO(Weights(model, copies=False))
    with pytest.raises(ConfigError, match="in-place walk"):
        Ranks(RankInfo(0, 2)).over(InPlace(model, lambda m, b: m(b)[:, 0], optimizer), optimizer)


def test_a_checksum_sees_every_number_and_its_place():
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    sums = {checksum([numbers])}
    for i in range(1000):
        other = numbers.clone()
        other.view(torch.int16)[i] ^= 1
        sums.add(checksum([other]))
    assert len(sums) == 1001
    assert checksum([numbers.flip(0)]) not in sums
    assert checksum([numbers[:500], numbers[500:]]) != checksum([numbers[500:], numbers[:500]])


def test_places_in_environments():
    assert rank_info({}) == RankInfo(0, 1)
    assert rank_info({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == RankInfo(
        0, 1
    )  # a batch script outside srun
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    with pytest.raises(ConfigError, match="MASTER_PORT"):
        rank_info(torchrun)
    assert rank_info(torchrun | {"MASTER_ADDR": "gpu07", "MASTER_PORT": "4000"}) == RankInfo(
        3, 4, 1, 2, "gpu07", 4000
    )
    task = {
        "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NODELIST": "gpu[03,07]", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_JOB_ID": "12",
        "SLURM_STEP_ID": "1",
    }  # fmt: skip
    assert rank_info(task) == RankInfo(5, 8, 1, 4, "gpu03", 20000 + 64 * 12 + 1)
    assert rank_info(task | {"SLURM_STEP_NUM_NODES": "1"}).address == "127.0.0.1"
    with pytest.raises(ConfigError, match="SLURM_LOCALID"):
        rank_info(task | {"SLURM_LOCALID": "one"})


@pytest.mark.parametrize(
    "nodes, first",
    [("gpu[03-05,09],login1", "gpu03"), ("n1", "n1"), ("n1,n2", "n1"), ("r[1-2]n[3-4]", "r1n3"), ("a-[7]-b", "a-7-b")],
)  # fmt: skip
def test_the_first_host_of_a_node_list(nodes, first):
    assert first_host(nodes) == first


def test_one_module_imports_torch_distributed():
    root = Path(__file__).parents[2]
    found = [
        path.relative_to(root).as_posix()
        for folder in ("zo", "experiments")
        for path in (root / folder).rglob("*.py")
        if "torch.distributed as" in path.read_text() or "import torch.distributed" in path.read_text()
    ]
    # zo doctor asks what torch was built with, and makes no group.
    assert found == ["zo/distributed.py", "experiments/commands/torch_probe.py"]


def test_a_copy_of_a_journal_behaves_as_the_journal(tmp_path):
    with Journal(tmp_path / "journal", {}, 2, with_lr=True) as journal:
        copy = Copy(journal.header, [])
        for each in (journal, copy):
            each.append([0.5, 0.25], 1.0)
            each.append([1.5, 1.25], 0.5)
            each.truncate(1)
        assert [journal[t] for t in range(len(journal))] == [copy[t] for t in range(len(copy))]


def test_ranks_take_part_in_a_group_that_was_there_and_leave_it(tmp_path):
    """As accelerate makes one. Each rank looks at rows of its own; the loss is that of all."""

    def task(team):
        optimizer = FZOO(Weights(model := make_model()), lr=0.02, n=4)
        with Ranks(share="own") as inner:
            look = inner.over(ModuleLook(model, objective, optimizer), optimizer)
            losses = look(optimizer.ask(0), batches_of_loop(inner.rank))
        return {"losses": losses, "places": team.every((inner.rank, inner.size))}  # the group is still there

    one, other = ranks.run(2, tmp_path, task)
    assert one == other
    assert one["places"] == [(0, 2), (1, 2)]
    model = make_model()
    optimizer = FZOO(Weights(model), lr=0.02, n=4)
    look = ModuleLook(model, objective, optimizer)
    assert one["losses"] == look(optimizer.ask(0), MicroBatches(map(batches_of_loop, range(2))))
