"""A tracker behind a thread: whatever it does, the run goes on, and its numbers with it.

The run lays rows aside, which takes about a microsecond; a thread of the tracker's own hands them on, some at a
time. An exception there becomes one printed sentence and the tracker is dropped; one that hangs is left behind when
the run ends. The thread works about one part in `SHARE` of the time while the run goes on, and catches up at the end.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.trackers.interface import About, Tracker, metrics_of, summary_of

SHARE = 200  # after so much work the thread rests so many times as long
EVERY = 1.0  # seconds, at least, from one handful of rows to the next
MOST = 20  # rows of a handful
PATIENCE = 60.0  # seconds that a tracker has to finish when the run has ended
HASTE = 10.0  # and when it was stopped: a scheduler waits

Row = Mapping[str, Any]


class Sink:
    """Takes a run's rows. None of its methods raises, and only `close` waits.

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
        """The next row of metrics.jsonl."""
        if not self._dropped:
            self._rows.append((self._number, dict(row)))
            self._number += 1

    def close(self, status: str, result: Row | None = None) -> None:
        """The run is over: finished, diverged, stopped or failed; result: what result.json holds."""
        if self._dropped:
            return
        self._end = (status, result)
        self._hurry.set()
        patience = HASTE if status == "stopped" else PATIENCE
        self._thread.join(patience)
        if self._thread.is_alive() and not self._dropped:
            self._drop(f"it was not done after {patience:.0f} s")

    def _work(self) -> None:
        tracker = self._tracker
        try:
            self._say(tracker.start(self._about))
            while not self._hurry.is_set():
                began = time.thread_time()
                self._log(MOST)
                self._hurry.wait(max(EVERY, SHARE * (time.thread_time() - began)))
            self._log(len(self._rows))
            tracker.finish(self._end[0], summary_of(*self._end))
        except BaseException as error:  # SystemExit too: a library may try to end the program
            self._drop(" ".join(str(error).split()) or type(error).__name__)

    def _log(self, most: int) -> None:
        """Hands on the oldest rows."""
        while self._rows and most > 0 and not self._dropped:
            number, row = self._rows.popleft()
            self._tracker.log(number, metrics_of(row))
            most -= 1

    def _drop(self, why: str) -> None:
        """Says once that the tracker is left out."""
        if not self._dropped:
            self._dropped = True
            name = type(self._tracker).__name__
            self._say(
                f"{name} is left out from here on: {why}. The run goes on; all its numbers are in "
                f"{self._about.folder}, and python -m experiments sync brings them to {name}."
            )
