"""Runs of the command line, in this process or in one of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("task.train=48", "task.dev=16", "task.test=32", "batch.size=4", "stop.every=5")


class Runs:
    """Runs below one folder, of a few steps on few examples unless told otherwise."""

    def __init__(self, folder: Path):
        self.folder = folder

    def arguments(self, *overrides: str) -> list[str]:
        budget = [] if any(override.startswith("budget.") for override in overrides) else ["budget.steps=12"]
        return [*SMALL, *budget, f"paths.runs={self.folder}", *overrides]

    def __call__(self, *overrides: str, code: int = 0) -> dict[str, Any]:
        """Runs in this process; the newest result, {} where there is none."""
        from experiments.commands.launch import main

        assert main(self.arguments(*overrides)) == code
        found = self.results()
        return max(found, key=lambda result: result["folder"].stat().st_mtime_ns) if found else {}

    def start(self, *overrides: str, **options: Any) -> subprocess.Popen[str]:
        """Runs in a process of its own."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, str(ROOT / "launch.py"), *self.arguments(*overrides)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
        )  # fmt: skip

    def results(self) -> list[dict[str, Any]]:
        return [
            {**json.loads(path.read_text()), "folder": path.parent}
            for path in self.folder.rglob("result.json")
        ]

    def only(self) -> Path:
        """The folder of the only run."""
        (path,) = {path.parent for path in self.folder.rglob("config.yaml")}
        return path


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def stopped(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a command until so many steps are done, where a file STOP ends it."""
    from zo.journal import Journal

    append = Journal.append

    def stop(steps: int, *overrides: str) -> None:
        def append_and_ask(self, losses, lr=None):
            append(self, losses, lr)
            if len(self) == steps:
                (self.path.parent / "STOP").touch()

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", append_and_ask)
            assert runs(*overrides) == {}

    return stop


@pytest.fixture
def rows() -> Callable[[Path], list[dict[str, Any]]]:
    """The rows of a run's metrics.jsonl."""
    return lambda folder: [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
