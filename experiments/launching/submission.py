"""What a started run gets: its folder, with config.yaml and submission.json frozen in it, and nothing else.

submission.json: code (the snapshot), cwd (where relative paths start), overrides, rerun, launcher, and what the
launcher adds (a scheduler's job).
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.folder import RunFolder
from experiments.launching.plan import Run

NAME = "submission.json"


def freeze_run(run: Run, code: Path, launcher: str, *, rerun: bool = False, **more: Any) -> None:
    """Writes what the run will be, whatever is edited afterwards."""
    folder = RunFolder(run.folder)
    folder.write_config(run.config)
    folder.write(NAME, {"code": str(code), "cwd": os.getcwd(), "overrides": list(run.overrides), "rerun": rerun,
                        "launcher": launcher, "time": time.time(), **more})  # fmt: skip
    folder.write_status("queued", launcher=launcher)


def submission(folder: Path) -> dict[str, Any] | None:
    """What was written at submission; None for a run that no launcher started."""
    path = folder / NAME
    return json.loads(path.read_text()) if path.exists() else None


def write_sweep(runs_folder: Path, name: str, runs: Sequence[Run], command: Sequence[str]) -> Path:
    """runs/sweeps/<name>/: a folder that lists the runs; the runs themselves may belong to several sweeps."""
    folder = RunFolder(runs_folder / "sweeps" / name)
    listed = [
        {"folder": os.path.relpath(run.folder, folder.path), "overrides": list(run.overrides)} for run in runs
    ]
    folder.write("sweep.json", {"name": name, "command": list(command), "time": time.time(), "runs": listed})
    return folder.path


def read_sweep(folder: Path) -> list[Path]:
    """The folders of a sweep's runs."""
    listed: Mapping[str, Any] = json.loads((folder / "sweep.json").read_text())
    return [Path(os.path.normpath(folder / run["folder"])) for run in listed["runs"]]
