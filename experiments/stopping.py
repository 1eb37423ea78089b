"""Stops at step boundaries. A handler only sets a flag; the loop reads it when a step is whole.

SIGINT (Ctrl-C), SIGTERM, SIGUSR2 and a file STOP in the run's folder end the run after the step in flight.
The second Ctrl-C exits at once; the journal is whole then too.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

from experiments.folder import RunFolder

INTERRUPTED = 130


class StopFlag:
    """Why the run should stop, or None. A context: handlers are put back at the end."""

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.reason: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason == "SIGINT":
            os.write(
                sys.stderr.fileno(),
                b"\nStopped at once. The same command goes on from the last whole step.\n",
            )
            os._exit(INTERRUPTED)
        self.reason = signal.Signals(number).name

    def asked(self) -> bool:
        """Whether to stop at this boundary."""
        if self.reason is None and self.folder.stop_asked():
            self.reason = "STOP file"
        return self.reason is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 0 after a scheduler's signal or a STOP file."""
        return INTERRUPTED if self.reason == "SIGINT" else 0
