"""A copy of the project that a test may add to, and Python in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .pages import ROOT

PARTS = ("zo", "experiments", "conf", "launch.py", "pyproject.toml", "notebooks", "tests/conftest.py",
         "tests/optimizers", "tests/conf")  # fmt: skip


def copied(folder: Path) -> Path:
    """The parts of the project that a run and its tests read, without what is of this machine alone."""
    for part in PARTS:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            leave = shutil.ignore_patterns("__pycache__", "local", "runs")
            shutil.copytree(ROOT / part, folder / part, ignore=leave)
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def execute(folder: Path, *words: str, path: Path | None = None) -> str:
    """What python prints in a folder whose packages come first, then those of `path`."""
    before = os.pathsep.join(str(each) for each in (folder, path) if each)
    environment = {**os.environ, "PYTHONPATH": before, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
