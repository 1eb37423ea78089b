"""Sweeps on a real SLURM, found through sbatch. All jobs are submitted at once; each test looks at its own."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from experiments.__main__ import main as after
from experiments.commands.launch import main
from experiments.launching.states import states
from experiments.launching.submission import read_sweep, submission

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("sbatch") is None, reason="there is no SLURM here: no sbatch"),
]

SMALL = ("task.train=48", "task.dev=8", "task.test=8", "batch.size=8", "stop.every=100000", "save=false",
         "launcher=slurm", "cluster.mem=2", "cluster.minutes=20")  # fmt: skip
LONG, LONGER = "budget.steps=1500", "budget.steps=3000"  # 20 seconds and a minute of a core of one's own
PATIENCE = 600  # seconds, for a machine that others use too


class Site:
    """Sweeps below one folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def submit(self, name: str, *overrides: str, code: int = 0, root: str = "runs") -> list[Path]:
        words = [*SMALL, f"paths.runs={self.folder / root}", "optimizer=mezo", *overrides]
        assert main(["-m", *words, "--name", name]) == code
        return self.runs(name, root)

    def runs(self, name: str, root: str = "runs") -> list[Path]:
        return read_sweep(self.folder / root / "sweeps" / name)


def until(what, *, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(1)


def ended(folders: list[Path]) -> list[str]:
    """The states of runs that no longer change."""
    until(lambda: not {s.state for s in states(folders)} & {"queued", "running", "requeued"})
    return [state.state for state in states(folders)]


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def restarts(folder: Path) -> int:
    command = ["scontrol", "show", "job", "-o", job(folder)]
    words = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return next((int(word.partition("=")[2]) for word in words if word.startswith("Restarts=")), 0)


def job(folder: Path) -> str:
    return str((submission(folder) or {})["job"])


def sacct(folder: Path) -> str:
    """What the accounting says of a run's job; it hears of it some seconds later."""
    command = ["sacct", "-n", "-X", "-P", "-o", "State", "-j", job(folder)]
    said = ""
    for _ in range(30):
        said = subprocess.run(command, capture_output=True, text=True).stdout.strip().split("\n")[0]
        if said and not said.startswith(("PENDING", "RUNNING", "COMPLETING", "REQUEUED")):
            break
        time.sleep(1)
    return said


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Every job of this file, under way."""
    site = Site(tmp_path_factory.mktemp("site"))
    (broken,) = site.submit("fails", "seed=7", "budget.steps=3", "cluster.more={hold: true}")
    (broken / "journal").mkdir()
    subprocess.run(["scontrol", "release", job(broken)], check=True)
    site.submit("limited", LONGER, "cluster.minutes=1", "cluster.signal_seconds=10")
    site.submit("killed", LONG, "seed=1")
    site.submit("waiting", LONG, "seed=2", "cluster.more={hold: true}")
    site.submit("cancelled", "budget.steps=1000000", "seed=3")
    site.submit("two", "optimizer=mezo,fzoo", "seed=5", "budget.steps=20", "cluster.tasks=2")
    site.submit("undisturbed", LONGER, root="alone")
    site.submit("undisturbed1", LONG, "seed=1", root="alone")
    yield site
    for path in site.folder.glob("*/sweeps/*/sweep.json"):
        after(["cancel", str(path.parent)])


def test_an_impossible_request_is_refused_in_sbatchs_own_words(site, capfd):
    (folder,) = site.submit("impossible", "seed=9", "budget.steps=3", "cluster.gpus=99", code=2)
    assert "Requested node configuration is not available" in capfd.readouterr().err
    assert states([folder])[0].state == "failed"
    assert "sbatch" in states([folder])[0].detail


def test_a_run_that_is_killed_is_found_and_retried_to_the_same_bits(site, capsys):
    (folder,) = site.runs("killed")
    until(lambda: (folder / "journal").exists() and (folder / "journal").stat().st_size > 3000)
    os.kill(json.loads((folder / "lock").read_text())["pid"], signal.SIGKILL)
    until(lambda: states([folder])[0].state == "failed")
    assert states([folder])[0].detail.startswith(f"killed: job {job(folder)} is gone")
    assert after(["status", str(folder)]) == 1
    assert sacct(folder) == "FAILED"
    first = job(folder)
    runs = site.folder / "runs"
    assert after(["retry", "--trust", str(runs), str(runs / "sweeps" / "killed")]) == 0
    assert job(folder) != first
    assert "killed: job" in capsys.readouterr().out


def test_a_job_that_waits_is_not_submitted_again(site, capsys):
    (waiting,) = site.runs("waiting")
    first = job(waiting)
    site.submit("waiting", LONG, "seed=2", "cluster.more={hold: true}")
    assert job(waiting) == first
    assert "1 running or waiting elsewhere" in capsys.readouterr().out


def test_cancel_stops_what_runs_and_what_waits(site, capsys):
    (waiting,), (running,) = site.runs("waiting"), site.runs("cancelled")
    until(lambda: (running / "journal").exists() and (running / "journal").stat().st_size > 2000)
    assert after(["cancel", str(waiting), str(running)]) == 0
    assert ended([waiting, running]) == ["stopped", "stopped"]
    assert sacct(waiting).startswith("CANCELLED")
    assert sacct(running).startswith(("CANCELLED", "COMPLETED"))
    assert after(["status", str(running)]) == 0


def test_an_array_of_six_runs(site, capsys):
    folders = site.submit("six", "optimizer=mezo,fzoo", "seed=0,1,2", "budget.steps=3")
    assert {job(folder).partition("_")[0] for folder in folders} == {job(folders[0]).partition("_")[0]}
    assert len({job(folder) for folder in folders}) == 6
    ended(folders)
    assert [result(folder)["status"] for folder in folders] == ["finished"] * 6
    assert {sacct(folder) for folder in folders} == {"COMPLETED"}
    # Grown by a seed and a method's worth of runs, and by nothing else; and this time waited for.
    capsys.readouterr()
    site.submit("six", "optimizer=mezo,fzoo", "seed=0,1,2,4", "budget.steps=3", "launcher.wait=true")
    assert "8 runs, 2 to do, 6 done" in capsys.readouterr().out
    assert after(["report", str(site.folder / "runs" / "sweeps" / "six")]) == 0
    assert "8 of 8 runs ended" in capsys.readouterr().out


def test_a_run_that_fails_says_so_everywhere(site, capsys):
    (folder,) = site.runs("fails")
    assert ended([folder]) == ["failed"]
    assert sacct(folder) == "FAILED"
    assert "Traceback" in (folder / "log.txt").read_text()
    assert after(["status", str(folder)]) == 1
    last = (folder / "log.txt").read_text().strip().splitlines()[-1]
    assert states([folder])[0].detail in last and states([folder])[
        0
    ].detail in capsys.readouterr().out.replace("\n", "")


def test_over_its_time_limit_a_run_is_requeued_and_ends_with_the_bits_of_an_undisturbed_one(site):
    (limited,), (alone,) = site.runs("limited"), site.runs("undisturbed", "alone")
    until(lambda: restarts(limited) >= 1)
    # A minute was enough to see the limit; on a busy machine it would be many restarts.
    subprocess.run(["scontrol", "update", f"jobid={job(limited)}", "timelimit=20"], check=True)
    assert ended([limited, alone]) == ["finished", "finished"]
    assert int(json.loads((limited / "provenance.json").read_text())["slurm"]["SLURM_RESTART_COUNT"]) >= 1
    log = "".join(path.read_text() for path in limited.parents[4].glob("sweeps/limited/slurm/*.err"))
    assert "timed-out" not in log  # which submitit's own handler would have said
    assert "SLURM_RESTART_COUNT" not in json.loads((alone / "provenance.json").read_text())["slurm"]
    for key in ("model_sha256", "last_sha256", "steps", "forward_passes", "after"):
        assert result(limited)[key] == result(alone)[key]
    assert (limited / "journal").read_bytes() == (alone / "journal").read_bytes()


def test_a_job_of_two_tasks_is_one_run_with_the_bits_of_one_process(site):
    folders = site.runs("two")
    assert ended(folders) == ["finished", "finished"]
    assert [result(folder)["ranks"] for folder in folders] == [2, 2]
    alone = site.submit(
        "one", "optimizer=mezo,fzoo", "seed=5", "budget.steps=20", "launcher.wait=true", root="alone"
    )
    for shared, single in zip(folders, alone, strict=True):
        assert result(shared)["last_sha256"] == result(single)["last_sha256"]
        assert (shared / "log-rank1.txt").exists()


def test_the_retried_run_has_the_bits_of_an_undisturbed_one(site):
    (killed,), (alone,) = site.runs("killed"), site.runs("undisturbed1", "alone")
    assert ended([killed, alone]) == ["finished", "finished"]
    assert result(killed)["last_sha256"] == result(alone)["last_sha256"]
