"""Stops a run at a step boundary. Signal handlers only set a flag, which the loop reads when a step is complete.

SIGINT (Ctrl-C), SIGTERM, SIGUSR2, SIGHUP (the terminal was closed) and a file STOP in the run's folder end the run
after the current step. Ctrl-C prints at once what it will do. A second Ctrl-C exits at once; the journal is whole then
too. Any of several processes may get the signal: it is exchanged with the step's losses, and all stop after the same
step.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

from experiments.rundir.folder import RunFolder
from zo.team import Solo, Team

INTERRUPTED = 130
_FILE = 1 << 16  # the code of a STOP file; the code of a signal is its number
ACKNOWLEDGED = "Stops after this step; Ctrl-C again ends at once."
_SAME = 1.0  # seconds within which torchrun repeats to its processes the Ctrl-C that they got themselves


class StopFlag:
    """Collects requests to stop; `reason` names the one that all processes agreed on, or is None.

    A context: installs the signal handlers and restores the earlier ones at its end. farewell: bytes that the terminal
    needs when the process exits at once.
    """

    def __init__(self, folder: RunFolder, team: Team | None = None):
        self.folder = folder
        self.team = team or Solo()
        self.reason: str | None = None
        self.farewell = b""
        # Prints a line beside the view of the run, if there is one.
        self.say: Callable[[str], None] | None = None
        self._code = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # under nohup
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        again = number == signal.SIGINT and self._code == signal.SIGINT
        if again and (self.team.size == 1 or time.monotonic() - self._since > _SAME):
            _write(sys.stdout, self.farewell)
            _write(
                sys.stderr, b"\nStopped at once. Rerun the same command to resume from the last whole step.\n"
            )
            os._exit(INTERRUPTED)
        if not again:
            self._code, self._since = number, time.monotonic()
            if number == signal.SIGINT and self.team.leads:
                self._acknowledge()

    def _acknowledge(self) -> None:
        """Prints at once, as a step may take minutes; in another thread, as this one may hold the view's locks."""
        if self.farewell and self.say is not None:
            threading.Thread(target=self.say, args=(ACKNOWLEDGED,), daemon=True).start()
        else:
            _write(sys.stderr, f"\n{ACKNOWLEDGED}\n".encode())

    def code(self) -> int:
        """Returns the stop code of this process: 0 for none, a signal's number, or the code of a STOP file."""
        if not self._code and self.team.leads and self.folder.stop_asked():
            self._code = _FILE
        return self._code

    def is_requested(self) -> bool:
        """Returns True to stop at this step boundary; all processes get the same answer."""
        if code := self.team.stop:
            self.reason = "STOP file" if code == _FILE else signal.Signals(code).name
        return self.reason is not None

    @property
    def exit_code(self) -> int:
        """Returns 130 after Ctrl-C, 0 after a scheduler's signal or a STOP file."""
        return INTERRUPTED if self.reason == "SIGINT" else 0


def _write(stream: TextIO | None, data: bytes) -> None:
    """Writes without buffers, which is safe in a signal handler; ignores what cannot be written."""
    with suppress(OSError, ValueError):
        if stream is not None and data:
            os.write(stream.fileno(), data)
