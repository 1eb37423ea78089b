"""launch.py in two processes, as torchrun and srun start it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.launching.check import Asked, check
from experiments.launching.plan import plan
from experiments.launching.submission import freeze_run
from experiments.rundir.folder import RunFolder
from experiments.training.ranks import Named
from tests.distributed.ranks import free_port
from tests.experiments.conftest import ROOT
from zo.errors import DataError, RankLost

LONG = ("budget.steps=20000", "stop.every=20000", "save=false")


def start(runs, *overrides):
    """Two processes of one run, each with the environment that srun gives a task."""
    return tasks(str(ROOT / "launch.py"), *runs.arguments(*overrides))


def tasks(*command, size=2):
    common = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_PORT": str(free_port()),
        "SLURM_STEP_NUM_TASKS": str(size),
    }
    return [
        subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, text=True,
            env=common | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(size)
    ]  # fmt: skip


def ended(processes):
    """(exit code, stdout, stderr) of each."""
    texts = [process.communicate(timeout=200) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def running(runs, processes):
    """Waits until steps are taken."""
    metrics = None
    while metrics is None or '"train"' not in metrics.read_text():
        assert all(process.poll() is None for process in processes), ended(processes)
        metrics = next(runs.folder.rglob("metrics.jsonl"), None)
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun_gives_the_result_of_one_process(runs, tmp_path):
    more = ("evaluate.batch=8", "optimizer=mezo", "select=best")
    one = runs(*more, f"paths.runs={tmp_path / 'one'}") or json.loads(
        next((tmp_path / "one").rglob("result.json")).read_text()
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        str(ROOT / "launch.py"),
    ]
    done = subprocess.run(
        [*command, *runs.arguments(*more)], cwd=ROOT, text=True, capture_output=True, check=True
    )
    (two,) = [result for result in runs.results() if "one" not in result["folder"].parts]
    assert two["ranks"] == 2
    clock = {"ranks", "seconds", "peak_memory_bytes", "check_forward_passes", "folder"}
    assert {k: v for k, v in two.items() if k not in clock} == {
        k: v for k, v in one.items() if k not in clock
    }
    assert done.stdout.count("accuracy before") == 1  # rank 0 alone prints


@pytest.mark.slow
def test_a_signal_to_one_task_stops_both_and_one_process_goes_on(runs, tmp_path):
    whole = runs("save=false", f"paths.runs={tmp_path / 'whole'}", "budget.steps=60", "stop.every=60")
    whole = whole or json.loads(next((tmp_path / "whole").rglob("result.json")).read_text())
    processes = start(runs, "save=false", "budget.steps=60", "stop.every=60")
    running(runs, processes)
    processes[1].send_signal(signal.SIGTERM)
    assert [code for code, *_ in ended(processes)] == [0, 0]
    folder = next(path for path in runs.folder.rglob("status.json")).parent
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("stopped", "SIGTERM")
    resumed = runs("save=false", "budget.steps=60", "stop.every=60")
    assert resumed["last_sha256"] == whole["last_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_task_ends_the_other_within_seconds(runs, killed):
    processes = start(runs, *LONG)
    running(runs, processes)
    began = time.monotonic()
    processes[killed].kill()
    code, _, said = ended(processes)[1 - killed]
    assert time.monotonic() - began < 20
    assert code == 1 and "RankLost" in said
    if killed == 0:
        assert "rank 1: RankLost" in said
    else:
        status = json.loads(next(runs.folder.rglob("status.json")).read_text())
        assert status["state"] == "failed" and "RankLost" in status["error"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_error_of_a_task_outlives_that_it_was_lost(tmp_path, order):
    """Whichever of the two says it first. What an earlier process left is no word of this run."""
    folder = RunFolder(tmp_path)
    errors = [RankLost("Rank 0 lost another rank."), DataError("Row 3 has no label.")]
    folder.write("status.json", {"state": "failed", "time": 1.0, "error": "of last year"})
    for which in order:
        folder.write_failed(errors[which], steps=4)
        assert (folder.status() or {})["error"] != "of last year"
    assert folder.status() == (folder.status() or {}) | {
        "state": "failed", "error": "zo.errors.DataError: Row 3 has no label.", "steps": 4
    }  # fmt: skip


@pytest.mark.slow
def test_a_launched_run_says_why_a_task_failed(runs, tmp_path, monkeypatch):
    """Rank 1 fails at a move; rank 0 writes the run's files, and knows only that rank 1 is gone."""
    (tmp_path / "failing").mkdir()
    (tmp_path / "failing" / "__init__.py").write_text(
        "import os\n"
        "from zo.optimizers import MeZO\n\n\n"
        "class Failing(MeZO):\n"
        "    def _move(self, t, losses, lr):\n"
        "        if t == 2 and os.environ['SLURM_PROCID'] == '1':\n"
        "            raise OSError('the disk of this node is gone')\n"
        "        return super()._move(t, losses, lr)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    made, problems = plan(
        check(Asked(runs.arguments("optimizer=mezo", "optimizer._target_=failing.Failing")))
    )
    assert problems == [] and made is not None
    freeze_run(made.runs[0], ROOT, {"name": "local", "parallel": 1, "threads": None}, {})
    processes = tasks("-P", "-m", "experiments.launching.worker", str(made.runs[0].folder))
    assert [code for code, *_ in ended(processes)] == [1, 1]
    status = RunFolder(made.runs[0].folder).status() or {}
    assert (status["state"], status["error"]) == ("failed", "OSError: the disk of this node is gone")


@pytest.mark.slow
def test_first_order_methods_are_refused_before_the_model_is_loaded(runs):
    for code, _, said in ended(start(runs, "optimizer=adamw")):
        assert code == 2 and "share scalars only" in said
    assert not runs.folder.exists()


def test_lines_are_named(tmp_path):
    with open(tmp_path / "said", "w") as file:
        stream = Named(file, "rank 3")
        stream.write("one\ntwo, ")
        stream.write("still two\n\n")
    assert (tmp_path / "said").read_text() == "rank 3: one\nrank 3: two, still two\nrank 3: \n"


@pytest.mark.slow
def test_only_the_first_process_tracks(runs):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    (first, said, _), (second, silent, _) = ended(start(runs, "tracker=tensorboard"))
    assert (first, second, silent) == (0, 0, "")
    assert said.count("TensorBoard shows this run") == 1
    (_,) = runs.folder.rglob("events.out.tfevents.*")
