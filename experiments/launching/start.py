"""Starts frozen runs: in a pool of local processes, or as SLURM arrays."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.launching.pool import LOG, Outcome, Pool
from experiments.launching.slurm import submit
from experiments.launching.states import wait
from experiments.launching.submission import submission
from experiments.launching.worker import BUSY
from experiments.rundir.folder import RunFolder
from experiments.rundir.json_files import read_result
from experiments.training.stop import INTERRUPTED
from zo.errors import ConfigError


def start(
    folders: Sequence[Path],
    launch: Mapping[str, Any],
    cluster: Mapping[str, Any],
    sweep_folder: Path,
    console: Console,
) -> int:
    """Starts frozen runs as `launch` says; 0 also where it returns before they have ended."""
    if launch["name"] == "slurm":
        return _submit(folders, launch, cluster, sweep_folder, console)
    pool = Pool(launch["parallel"], launch["threads"], console.print)
    return _close(console, folders, pool(folders), pool.reason)


def _submit(
    folders: Sequence[Path],
    launch: Mapping[str, Any],
    cluster: Mapping[str, Any],
    sweep_folder: Path,
    console: Console,
) -> int:
    try:
        refused = submit(folders, cluster, f"zo-{sweep_folder.name}", sweep_folder / "slurm")
    except ConfigError as error:
        for folder in folders:
            RunFolder(folder).write_status("failed", error=f"not submitted: {error}")
        sys.stderr.write(f"{error}\n")
        return 2
    for words in refused:
        sys.stderr.write(f"{words}\n")
    jobs = sorted(
        {str((submission(f) or {}).get("job", "")).partition("_")[0] for f in folders} - {""}, key=int
    )
    if jobs:
        console.print(f"Submitted as {', '.join(jobs)}. python -m experiments status {sweep_folder}")
    if refused:
        return 2
    return wait(folders, console) if launch["wait"] else 0


def _close(
    console: Console, folders: Sequence[Path], outcomes: Sequence[Outcome], stopped: str | None
) -> int:
    failed = [outcome.folder for outcome in outcomes if outcome.failed]
    ended = sum(read_result(folder)[0] is not None for folder in folders)
    console.print(f"{ended} of {len(folders)} runs ended, {len(failed)} failed.")
    for folder in failed:
        console.print(f"  {folder / LOG}")
    if stopped is not None:
        console.print(f"Stopped ({stopped}). The same command goes on from there.")
        return INTERRUPTED if stopped == "SIGINT" else 0
    if not failed and any(outcome.code == BUSY for outcome in outcomes):
        console.print(
            "Runs that another process is at have not ended: give the same command again when it has."
        )
        return BUSY
    return 1 if failed else 0
