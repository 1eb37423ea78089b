"""What a run shows: a bar with ETA in forward passes on a terminal, plain lines elsewhere, a closing table."""

import time
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from experiments.tasks.metrics import wilson

_LINES = 20  # at most so many plain lines a run, apart from evaluations


class View(Protocol):
    """Shows steps and evaluations; `total` is in forward passes, or None when time is the budget."""

    def __enter__(self) -> "View": ...

    def __exit__(self, *_: object) -> None: ...

    def step(self, done: int, seen: dict[str, float]) -> None: ...

    def say(self, text: str) -> None: ...


def view(console: Console, title: str, total: int | None) -> View:
    """The view that suits the console."""
    return Bar(console, title, total) if console.is_terminal else Lines(console, title, total)


class Bar:
    """A live bar; lines that are said scroll above it."""

    def __init__(self, console: Console, title: str, total: int | None):
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn(
                "{task.completed:,.0f}/{task.total:,.0f} forwards"
                if total
                else "{task.completed:,.0f} forwards"
            ),
            TextColumn("{task.fields[seen]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(title, total=total, seen="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, done: int, seen: dict[str, float]) -> None:
        self._progress.update(self._task, completed=done, seen=_numbers(seen))

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False)


class Lines:
    """A line now and then, for logs."""

    def __init__(self, console: Console, title: str, total: int | None):
        self._console = console
        self._title = title
        self._total = total
        self._began = time.monotonic()
        self._first: int | None = None
        self._next = 0.0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def step(self, done: int, seen: dict[str, float]) -> None:
        if self._first is None:
            self._first = done
        elapsed = time.monotonic() - self._began
        share = done / self._total if self._total else elapsed / 60 / _LINES
        if share < self._next and done != self._total:
            return
        self._next = share + 1 / _LINES
        of, eta = "", ""
        if self._total:
            of = f"/{self._total:,}"
            if done > self._first:
                eta = f"  ETA {(self._total - done) / (done - self._first) * elapsed:.0f} s"
        self.say(f"{self._title}  {done:,}{of} forwards  {_numbers(seen)}  {elapsed:.0f} s{eta}")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _numbers(seen: dict[str, float]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in seen.items() if name != "lr")


def closing_table(result: dict[str, Any], folder: str) -> Table:
    """The result as a person reads it."""
    table = Table(title=f"{result['method']} on {result['task']} with {result['model']}: {result['status']}",
                  show_header=False, title_justify="left")  # fmt: skip
    metric, n = result["metric"], result["n_test"]
    rows = {
        f"{metric} before": _scored(result["before"], n),
        f"{metric} after": _scored(result["after"], n),
        "majority baseline": _percent(result["majority"]),
        "random baseline": _percent(result["random"]),
        "forward passes": f"{result['forward_passes']:,} in {result['steps']:,} steps"
        + (f", {result['backward_passes']:,} backward" if result["backward_passes"] else "")
        + f"; {result['eval_forward_passes']:,} to evaluate",
        "peak memory": f"{result['peak_memory_bytes'] / 2**20:,.0f} MiB",
        "seconds": f"{result['seconds']:.1f}",
        "run": folder,
    }
    unmoved = {"skipped": "losses that are no finite numbers", "idle": "losses too close to each other"}
    for kind, why in unmoved.items():
        if result[f"{kind}_steps"]:
            rows[f"{kind} steps"] = f"{result[f'{kind}_steps']:,} without a move ({why})"
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _scored(fraction: float | None, n: int) -> str:
    """In points, with the interval of n held-out examples."""
    if fraction is None:
        return "-"
    low, high = wilson(fraction, n)
    return f"{_percent(fraction)} (95 % interval {100 * low:.1f} to {100 * high:.1f}; n = {n:,})"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"
