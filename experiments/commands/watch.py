"""Shows several runs from their files until all have ended or q is pressed: python -m experiments watch RUNS."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from rich.console import Console
from rich.live import Live

from experiments.commands.arguments import number_of, runs_folder
from experiments.display.console import new_console
from experiments.launching.submission import command_of
from experiments.watching.follow import Flock, Followed
from experiments.watching.run_table import ATTENTION, Overview, line
from zo.errors import ConfigError
from zo.fields import Range

INTERRUPTED = 130
PAUSE = number_of(Annotated[float, Range(ge=0.01, le=86_400)])  # shorter would do nothing but read files
_FIND = 5.0  # seconds between looks for runs that have come
_STEP = 0.1  # share of a run after which another line is due where there is no terminal

Find = Callable[[], Sequence[Path]]


def add(commands: Any) -> None:
    """The command's arguments."""
    command = commands.add_parser("watch", help="several runs at once, until all have ended or q is pressed")
    command.add_argument(
        "runs",
        type=runs_folder,
        nargs="+",
        help="folders: a sweep's, runs', or one above runs; new ones are found",
    )
    command.add_argument("--once", action="store_true", help="print the table once")
    command.add_argument(
        "--every", type=PAUSE, default=1.0, metavar="SECONDS", help="seconds between looks at the files"
    )


def watch(find: Find, once: bool, every: float, console: Console | None = None) -> int:
    """0 all ended, or q was pressed; 1 a run failed; 130 Ctrl-C.

    find: the runs' folders, asked again every few seconds. Raises ConfigError when there are none at first.
    """
    console, flock = console or new_console(), Flock()
    flock.look(find())
    if once:
        console.print(Overview(flock))
    elif console.is_interactive:
        try:
            if _shown(flock, find, every, console):
                return 0
        except KeyboardInterrupt:
            return INTERRUPTED
    else:
        try:
            _told(flock, find, every, console)
        except KeyboardInterrupt:
            return INTERRUPTED
    tell_waiting(console, [run.folder for run in flock.runs if run.state.state == "waiting"])
    return int(any(run.state.state in ATTENTION for run in flock.runs))


def tell_waiting(console: Console, folders: Sequence[Path]) -> None:
    """Prints the commands that resume runs which no process will start."""
    if not folders:
        return
    wait = "1 run waits" if len(folders) == 1 else f"{len(folders)} runs wait"
    console.print(
        f"{wait}, and no process will start what waits. Rerun the same command to resume:", soft_wrap=True
    )
    for command in dict.fromkeys(
        command for folder in folders if (command := command_of(folder)) is not None
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)


class _Finder:
    """Calls `find` every few seconds; keeps the last answer while folders are being removed."""

    def __init__(self, flock: Flock, find: Find):
        self._find = find
        self._folders: Sequence[Path] = [run.folder for run in flock.runs]
        self._asked = time.monotonic()

    def __call__(self) -> Sequence[Path]:
        if time.monotonic() - self._asked >= _FIND:
            self._asked = time.monotonic()
            with suppress(OSError, ConfigError):
                self._folders = self._find()
        return self._folders


def _shown(flock: Flock, find: Find, every: float, console: Console) -> bool:
    """A live table; True when q was pressed."""
    finder = _Finder(flock, find)
    with Keys(console) as keys, Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(Overview(flock, console.height - 1), refresh=True)
            if flock.ended:
                return False
            if keys.wait(every) == "q":
                return True
            flock.look(finder())


def _told(flock: Flock, find: Find, every: float, console: Console) -> None:
    """A line when a run's state or its value on dev changes, and at each tenth of it."""
    finder, reported = _Finder(flock, find), dict[Path, object]()
    while True:
        for name, run in zip(flock.names, flock.runs, strict=True):
            if reported.get(run.folder) != (now := _news(run)):
                reported[run.folder] = now
                console.print(line(name, run), highlight=False, soft_wrap=True)
        if flock.ended:
            return
        time.sleep(every)
        flock.look(finder())


def _news(run: Followed) -> object:
    share = run.track.share
    tenth = None if share is None else int(share / _STEP)
    return run.state.state, run.track.dev, run.track.best, tenth


class Keys(AbstractContextManager["Keys"]):
    """Keys without Enter, where there is a keyboard and this program has it; the terminal is put back at the end.

    Ctrl-C is remembered too: what it raises is lost when it falls into a collection of garbage or a finaliser.
    """

    def __init__(self, console: Console):
        self._file = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
        if self._file >= 0 and os.tcgetpgrp(self._file) != os.getpgrp():
            self._file = -1  # in the background
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._interrupted = False

    def __enter__(self) -> "Keys":
        for number, handler in ((signal.SIGTERM, _leave), (signal.SIGINT, self._interrupt)):
            self._handlers[number] = signal.signal(number, handler)
        if self._file >= 0:
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> str:
        """Returns the key pressed within this many seconds, or ''; raises KeyboardInterrupt after Ctrl-C."""
        if self._interrupted:
            raise KeyboardInterrupt
        if self._file < 0:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._file], [], [], seconds)
        return os.read(self._file, 1).decode(errors="replace") if ready else ""

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        self._interrupted = True
        raise KeyboardInterrupt


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
