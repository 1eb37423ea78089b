"""python -m experiments status, logs, cancel, retry: of a sweep, of runs, of a folder above them."""

import argparse
import functools
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from experiments.commands.arguments import number_of, runs_folder
from experiments.commands.watch import tell_waiting
from experiments.config.saved import load_config
from experiments.config.trusted import check_targets
from experiments.display.console import new_console
from experiments.launching.own_runs import root_of, runs_root
from experiments.launching.states import OPEN, State, find_runs, states
from experiments.launching.submission import LOG, Pending, check_paths, freeze_again, submission
from experiments.rundir.code_places import typed_command
from experiments.rundir.folder import RunFolder, title_of
from zo.errors import ConfigError
from zo.fields import Range

COMMANDS = {
    "status": "how runs are: queued, running, requeued, finished, failed (and why), diverged, stopped, waiting",
    "logs": "the end of each run's log",
    "cancel": "stop runs at the step they are at; what waits in a queue is taken out of it",
    "retry": "run again what failed, as it was submitted",
}
LINES = number_of(Annotated[int, Range(ge=1, le=10**6)])


def add(commands: Any) -> None:
    """The commands' arguments."""
    for name, words in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        command.add_argument(
            "runs", type=runs_folder, nargs="+", help="folders: a sweep's, runs', or one above runs"
        )
        if name == "logs":
            command.add_argument("--lines", type=LINES, default=20, metavar="N", help="lines of each log")
        if name == "retry":
            command.add_argument(
                "--stopped",
                action="store_true",
                help="also runs that were stopped or cancelled, or wait for nobody",
            )
            command.add_argument("--new-code", action="store_true", help="with the code as it is now")
            command.add_argument(
                "--trust", type=Path, action="append", default=[], metavar="FOLDER",
                help="a folder of runs other than this checkout's, whose code and cluster lines may be run; repeatable",
            )  # fmt: skip
            command.add_argument(
                "--allow", action="append", default=[], metavar="MODULE",
                help="a module of your own that a run's configuration may import; repeatable",
            )  # fmt: skip


def perform(request: argparse.Namespace) -> int:
    """0 done (status: none failed), 1 a run failed, 2 wrong input (as ConfigError)."""
    console = new_console(soft_wrap=True)
    folders = find_runs(request.runs)
    if request.command == "status":
        return _status(folders, console)
    if request.command == "logs":
        return _logs(folders, request.lines)
    if request.command == "cancel":
        return _cancel(folders, console)
    return _retry(folders, request, console)


def _status(folders: Sequence[Path], console: Console) -> int:
    rows = states(folders)
    width = max(len(title_of(row.folder)) for row in rows)
    for row in rows:
        steps = "" if row.steps is None else f"{row.steps:,}"
        warned = f"{row.warnings} warning{'s' if row.warnings > 1 else ''}" if row.warnings else ""
        words = "; ".join(part for part in (row.detail, warned) if part)
        console.print(f"{title_of(row.folder):<{width}}  {row.state:<8}  {steps:>9}  {words}".rstrip())
    console.print(
        ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in rows).items())
    )
    tell_waiting(console, [row.folder for row in rows if row.state == "waiting"])
    return int(any(row.state in ("failed", "unreadable") for row in rows))


def _logs(folders: Sequence[Path], lines: int) -> int:
    for folder in folders:
        request = submission(folder) or {}
        logs = [folder / LOG, *([Path(request["scheduler_log"])] if "scheduler_log" in request else [])]
        excerpts = [(log, excerpt) for log in logs if (excerpt := _tail(log, lines))]
        for log, excerpt in excerpts:
            sys.stdout.write(f"==> {log}\n{excerpt}")
        if not excerpts:
            why = (
                "it has said nothing yet"
                if request
                else "it was started directly, so it spoke to its terminal"
            )
            sys.stdout.write(f"==> {folder} has no log: {why}.\n")
    return 0


def _tail(path: Path, lines: int) -> str:
    text = path.read_text(errors="replace", encoding="utf-8").splitlines() if path.exists() else []
    return "".join(f"{line}\n" for line in text[-lines:])


def _cancel(folders: Sequence[Path], console: Console) -> int:
    """A STOP file ends a running one at its step; a job is cancelled too, which a waiting one needs."""
    slurm, waiting = shutil.which("scancel") is not None, []
    for row in states(folders):
        if row.state not in OPEN:
            continue
        (row.folder / "STOP").touch()
        if row.job is not None and slurm:
            subprocess.run(["scancel", row.job], check=False)
        if row.state == "running":
            console.print(f"{title_of(row.folder)} stops after its step")
        elif row.job is None or slurm:
            RunFolder(row.folder).write_status("stopped", reason="cancelled", steps=row.steps)
            console.print(f"{title_of(row.folder)} cancelled")
        else:
            waiting.append(row.job)
    if waiting:
        raise ConfigError(
            f"scancel is not here, so these jobs stay in SLURM's queue: {', '.join(waiting)}. Their runs will stop "
            "after a step; to take them out of the queue, cancel again on a login node of the cluster."
        )
    return 0


def _retry(folders: Sequence[Path], request: argparse.Namespace, console: Console) -> int:
    """Reruns failed runs through the launcher that submitted them; runs started by hand are left alone."""
    from experiments.launching import code_snapshot

    rows = states(folders)
    left = [row for row in rows if row.state in ("stopped", "waiting")]
    again = [row for row in rows if row.state == "failed" or (request.stopped and row in left)]
    if not again:
        console.print("No run failed." + ("" if request.stopped else _left(left, request)))
        return 0
    groups: dict[str, list[State]] = {}
    by_hand = []
    for row in again:
        submitted = submission(row.folder)
        if submitted is None or not submitted.keys() >= {"launch", "cluster", "code"}:
            by_hand.append(row.folder)
        else:
            # The jobs of an array run one code.
            alike = [submitted[key] for key in ("launch", "cluster", "code")]
            groups.setdefault(str([*alike, submitted.get("pythonpath")]), []).append(row)
    if by_hand:
        listed = "\n".join(f"  {folder}" for folder in by_hand)
        by_hand_words = (
            f"Started by hand; retry leaves them alone. Resume each with launch.py and its choices:\n{listed}"
        )
        if not groups:
            raise ConfigError(by_hand_words)
        console.print(by_hand_words)
    own, trusted = runs_root(), [folder.resolve() for folder in request.trust]
    for row in [row for group in groups.values() for row in group]:  # all, before anything is written
        root = root_of(row.folder, own, trusted)
        check_targets(load_config(row.folder), request.allow)
        check_paths(row.folder)
        if not request.new_code:
            code_snapshot.check_own(Path((submission(row.folder) or {})["code"]), row.folder, root)
    codes = [_start_again(group, request, console) for group in groups.values()]
    if not request.stopped and left:
        console.print(_left(left, request).strip())
    return max(codes)


def _start_again(rows: Sequence[State], request: argparse.Namespace, console: Console) -> int:
    """Starts runs of one launcher, cluster and code as they were submitted."""
    from experiments.launching import code_snapshot
    from experiments.launching.start import start

    pending = []
    submitted: dict[str, Any] = {}
    for row in rows:
        submitted = submission(row.folder) or {}
        if request.new_code:
            submitted["code"] = str(code_snapshot.freeze(row.folder.resolve().parents[3]))
        freeze = functools.partial(freeze_again, row.folder, submitted, row.steps)
        pending.append(Pending(row.folder, load_config(row.folder), freeze))
    given = list(request.runs)
    sweep = len(given) == 1 and (given[0] / "sweep.json").is_file()
    logs = given[0] if sweep else Path(submitted["code"]).parents[1] / "sweeps" / "retried"
    after = shlex.join(map(str, given))
    return start(pending, submitted["launch"], submitted["cluster"], logs, console, after=after)


def _left(rows: Sequence[State], request: argparse.Namespace) -> str:
    """Says how many runs retry leaves, and the command that takes them."""
    if not rows:
        return ""
    counts = Counter(row.state for row in rows)
    words = " and ".join(
        f"{count} {'is' if count == 1 else 'are'} {state}" for state, count in counts.items()
    )
    trust = [word for folder in request.trust for word in ("--trust", str(folder))]
    given = shlex.join([*trust, *map(str, request.runs)])
    return f" {words}: {typed_command('retry')} --stopped {given}"
