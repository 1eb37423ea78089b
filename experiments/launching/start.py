"""Starts runs in a pool of local processes, or as SLURM arrays."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.launching.job import BUSY
from experiments.launching.pool import LOG, Outcome, Pool, Show
from experiments.launching.slurm import submit
from experiments.launching.states import wait
from experiments.launching.submission import Pending, submission
from experiments.rundir.code_places import typed_command
from experiments.rundir.folder import RunFolder, title_of
from experiments.rundir.json_files import read_result
from experiments.training.stop import INTERRUPTED
from zo.errors import ConfigError, Locked

View = Callable[[Sequence[Path]], AbstractContextManager[Show]]


def start(
    runs: Sequence[Pending],
    launch: Mapping[str, Any],
    cluster: Mapping[str, Any],
    sweep_folder: Path,
    console: Console,
    *,
    view: View | None = None,
    names: Mapping[Path, str] | None = None,
    after: str | None = None,
    counts: bool = True,
) -> int:
    """Freezes runs and starts them as `launch` says; returns 0 also if they are still running.

    sweep_folder: where SLURM's files go. view: shows local runs while they run. names: of the runs, for the screen.
    after: folders to ask status about, by default the sweep's. counts: says at the end how many runs ended and failed.
    """
    if launch["name"] == "slurm":
        return _submit(runs, launch, cluster, sweep_folder, console, after or str(sweep_folder))
    mine, elsewhere = [], []
    for run in runs:
        try:
            run.freeze()
            mine.append(run.folder)
        except Locked:
            elsewhere.append(run.folder)
    with view(mine) if view is not None and mine else nullcontext(Show(console.print)) as show:
        pool = Pool(launch["parallel"], launch["threads"], show, names, fork=launch.get("fork", True))
        outcomes = pool(mine)
    return _close(console, mine, outcomes, elsewhere, pool.reason, counts)


def _submit(
    runs: Sequence[Pending],
    launch: Mapping[str, Any],
    cluster: Mapping[str, Any],
    sweep_folder: Path,
    console: Console,
    after: str,
) -> int:
    folders = [run.folder for run in runs]
    try:
        outcome = submit(runs, cluster, f"zo-{sweep_folder.name}", sweep_folder / "slurm")
    except ConfigError as error:
        for folder in folders:
            RunFolder(folder).write_status("failed", error=f"not submitted: {error}")
        sys.stderr.write(f"{error}\n")
        return 2
    for words in outcome.refused:
        sys.stderr.write(f"{words}\n")
    for folder in outcome.elsewhere:
        console.print(f"{title_of(folder)} is in the queue, or runs, by another command, and was left to it.")
    mine = [folder for folder in folders if folder not in outcome.elsewhere]
    jobs = sorted({str((submission(f) or {}).get("job", "")).partition("_")[0] for f in mine} - {""}, key=int)
    if jobs:
        console.print(f"Submitted as {', '.join(jobs)}. {typed_command('status')} {after}")
    if outcome.refused:
        return 2
    return wait(folders, console) if launch["wait"] else 0


def _close(
    console: Console,
    folders: Sequence[Path],
    outcomes: Sequence[Outcome],
    elsewhere: Sequence[Path],
    stopped: str | None,
    counts: bool,
) -> int:
    failed = [outcome.folder for outcome in outcomes if outcome.failed]
    ended = sum(read_result(folder)[0] is not None for folder in folders)
    if counts:
        console.print(f"{ended} of {len(folders)} runs ended, {len(failed)} failed.")
    for folder in failed:
        console.print(f"  {folder / LOG}")
    if stopped is not None:
        console.print(f"Stopped ({stopped}). Rerun the same command to resume.")
        return INTERRUPTED if stopped == "SIGINT" else 0
    busy = [*elsewhere, *(outcome.folder for outcome in outcomes if outcome.busy)]
    elsewhere_code = left_to_others(console, busy)
    return 1 if failed else elsewhere_code


def left_to_others(console: Console, folders: Sequence[Path]) -> int:
    """Reports the runs that other processes hold, which this command does not wait for.

    Returns BUSY while one of them has not ended.
    """
    open_still = [folder for folder in folders if read_result(folder)[0] is None]
    if not open_still:
        return 0
    are = "is" if len(open_still) == 1 else "are"
    console.print(
        f"{len(open_still)} of these runs {are} at work in other processes and not over: the sweep is not whole. This "
        f"command did not wait; {typed_command('watch')} does:"
    )
    for folder in open_still:
        console.print(f"  {folder}")
    return BUSY
