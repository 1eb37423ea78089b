"""Runs that are forks of one warm process: the run is the same, and what ends one of them hurts no other."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from experiments.launching import code_snapshot
from experiments.launching.check import Asked, check
from experiments.launching.forked import can_fork
from experiments.launching.plan import plan
from experiments.launching.pool import Outcome, Pool, Show
from experiments.launching.submission import LOG, freeze_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_fork(), reason="runs are forked on Linux alone"),
]
CRASH = """
import os, signal
from zo.optimizers import MeZO

class Crash(MeZO):
    def step(self, *more):
        os.kill(os.getpid(), signal.SIGSEGV)
"""
# Of a process and a moment. Memory: a fork does not count the pages of libraries that it never touches.
OF_THE_MOMENT = {
    "seconds",
    "gpu_hours",
    "peak_memory_bytes",
    "time",
    "pid",
    "began",
    "command",
    "result_sha256",
}


@pytest.fixture
def code(tmp_path) -> Path:
    """A snapshot of the code, with an optimizer that crashes beside launch.py."""
    made = code_snapshot.freeze(tmp_path)
    (made / "crash.py").write_text(CRASH, encoding="utf-8")
    return made


@pytest.fixture
def frozen(small, code, monkeypatch):
    """Freezes the runs of a sweep, which have no modules on PYTHONPATH, and returns their folders."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.syspath_prepend(code)

    def freeze(*overrides: str) -> list[Path]:
        made, problems = plan(check(Asked(small(*overrides))))
        assert made is not None, problems
        for run in made.runs:
            freeze_run(run, code, made.launcher, made.cluster)
        return [run.folder for run in made.runs]

    return freeze


def seen(folder: Path, name: str) -> object:
    """The content of a JSON file, or of the rows of metrics.jsonl, without what differs from time to time."""
    text = (folder / name).read_text(encoding="utf-8")
    parts = [json.loads(line) for line in text.splitlines()] if name.endswith("l") else [json.loads(text)]
    return [{key: value for key, value in part.items() if key not in OF_THE_MOMENT} for part in parts]


def test_a_fork_is_the_run_that_a_fresh_interpreter_makes_and_a_crash_is_its_own(frozen, tmp_path):
    folders = frozen("optimizer=mezo", "seed=0,1")
    (crashing,) = frozen("optimizer=mezo", "optimizer._target_=crash.Crash")
    (alone,) = frozen("optimizer=mezo", f"paths.runs={tmp_path / 'alone'}")
    lines: list[str] = []
    pool = Pool(1, 1, Show(lines.append))
    outcomes = pool([crashing, *folders])
    assert [outcome.code for outcome in outcomes] == [-signal.SIGSEGV, 0, 0]
    assert any("failed: ended by signal SIGSEGV" in line for line in lines)
    assert pool._server is not None and not psutil.pid_exists(pool._server._process.pid)
    (fresh,) = Pool(1, 1, Show(lines.append), fork=False)([alone])
    assert fresh.code == 0
    assert (folders[0] / "journal").read_bytes() == (alone / "journal").read_bytes()
    for name in ("result.json", "metrics.jsonl", "answers.json", "status.json"):
        assert seen(folders[0], name) == seen(alone, name), name
    (mine, other) = (json.loads((f / "provenance.json").read_text()) for f in (folders[0], alone))
    differ = {key for key in mine if mine[key] != other[key]}
    assert differ <= {"time", "command"} and mine["command"][:-1] == other["command"][:-1]
    own, others = ((folder / LOG).read_text().splitlines() for folder in (folders[0], alone))
    assert len(own) == len(others) and own[0] == others[0]


def test_a_server_that_is_killed_leaves_its_run_alone_and_later_runs_start_fresh(frozen):
    folders = frozen("optimizer=mezo", "budget.steps=400", "seed=0,1")
    outcomes: list[Outcome] = []
    pool = Pool(1, 1, Show(lambda _: None))
    running = pool._start
    killed = threading.Event()

    def start(folder: Path, devices):
        process = running(folder, devices)
        if not killed.is_set():
            killed.set()
            assert pool._server is not None and process is not None
            while not (folder / "metrics.jsonl").exists():
                assert process.poll() is None
                time.sleep(0.05)
            os.kill(pool._server._process.pid, signal.SIGKILL)
        return process

    pool._start = start  # type: ignore[method-assign]
    outcomes += pool(folders)
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert [json.loads((f / "result.json").read_text())["steps"] for f in folders] == [400, 400]
