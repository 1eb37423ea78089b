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

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "peft", "hydra-core", "omegaconf", "numpy")
ROOT = Path(__file__).parents[2]


def provenance(gpus: Sequence[str], threads: int, began: float) -> dict[str, Any]:
    """Returns the record of provenance.json; `commit` and `dirty` are null outside a git checkout.

    gpus: names of the devices that torch sees. threads: of the CPU, that torch uses. began: seconds since 1970.
    """
    return {
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
    """Returns commit, dirty and diff of the code at `root`; a snapshot (launching.code_snapshot) has them recorded."""
    record = root / "CODE.json"
    if record.is_file():
        return json.loads(record.read_text(encoding="utf-8"))
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
