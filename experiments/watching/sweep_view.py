"""Shows a local sweep on its terminal: a live table of its runs below the permanent lines."""

import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from experiments.launching.pool import Show
from experiments.watching.follow import Flock
from experiments.watching.run_table import Overview
from zo.errors import ConfigError

_EVERY = 1.0  # seconds between looks at the runs' files


def sweep_view(
    console: Console, names: Mapping[Path, str]
) -> Callable[[Sequence[Path]], AbstractContextManager[Show]] | None:
    """Returns the live view for a sweep's runs; None if the output is not a terminal."""
    if not (console.is_interactive and console.file.isatty()):
        return None
    return lambda folders: _live_view(console, folders, names)


@contextmanager
def _live_view(console: Console, folders: Sequence[Path], names: Mapping[Path, str]) -> Iterator[Show]:
    """Draws a table that a thread refreshes every second, and at once after a note."""
    view = _View(console, folders, names)
    view.thread.start()
    try:
        yield Show(view.line, view.note)
    finally:
        view.end()


class _View:
    """The thread and what it draws.

    `note` is called from a signal handler, which must not wait for a lock, so it wakes the thread through a pipe.
    """

    def __init__(self, console: Console, folders: Sequence[Path], names: Mapping[Path, str]):
        self._console, self._folders = console, folders
        self._names = [names.get(folder) for folder in folders]
        self._flock = Flock()
        self._noted = ""
        self._is_over = False
        self._wake_read, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._live = Live(console=console, auto_refresh=False)
        self.thread = threading.Thread(target=self._draw, daemon=True)

    def line(self, text: str) -> None:
        """Prints a permanent line above the table."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Sets the words below the table."""
        self._noted = text
        with suppress(OSError):  # a full pipe wakes as well
            os.write(self._wake, b".")

    def end(self) -> None:
        """Draws the last table and releases the terminal."""
        self._is_over = True
        self.note(self._noted)
        self.thread.join()
        os.close(self._wake)
        os.close(self._wake_read)

    def _draw(self) -> None:
        with self._live:
            while True:
                is_last = self._is_over
                with suppress(OSError, ConfigError):  # files being replaced right now: the next read has them
                    self._flock.look(self._folders)
                    if all(self._names):
                        self._flock.names = [name or "" for name in self._names]
                foot = [Text(self._noted, style="bold")] if self._noted else []
                height = max(4, self._console.height - 2 - len(foot))
                self._live.update(Group(Overview(self._flock, height), *foot), refresh=True)
                if is_last:
                    return
                if select.select([self._wake_read], [], [], _EVERY)[0]:
                    os.read(self._wake_read, 64)
