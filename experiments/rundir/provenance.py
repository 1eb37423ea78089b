"""Records the origin of a result: code, machine, versions, command."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.rundir.code_places import FROM_WHEEL, PACKAGE, RECORD, ROOT
from zo.version import version

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "peft", "hydra-core", "omegaconf", "numpy")


def provenance(gpus: Sequence[str], threads: int, began: float) -> dict[str, Any]:
    """Returns the record of provenance.json; `commit` and `dirty` are null where neither git nor a record knows them.

    gpus: names of the devices that torch sees. threads: of the CPU, that torch uses. began: seconds since 1970.
    """
    return {
        "version": version(),
        **source(ROOT),
        "command": [sys.executable, *sys.argv],
        "time": began,
        "host": platform.node(),
        "system": platform.platform(),
        "processor": processor(),
        "gpus": list(gpus),
        "threads": threads,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "slurm": {
            key: value for key, value in os.environ.items() if key in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT")
        },
    }


def source(root: Path) -> dict[str, Any]:
    """Returns commit, dirty and diff of the code at `root`; snapshots, sdists and wheels have them recorded.

    git is asked in a checkout only: site-packages may lie below a repository of somebody else's.
    """
    for record in (root / RECORD, *([PACKAGE / RECORD] if FROM_WHEEL else [])):
        if record.is_file():
            return json.loads(record.read_text(encoding="utf-8"))
    if FROM_WHEEL:
        return {"commit": None, "dirty": None, "diff": None}
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "diff": _git(root, "diff", "HEAD") or None,
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Returns the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
