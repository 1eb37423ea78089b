"""Writes the rows of a run (metrics.jsonl, a tracker) and ranks its evaluations on dev.

All rankings come from the rows, so a run that was killed and resumed makes the same decisions.
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

_ROWS = 2000  # train rows of a run, at most about
_CLOCK_EVERY = 50  # steps between evaluations on dev when time is the budget
_EVALUATIONS = 10  # on dev in a run
_PEAK_EVERY = 1.0  # seconds between readings of the peak memory


def cadence(session: Session) -> tuple[int, int]:
    """Returns the steps between train rows and those between evaluations on dev; the last step has both."""
    every, timed = session.config.stop.every, session.config.trains_until_clock
    return (
        1 if timed else max(1, -(-session.steps // _ROWS)),
        every or (_CLOCK_EVERY if timed else max(1, -(-session.steps // _EVALUATIONS))),
    )


def covers(rows: Sequence[Mapping[str, Any]], session: Session, step: int) -> bool:
    """Returns True if no row up to this step is missing, so that a run may resume from a snapshot of it."""
    rows_every, dev_every = cadence(session)
    last = {
        kind: max((r["steps"] for r in rows if r["kind"] == kind), default=0) for kind in ("train", "dev")
    }
    dev = step // dev_every * dev_every if session.task.dev else 0
    return last["train"] >= step // rows_every * rows_every and last["dev"] >= dev


class Recorder:
    """Writes rows of the kinds `before`, `train`, `dev`, `stop` and `after`, each with the run's costs so far.

    Costs: steps, forward_passes, tokens, seconds, gpu_hours, and this process's peak_memory_bytes, up to a second old.

    rows: those of earlier processes. gpus: the number that the run occupies. digest: gives the digest of the journal's
    first records, which binds a row to them.
    best_step, best_value, best_loss: the best evaluation on dev so far, by `select_by`. stop.patience counts the
    evaluations that are no better by `stop.by`, which may differ. dev_step: steps after which dev was last evaluated.
    view: shows the rows on screen. sink: sends them to a tracker.
    """

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        rows: Sequence[dict[str, Any]],
        gpus: int = 0,
        digest: Callable[[int], str] | None = None,
    ):
        # Only numbers of the session are kept: its model must be freed before another one is built.
        self.folder = folder
        self._steps, self._step_cost, self._has_dev = session.steps, session.step_cost, bool(session.task.dev)
        self._device, self._peak, self._peak_at = session.loaded.device, 0, 0.0
        self._tokens, self._gpus = session.token_count(), gpus
        self.view: View | None = None
        self.sink: Sink | None = None
        self.before: dict[str, Any] | None = None
        self.best_step: int | None = None
        self.best_value: float | None = None
        self.best_loss: float | None = None
        self.dev_values: list[float | None] = []  # at each evaluation
        self.eval_forward_passes = 0
        self._select_by, self._stop_by = session.config.select_by, session.config.stop.by
        self._best: tuple[float, float] | None = None  # the best rank by select_by
        self._lead: tuple[float, float] | None = None  # the best rank by stop.by
        self._worse = 0  # evaluations since the lead
        self._digest = digest
        self._patience = session.config.stop.patience
        self._row_every, self._every = cadence(session)
        self._trained = 0  # steps whose train row is written
        self.dev_step = 0
        self._seconds = 0.0
        for row in rows:
            self._take(row)
        self._began = time.monotonic()

    def _take(self, row: dict[str, Any]) -> None:
        """Takes over a row of an earlier process."""
        self._seconds = max(self._seconds, row["seconds"])
        if row["kind"] == "before":
            self.before = row
        if row["kind"] == "train":
            self._trained = row["steps"]
        if row["kind"] == "dev":
            self.dev_step = row["steps"]
            self._judge(row["steps"], row["value"], row["loss"])
        self.eval_forward_passes += row.get("eval_forward_passes", 0)

    @property
    def out_of_patience(self) -> bool:
        """Returns True if stop.patience is used up."""
        return self._patience is not None and self._worse >= self._patience

    @property
    def recorded_seconds(self) -> float:
        """Returns the seconds of the run up to the last row of earlier processes."""
        return self._seconds

    def _judge(self, steps: int, value: float, loss: float | None) -> None:
        self.dev_values.append(value)
        rank = rank_key(value, loss, self._select_by)
        if self._best is None or rank > self._best:
            self._best, self.best_step, self.best_value, self.best_loss = rank, steps, value, loss
        lead = rank_key(value, loss, self._stop_by)
        if self._lead is None or lead > self._lead:
            self._lead, self._worse = lead, 0
        else:
            self._worse += 1

    def seconds(self) -> float:
        """Returns the seconds of training and evaluation so far, those of earlier processes included."""
        return self._seconds + time.monotonic() - self._began

    def gpu_hours(self, seconds: float) -> float:
        """Returns the GPU-hours of this many seconds of the run."""
        return seconds * self._gpus / 3600

    def note_before(self, test: Evaluation) -> None:
        """Notes the evaluation on test of the initial weights."""
        self.before = self._evaluated("before", 0, test)

    def note_after(self, test: Evaluation, steps: int) -> None:
        """Notes the evaluation on test of the selected weights, reached after `steps` steps."""
        self._evaluated("after", steps, test)

    def note_stop(self) -> None:
        """Notes that the process stopped at a step boundary, so that a resumed run knows the seconds."""
        self._write({"kind": "stop", "steps": self._trained})

    def note_step(self, t: int, seen: dict[str, float], replayed: bool = False) -> None:
        """Notes step t. seen: what the optimizer measured. replayed: True if its losses came from the journal."""
        steps = t + 1
        row = self._counted({"kind": "train", "steps": steps, **seen})
        if self.view is not None:
            self.view.take(row, replayed)
        if steps > self._trained and (steps % self._row_every == 0 or steps == self._steps):
            self._log(row)
            self._trained = steps

    def is_dev_due(self, steps: int, last: bool = False) -> bool:
        """Returns True if dev is due after this many steps and has no row yet. last: True if training ends here."""
        due = self._has_dev and (steps % self._every == 0 or steps == self._steps or last)
        return due and steps > self.dev_step

    def note_dev(self, steps: int, result: Evaluation) -> None:
        """Notes an evaluation on dev and ranks it."""
        row = self._evaluated("dev", steps, result)
        self.dev_step = steps
        self._judge(steps, row["value"], row["loss"])
        if self.view is not None:
            self.view.say(
                f"step {steps:,}: dev {result.metric} {100 * result.value:.1f} %, loss {result.loss:.4f}"
            )

    def is_early_stop(self, steps: int) -> bool:
        """Returns True if the evaluation after this many steps used up stop.patience."""
        return steps == self.dev_step and self.out_of_patience

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
        if self.view is not None:
            self.view.take(row)
        return row

    def _log(self, row: dict[str, Any]) -> None:
        self.folder.log(row if self._digest is None else {**row, JOURNAL: self._digest(row["steps"])})
        if self.sink is not None:
            self.sink.row(row)

    def _counted(self, row: dict[str, Any]) -> dict[str, Any]:
        """Returns the row with the run's costs so far."""
        seconds = self.seconds()
        # Reading the peak takes as long as a small step, so it is not read for every row.
        if not self._peak or seconds - self._peak_at >= _PEAK_EVERY:
            self._peak, self._peak_at = peak_memory.peak(self._device), seconds
        return row | {
            "forward_passes": row["steps"] * self._step_cost,
            "tokens": self._tokens(row["steps"]),
            "seconds": seconds,
            "gpu_hours": self.gpu_hours(seconds),
            "peak_memory_bytes": self._peak,
        }
