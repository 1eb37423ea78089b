"""Writes the rows of a run (metrics.jsonl, a tracker) and ranks its evaluations on dev.

All rankings come from the rows, so a run that was killed and resumed decides the same.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.display.progress import View
from experiments.evaluation import Evaluation
from experiments.rundir.folder import RunFolder
from experiments.rundir.metric_rows import JOURNAL, rank_key
from experiments.trackers.sink import Sink
from experiments.training import peak_memory
from experiments.training.session import Session

_ROWS = 2000  # train rows a run, at most about
_CLOCK_EVERY = 50  # steps between looks at dev when time is the budget
_LOOKS = 10  # at dev, a run
_PEAK_EVERY = 1.0  # seconds between looks at the peak of memory


def cadence(session: Session) -> tuple[int, int]:
    """Steps from one train row to the next, and from one look at dev to the next; the last step has both."""
    every, timed = session.config.stop.every, session.config.trains_until_clock
    return (
        1 if timed else max(1, -(-session.steps // _ROWS)),
        every or (_CLOCK_EVERY if timed else max(1, -(-session.steps // _LOOKS))),
    )


def covers(rows: Sequence[Mapping[str, Any]], session: Session, step: int) -> bool:
    """Returns whether the rows hold all that a run has written by then, so that a snapshot of that step counts."""
    rows_every, dev_every = cadence(session)
    last = {
        kind: max((r["steps"] for r in rows if r["kind"] == kind), default=0) for kind in ("train", "dev")
    }
    dev = step // dev_every * dev_every if session.task.dev else 0
    return last["train"] >= step // rows_every * rows_every and last["dev"] >= dev


class Recorder:
    """Writes the rows of a run: `before`, `train`, `dev`, `stop`, `after`.

    Each row has what the run took so far: steps, forward_passes, tokens, seconds, gpu_hours, and peak_memory_bytes of
    this process, up to a second old.

    rows: those of earlier processes. gpus: that the run occupies. digest: of the journal's first records, to which
    the rows of the file are bound.
    best_step, best_value, best_loss: of dev so far, by `select_by`; stop.patience counts evaluations that are no
    better by `stop.by`. The two may differ. looked: steps after which dev was last evaluated.
    """

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        rows: Sequence[dict[str, Any]],
        gpus: int = 0,
        digest: Callable[[int], str] | None = None,
    ):
        # The session itself is not kept: its model must be free to go before another is built.
        self.folder = folder
        self._steps, self._step_cost, self._has_dev = session.steps, session.step_cost, bool(session.task.dev)
        self._device, self._peak, self._peak_at = session.loaded.device, 0, 0.0
        self._tokens, self._gpus = session.token_count(), gpus
        self.shown: View | None = None
        self.sink: Sink | None = None
        self.before: dict[str, Any] | None = None
        self.best_step: int | None = None
        self.best_value: float | None = None
        self.best_loss: float | None = None
        self.dev_values: list[float | None] = []  # at each evaluation
        self.eval_forward_passes = 0
        self._select_by, self._stop_by = session.config.select_by, session.config.stop.by
        self._best: tuple[float, float] | None = None  # of select_by
        self._lead: tuple[float, float] | None = None  # of stop.by
        self._worse = 0  # evaluations since then
        self._digest = digest
        self._patience = session.config.stop.patience
        self._row_every, self._every = cadence(session)
        self._trained = 0  # steps whose train row is written
        self.looked = 0
        self._seconds = 0.0
        for row in rows:
            self._take(row)
        self._began = time.monotonic()

    def _take(self, row: dict[str, Any]) -> None:
        """A row of an earlier process, or one just written."""
        self._seconds = max(self._seconds, row["seconds"])
        if row["kind"] == "before":
            self.before = row
        if row["kind"] == "train":
            self._trained = row["steps"]
        if row["kind"] == "dev":
            self.looked = row["steps"]
            self._judge(row["steps"], row["value"], row["loss"])
        self.eval_forward_passes += row.get("eval_forward_passes", 0)

    @property
    def out_of_patience(self) -> bool:
        """Returns whether the last look at dev was the one that ends the run."""
        return self._patience is not None and self._worse >= self._patience

    @property
    def recorded_seconds(self) -> float:
        """Seconds up to the last row."""
        return self._seconds

    def _judge(self, steps: int, value: float, loss: float | None) -> None:
        self.dev_values.append(value)
        place = rank_key(value, loss, self._select_by)
        if self._best is None or place > self._best:
            self._best, self.best_step, self.best_value, self.best_loss = place, steps, value, loss
        lead = rank_key(value, loss, self._stop_by)
        if self._lead is None or lead > self._lead:
            self._lead, self._worse = lead, 0
        else:
            self._worse += 1

    def seconds(self) -> float:
        """Seconds of training and evaluation so far, earlier processes counted in."""
        return self._seconds + time.monotonic() - self._began

    def gpu_hours(self, seconds: float) -> float:
        """Returns the GPU-hours of this many seconds of the run."""
        return seconds * self._gpus / 3600

    def note_before(self, test: Evaluation) -> None:
        """The test metric of the weights one starts from."""
        row = self._evaluated("before", 0, test)
        self.before = row

    def note_after(self, test: Evaluation, steps: int) -> None:
        """The test metric of the selected weights."""
        self._evaluated("after", steps, test)

    def note_stop(self) -> None:
        """Notes that the process ended at a step boundary, and the seconds up to there."""
        self._write({"kind": "stop", "steps": self._trained})

    def note_step(self, t: int, seen: dict[str, float], replayed: bool = False) -> None:
        """Notes step t. seen: what the optimizer measured. replayed: the step was taken again from the journal."""
        steps = t + 1
        row = self._counted({"kind": "train", "steps": steps, **seen})
        if self.shown is not None:
            self.shown.take(row, replayed)
        if steps > self._trained and (steps % self._row_every == 0 or steps == self._steps):
            self._log(row)
            self._trained = steps

    def is_dev_due(self, steps: int, last: bool = False) -> bool:
        """Returns whether dev is due after this many steps and has no row yet. last: training ends here."""
        due = self._has_dev and (steps % self._every == 0 or steps == self._steps or last)
        return due and steps > self.looked

    def note_dev(self, steps: int, result: Evaluation) -> None:
        """Notes an evaluation on dev, and ranks it."""
        row = self._evaluated("dev", steps, result)
        self.looked = steps
        self._judge(steps, row["value"], row["loss"])
        if self.shown is not None:
            self.shown.say(
                f"step {steps:,}: dev {result.metric} {100 * result.value:.1f} %, loss {result.loss:.4f}"
            )

    def is_early_stop(self, steps: int) -> bool:
        """Returns whether the evaluation after so many steps has used up the patience."""
        return steps == self.looked and self.out_of_patience

    def _evaluated(self, kind: str, steps: int, result: Evaluation) -> dict[str, Any]:
        row = {
            "kind": kind,
            "steps": steps,
            "metric": result.metric,
            "value": result.value,
            "loss": result.loss,
            "n": result.n,
            "eval_forward_passes": result.forward_passes,
        }
        if result.unscored:
            row["unscored"] = result.unscored
        self.eval_forward_passes += result.forward_passes
        return self._write(row)

    def _write(self, row: dict[str, Any]) -> dict[str, Any]:
        row = self._counted(row)
        self._log(row)
        if self.shown is not None:
            self.shown.take(row)
        return row

    def _log(self, row: dict[str, Any]) -> None:
        self.folder.log(row if self._digest is None else {**row, JOURNAL: self._digest(row["steps"])})
        if self.sink is not None:
            self.sink.row(row)

    def _counted(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with what it took to get there."""
        seconds = self.seconds()
        # Reading the value takes as long as a small step.
        if not self._peak or seconds - self._peak_at >= _PEAK_EVERY:
            self._peak, self._peak_at = peak_memory.peak(self._device), seconds
        return row | {
            "forward_passes": row["steps"] * self._step_cost,
            "tokens": self._tokens(row["steps"]),
            "seconds": seconds,
            "gpu_hours": self.gpu_hours(seconds),
            "peak_memory_bytes": self._peak,
        }
