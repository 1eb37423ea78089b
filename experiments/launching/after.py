"""python -m experiments status, logs, cancel, retry: of a sweep, of runs, of a folder above them."""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.folder import RunFolder
from experiments.launching.states import OPEN, State, states
from experiments.launching.submission import LOG, NAME, read_sweep, submission
from zo.errors import ConfigError

COMMANDS = {
    "status": "how runs are: queued, running, requeued, finished, failed (and why), diverged, stopped",
    "logs": "the end of each run's log",
    "cancel": "stop runs at the step they are at; what waits in a queue is taken out of it",
    "retry": "run again what failed, as it was submitted",
}


def add(commands: Any) -> None:
    """The commands' arguments."""
    for name, words in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        command.add_argument(
            "runs", type=Path, nargs="+", help="folders: a sweep's, runs', or one above runs"
        )
        if name == "logs":
            command.add_argument("--lines", type=int, default=20, help="lines of each log")
        if name == "retry":
            command.add_argument(
                "--stopped", action="store_true", help="also runs that were stopped or cancelled"
            )
            command.add_argument("--new-code", action="store_true", help="with the code as it is now")


def perform(request: argparse.Namespace) -> int:
    """0 done (status: none failed), 1 a run failed, 2 wrong input (as ConfigError)."""
    console = Console(highlight=False, soft_wrap=True)
    folders = found(request.runs)
    if request.command == "status":
        return _status(folders, console)
    if request.command == "logs":
        return _logs(folders, request.lines)
    if request.command == "cancel":
        return _cancel(folders, console)
    return _retry(folders, request, console)


def found(paths: Sequence[Path]) -> list[Path]:
    """The runs' folders that the paths mean, each once. Raises ConfigError for a path without any."""
    folders: dict[Path, None] = {}
    for path in paths:
        if (path / "sweep.json").is_file():
            below = read_sweep(path)
        elif (path / "config.yaml").is_file():
            below = [path]
        else:
            below = sorted(
                file.parent for file in path.rglob("config.yaml") if (file.parent / "status.json").exists()
            )
        if not below:
            raise ConfigError(f"{path} is no sweep and no run, and there are no runs below it.")
        folders |= dict.fromkeys(below)
    return list(folders)


def _status(folders: Sequence[Path], console: Console) -> int:
    rows = states(folders)
    width = max(len(_name(row.folder)) for row in rows)
    for row in rows:
        steps = "" if row.steps is None else f"{row.steps:,}"
        console.print(f"{_name(row.folder):<{width}}  {row.state:<8}  {steps:>9}  {row.detail}".rstrip())
    console.print(
        ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in rows).items())
    )
    return int(any(row.state == "failed" for row in rows))


def _name(folder: Path) -> str:
    return "/".join(folder.parts[-3:])


def _logs(folders: Sequence[Path], lines: int) -> int:
    for folder in folders:
        asked = submission(folder) or {}
        logs = [folder / LOG, *([Path(asked["scheduler_log"])] if "scheduler_log" in asked else [])]
        told = [(log, said) for log in logs if (said := _tail(log, lines))]
        for log, said in told:
            sys.stdout.write(f"==> {log}\n{said}")
        if not told:
            why = (
                "it has said nothing yet" if asked else "it was started directly, so it spoke to its terminal"
            )
            sys.stdout.write(f"==> {folder} has no log: {why}.\n")
    return 0


def _tail(path: Path, lines: int) -> str:
    text = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "".join(f"{line}\n" for line in text[-lines:])


def _cancel(folders: Sequence[Path], console: Console) -> int:
    """A STOP file ends a running one at its step; a job is cancelled too, which a waiting one needs."""
    for row in states(folders):
        if row.state not in OPEN:
            continue
        (row.folder / "STOP").touch()
        if row.job is not None:
            subprocess.run(["scancel", row.job], check=False)
        if row.state != "running":
            RunFolder(row.folder).write_status("stopped", reason="cancelled", steps=row.steps)
        console.print(
            f"{_name(row.folder)} {'stops after its step' if row.state == 'running' else 'cancelled'}"
        )
    return 0


def _retry(folders: Sequence[Path], request: argparse.Namespace, console: Console) -> int:
    """What failed, through the launcher that it was submitted with; a run by hand is run here."""
    from experiments.launching import code
    from experiments.launching.command import start

    again = [
        row
        for row in states(folders)
        if row.state == "failed" or (request.stopped and row.state == "stopped")
    ]
    if not again:
        console.print("No run failed.")
        return 0
    groups: dict[str, list[State]] = {}
    for row in again:
        asked = submission(row.folder)
        if asked is None:
            raise ConfigError(
                f"{row.folder} was started by hand, so launch.py with its choices goes on with it, not retry."
            )
        groups.setdefault(str([asked["launch"], asked["cluster"]]), []).append(row)
    codes = []
    for rows in groups.values():
        for row in rows:
            asked = submission(row.folder) or {}
            if request.new_code:
                asked["code"] = str(code.freeze(Path(asked["code"]).parents[1]))
            folder = RunFolder(row.folder)
            with folder.locked():
                (row.folder / "STOP").unlink(missing_ok=True)
                folder.write(
                    NAME, {key: value for key, value in asked.items() if key not in ("job", "scheduler_log")}
                )
                folder.write_status("queued", launcher=asked["launch"]["name"], steps=row.steps)
            last = asked
        logs = Path(last["code"]).parents[1] / "sweeps" / "retried"
        codes.append(start([row.folder for row in rows], last["launch"], last["cluster"], logs, console))
    return max(codes)
