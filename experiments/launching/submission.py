"""What a started run gets: its folder, with config.yaml and submission.json frozen in it, and nothing else.

submission.json: code (the snapshot), cwd (where relative paths start), overrides, launch and cluster (the sections
launcher and cluster), time; a scheduler's job and log.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.rundir.folder import RunFolder
from experiments.rundir.json_files import read_json
from zo.errors import ConfigError

if TYPE_CHECKING:  # a job reads this module before it can answer signals, and plan takes the seconds of torch
    from experiments.launching.plan import Run

NAME = "submission.json"
LOG = "log.txt"  # what a launched run said


def freeze_run(
    run: "Run", code: Path, launch: Mapping[str, Any], cluster: Mapping[str, Any], *, rerun: bool = False
) -> None:
    """Writes what the run will be, whatever is edited afterwards. rerun: forgets what the folder holds.

    Raises Locked while another process is in the folder.
    """
    folder = RunFolder(run.folder)
    with folder.locked():
        if rerun:
            folder.clear()
        folder.forget_stop()  # of a cancel while the run waited
        folder.write_config(run.config)
        folder.write(NAME, {"code": str(code), "cwd": os.getcwd(), "overrides": list(run.overrides),
                            "launch": launch, "cluster": cluster, "time": time.time()})  # fmt: skip
        folder.write_status("queued", launcher=launch["name"])


def submission(folder: Path) -> dict[str, Any] | None:
    """What was written at submission; None for a run that no launcher started."""
    return read_json(folder / NAME)


def write_sweep(runs_folder: Path, name: str, runs: Sequence["Run"], command: Sequence[str]) -> Path:
    """runs/sweeps/<name>/: a folder that lists the runs; the runs themselves may belong to several sweeps."""
    folder = RunFolder(runs_folder / "sweeps" / name)
    listed = [
        {"folder": os.path.relpath(run.folder, folder.path), "overrides": list(run.overrides)} for run in runs
    ]
    folder.write("sweep.json", {"name": name, "command": list(command), "time": time.time(), "runs": listed})
    return folder.path


def read_sweep(folder: Path) -> list[Path]:
    """The folders of a sweep's runs."""
    return list(planned(folder))


def planned(folder: Path) -> dict[Path, list[str]]:
    """The folders of a sweep's runs, with the overrides of each. Raises ConfigError for a damaged list."""
    listed = (read_json(folder / "sweep.json") or {}).get("runs")
    if not isinstance(listed, list) or not all(
        isinstance(run, dict)
        and isinstance(run.get("folder"), str)
        and isinstance(run.get("overrides"), list)
        for run in listed
    ):
        raise ConfigError(
            f"{folder / 'sweep.json'} is damaged: it lists no runs. Give the sweep's command again, which writes it "
            "anew, or name the runs' own folders."
        )
    return {Path(os.path.normpath(folder / run["folder"])): list(run["overrides"]) for run in listed}
