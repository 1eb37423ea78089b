"""launch.py -m: check every run, show what is to do, freeze it, start it. 0 done, 1 a run failed, 2 wrong input."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.cli.problems import listing
from experiments.folder import RunFolder
from experiments.launching import code
from experiments.launching.plan import Plan, Run, plan, short, state_of
from experiments.launching.pool import LOG, Outcome, Pool
from experiments.launching.request import Asked, Checked
from experiments.launching.slurm import submit
from experiments.launching.states import wait
from experiments.launching.submission import freeze_run, submission, write_sweep
from experiments.lock import holder_of
from experiments.stopping import INTERRUPTED
from zo.errors import ConfigError

SHOWN = 40  # runs that are listed by name


def sweep(asked: Asked, checked: Checked) -> int:
    """Plans and runs; refusals come before anything is written."""
    console = Console(soft_wrap=True, highlight=False)
    made, problems = plan(checked)
    if made is None or checked.problems:
        sys.stderr.write(listing(checked.problems + problems) + "\n")
        return 2
    todo = [run for run in made.runs if asked.rerun or not run.ended]
    busy = [run for run in todo if holder_of(run.folder / "lock")]
    todo = [run for run in todo if run not in busy]
    console.print(_overview(checked.name, made, todo, busy, asked.rerun))
    if asked.dry:
        console.print("Nothing was started (--dry-run).")
        return 0
    folder = write_sweep(made.runs_folder, checked.name, made.runs, sys.argv)
    console.print(f"The sweep is {folder}.")
    if not todo:
        return 0
    snapshot = code.freeze(made.runs_folder)
    for run in todo:
        freeze_run(run, snapshot, made.launcher, made.cluster, rerun=asked.rerun or asked.smoke)
    return start([run.folder for run in todo], made.launcher, made.cluster, folder, console)


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


def _overview(name: str, made: Plan, todo: Sequence[Run], busy: Sequence[Run], rerun: bool) -> Table:
    """One line a run: what is to do and what is there."""
    ended = len(made.runs) - len(todo) - len(busy)
    title = f"{name}: {len(made.runs)} runs, {len(todo)} to do, {ended} done"
    table = Table(title=title + (f", {len(busy)} running elsewhere" if busy else ""), title_justify="left")
    for column in ("run", "steps", "state"):
        table.add_column(column, overflow="fold")
    for run in made.runs[:SHOWN]:
        state = "again" if rerun and run.ended else "running" if run in busy else state_of(run)
        table.add_row(short(run, made.runs), f"{run.steps:,}", state)
    if len(made.runs) > SHOWN:
        table.add_row(f"and {len(made.runs) - SHOWN} more", "", "")
    return table


def _close(
    console: Console, folders: Sequence[Path], outcomes: Sequence[Outcome], stopped: str | None
) -> int:
    failed = [outcome.folder for outcome in outcomes if outcome.failed]
    ended = sum((folder / "result.json").exists() for folder in folders)
    console.print(f"{ended} of {len(folders)} runs ended, {len(failed)} failed.")
    for folder in failed:
        console.print(f"  {folder / LOG}")
    if stopped is not None:
        console.print(f"Stopped ({stopped}). The same command goes on from there.")
        return INTERRUPTED if stopped == "SIGINT" else 0
    return 1 if failed else 0
