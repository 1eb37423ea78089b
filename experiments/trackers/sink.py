"""Runs a tracker behind a thread: whatever the tracker does, the run goes on and keeps its numbers.

The run queues a row in about a microsecond; the tracker's own thread sends rows in batches. An exception there is
printed as one sentence and the tracker is dropped; a tracker that hangs is abandoned when the run ends. During the run
the thread is busy about 1 / `REST_FACTOR` of the time, and it catches up at the end.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.rundir.code_places import typed_command
from experiments.trackers.interface import About, Tracker, metrics_of, summary_of

REST_FACTOR = 200  # the thread rests this many times as long as it worked, so that it costs the run 0.5 %
EVERY = 1.0  # seconds at least between two batches
BATCH_ROWS = 20  # at most
CLOSE_TIMEOUT = 60.0  # seconds that a tracker has to finish after the run has ended
CLOSE_TIMEOUT_STOPPED = 10.0  # shorter after a stop: a scheduler kills the job soon

Row = Mapping[str, Any]


class Sink:
    """Receives a run's rows. None of its methods raises, and only `close` waits.

    earlier: rows of earlier processes of the run. say: prints a sentence.
    """

    def __init__(self, tracker: Tracker, about: About, earlier: Sequence[Row], say: Callable[[str], None]):
        self._tracker = tracker
        self._about = about
        self._say = say
        self._number = 0
        self._rows: deque[tuple[int, Row]] = deque()
        self._end: tuple[str, Row | None] = ("failed", None)
        self._hurry = threading.Event()
        self._dropped = False
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        for row in earlier:
            self.row(row)
        self._thread.start()

    def row(self, row: Row) -> None:
        """Queues the next row of metrics.jsonl."""
        if not self._dropped:
            self._rows.append((self._number, dict(row)))
            self._number += 1

    def close(self, status: str, result: Row | None = None) -> None:
        """Ends the run: finished, diverged, stopped or failed; result: the content of result.json."""
        if self._dropped:
            return
        self._end = (status, result)
        self._hurry.set()
        timeout = CLOSE_TIMEOUT_STOPPED if status == "stopped" else CLOSE_TIMEOUT
        self._thread.join(timeout)
        if self._thread.is_alive() and not self._dropped:
            self._drop(f"it did not finish within {timeout:.0f} s")

    def _work(self) -> None:
        tracker = self._tracker
        try:
            self._say(tracker.start(self._about))
            while not self._hurry.is_set():
                began = time.thread_time()
                self._log(BATCH_ROWS)
                self._hurry.wait(max(EVERY, REST_FACTOR * (time.thread_time() - began)))
            self._log(len(self._rows))
            tracker.finish(self._end[0], summary_of(*self._end))
        except BaseException as error:  # SystemExit too: a library may try to end the program
            self._drop(" ".join(str(error).split()) or type(error).__name__)

    def _log(self, count: int) -> None:
        """Sends the oldest rows, at most this many."""
        while self._rows and count > 0 and not self._dropped:
            number, row = self._rows.popleft()
            self._tracker.log(number, metrics_of(row))
            count -= 1

    def _drop(self, reason: str) -> None:
        """Drops the tracker and says so once."""
        if not self._dropped:
            self._dropped = True
            name = type(self._tracker).__name__
            self._say(
                f"{name} is dropped: {reason}. The run continues; all its numbers are in "
                f"{self._about.folder}. Send them to {name} later with {typed_command('sync')}."
            )
