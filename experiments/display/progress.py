"""Shows a run: a panel on a terminal (experiments.display.panel), plain lines elsewhere, a closing table."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from experiments.display.panel import Panel
from experiments.display.track import Goal, Track, clock, number, percent
from experiments.tasks.metrics import wilson

_LINES = 20  # at most so many plain lines a run, apart from evaluations


class View(Protocol):
    """Shows a run from the rows of metrics.jsonl, including every step's.

    farewell: bytes that the terminal needs when the process ends without leaving the view.
    """

    farewell: bytes

    def __enter__(self) -> "View": ...

    def __exit__(self, *_: object) -> None: ...

    def recall(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes rows of earlier processes."""

    def take(self, row: Mapping[str, Any], replayed: bool = False) -> None:
        """Takes a row of this process. replayed: of a step repeated from the journal."""

    def say(self, text: str) -> None:
        """Prints a permanent line."""

    def doing(self, words: str) -> AbstractContextManager[None]:
        """Shows an activity that takes time and makes no rows."""
        ...


def view(console: Console, title: str, goal: Goal) -> View:
    """Returns the view that suits the console: a panel if the terminal can move its cursor."""
    return (Panel if console.is_interactive and console.file.isatty() else Lines)(console, title, goal)


class Lines:
    """Prints a line now and then, for logs."""

    farewell = b""

    def __init__(self, console: Console, title: str, goal: Goal):
        self._console = console
        self._title = title
        self._track = Track(goal)
        self._began = time.monotonic()
        self._next = 0.0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def recall(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._track.take(row, live=False)

    def take(self, row: Mapping[str, Any], replayed: bool = False) -> None:
        if replayed:
            return
        track = self._track
        track.take(row)
        if row["kind"] != "train":
            return
        elapsed = time.monotonic() - self._began
        share = elapsed / 60 / _LINES if track.share is None else track.share
        if share < self._next and share < 1:
            return
        self._next = share + 1 / _LINES
        seen = {"loss": track.loss, **track.seen}
        numbers = "  ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in seen.items())
        of = "" if track.total is None else f"/{track.total:,}"
        eta = "" if track.eta() is None else f"  ETA {clock(track.eta())}"
        self.say(f"{self._title}  {track.forwards:,}{of} forwards  {numbers}  {clock(elapsed)}{eta}")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def doing(self, words: str) -> AbstractContextManager[None]:
        return nullcontext()


def show_ended(console: Console, result: dict[str, Any], folder: Path) -> None:
    """Prints the result of a run that had ended before."""
    console.print(f"This run has ended already; --rerun runs it again. {folder}", highlight=False)
    console.print(closing_table(result, str(folder)))


def closing_table(result: dict[str, Any], folder: str) -> Table:
    """Returns the result as a table for people."""
    table = Table(title=f"{result['method']} on {result['task']} with {result['model']}: {result['status']}",
                  show_header=False, title_justify="left")  # fmt: skip
    metric, n = result["metric"], result["n_test"]
    rows = {
        f"{metric} before": _scored(result["before"], n),
        f"{metric} after": _scored(result["after"], n),
        "majority baseline": percent(result["majority"]),
        "random baseline": percent(result["random"]),
        "forward passes": f"{result['forward_passes']:,} in {result['steps']:,} steps"
        + (f", {result['backward_passes']:,} backward" if result["backward_passes"] else "")
        + f"; {result['eval_forward_passes']:,} to evaluate",
        "peak memory": f"{result['peak_memory_bytes'] / 2**20:,.0f} MiB",
        "seconds": f"{result['seconds']:.1f}",
        "run": folder,
    }
    unmoved = {"skipped": "losses or gradients that are not finite", "idle": "losses too close to each other"}
    for kind, why in unmoved.items():
        if result[f"{kind}_steps"]:
            rows[f"{kind} steps"] = f"{result[f'{kind}_steps']:,} without a move ({why})"
    if result.get("reason"):
        rows["because"] = result["reason"]
    if result.get("learned_nothing"):
        rows["learned nothing"] = f"{result['learned_nothing']}; try a larger learning rate or more steps"
    if result.get("unscored"):  # runs of earlier versions have none
        rows["no scores"] = (
            f"{result['unscored']:,} of {n:,} test examples: the model's numbers are not finite there; counted as wrong"
        )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _scored(fraction: float | None, n: int) -> str:
    """Returns a score in points, with the interval of n held-out examples."""
    if fraction is None or math.isnan(fraction):
        return "-"
    low, high = wilson(fraction, n)
    return f"{percent(fraction)} (95 % interval {100 * low:.1f} to {100 * high:.1f}; n = {n:,})"
