"""Prepares the folder of a started run, with config.yaml and submission.json frozen in it, and nothing else.

submission.json: code (the snapshot), cwd (where relative paths start), pythonpath (the user's, behind the code),
overrides, command and by (what started it: words, and the process), launch and cluster (the sections launcher and
cluster), time; a scheduler's job and log.
"""

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.run_config import RunConfig
from experiments.rundir.code_places import typed_words
from experiments.rundir.folder import RunFolder
from experiments.rundir.json_files import read_json
from experiments.rundir.lock import this_process
from zo.errors import ConfigError

if TYPE_CHECKING:  # a job reads this module before it can answer signals, and plan takes the seconds of torch
    from experiments.launching.plan import Run

NAME = "submission.json"
LOG = "log.txt"  # what a launched run said
LOCK = "submit.lock"  # held over squeue and sbatch, so that no run is in the queue twice


@dataclass(frozen=True)
class Pending:
    """A run to start: its folder, its configuration, and the function that writes both into the folder."""

    folder: Path
    config: RunConfig
    freeze: Callable[[], None]


def freeze_run(
    run: "Run", code: Path, launch: Mapping[str, Any], cluster: Mapping[str, Any], *, rerun: bool = False
) -> None:
    """Freezes code and configuration of a run, so that later edits do not change it. rerun: clears the folder.

    Raises Locked while another process is in the folder.
    """
    folder = RunFolder(run.folder)
    with folder.locked():
        if rerun:
            folder.clear()
        folder.forget_stop()  # of a cancel while the run waited
        folder.write_config(run.config.recorded())
        folder.write(NAME, {"code": str(code), "cwd": os.getcwd(), "pythonpath": users_paths(),
                            "overrides": list(run.overrides), "command": typed_words(),
                            "by": this_process(), "launch": launch, "cluster": cluster,
                            "time": time.time()})  # fmt: skip
        folder.write_status("queued", launcher=launch["name"])


def freeze_again(path: Path, submitted: Mapping[str, Any], steps: int | None) -> None:
    """Returns a submitted run to the state in which it waits to be started.

    Raises Locked while another process is in the folder.
    """
    folder = RunFolder(path)
    with folder.locked():
        folder.forget_stop()
        kept = {key: value for key, value in submitted.items() if key not in ("job", "scheduler_log")}
        folder.write(NAME, {**kept, "by": this_process()})
        folder.write_status("queued", launcher=submitted["launch"]["name"], steps=steps)


def users_paths() -> list[str]:
    """Returns the folders of the user's PYTHONPATH as absolute paths."""
    return [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def check_paths(folder: Path) -> None:
    """Raises ConfigError for a recorded PYTHONPATH that is not this user's: its modules would precede torch.

    A run's folder may be another's, and what stands on PYTHONPATH is run.
    """
    foreign = [path for path in (submission(folder) or {}).get("pythonpath", ()) if path not in users_paths()]
    if foreign:
        raise ConfigError(
            f"{folder} was submitted with {', '.join(foreign)} on PYTHONPATH, which is not on yours, so nothing there "
            f"is imported. If you trust it: PYTHONPATH={os.pathsep.join(foreign)}, and the same command."
        )


def submission(folder: Path) -> dict[str, Any] | None:
    """Returns the record of a run's submission; None for a run that no launcher started."""
    return read_json(folder / NAME)


def command_of(folder: Path) -> str | None:
    """Returns the command that started the run, to be run from the current folder; None if unknown."""
    submitted = submission(folder) or {}
    words = submitted.get("command")
    if not words:
        return None
    command = shlex.join(words)
    return command if submitted["cwd"] == os.getcwd() else f"cd {shlex.quote(submitted['cwd'])} && {command}"


def write_sweep(runs_folder: Path, name: str, runs: Sequence["Run"], command: Sequence[str]) -> Path:
    """Writes runs/sweeps/<name>/, a folder that lists the runs; a run may belong to several sweeps."""
    folder = RunFolder(runs_folder / "sweeps" / name)
    listed = [
        {"folder": os.path.relpath(run.folder, folder.path), "overrides": list(run.overrides)} for run in runs
    ]
    folder.write("sweep.json", {"name": name, "command": list(command), "time": time.time(), "runs": listed})
    return folder.path


def read_sweep(folder: Path) -> list[Path]:
    """Returns the folders of a sweep's runs."""
    return list(planned(folder))


def planned(folder: Path) -> dict[Path, list[str]]:
    """Returns the folders of a sweep's runs with their overrides. Raises ConfigError for a damaged list."""
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
