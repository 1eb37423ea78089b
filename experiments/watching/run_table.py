"""Shows several runs as a table that fits the terminal: narrow ones drop columns, low ones finished runs."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from experiments.display.panel import packed
from experiments.display.sparkline import bar, sparkline
from experiments.display.track import clock, mebibytes, number, percent
from experiments.watching.follow import Flock, Followed, eta_of_all

STYLES = {"running": "cyan", "requeued": "cyan", "finished": "green", "failed": "bold red", "unreadable": "bold red",
          "diverged": "yellow", "stopped": "yellow", "waiting": "yellow"}  # fmt: skip
ATTENTION = ("failed", "unreadable")  # states that make watch end with 1
_WHY = (*ATTENTION, "diverged")  # states whose reason is printed
# Finished runs come last.
_ORDER = (
    "running",
    "requeued",
    "failed",
    "unreadable",
    "diverged",
    "stopped",
    "waiting",
    "queued",
)
_LEAST, _MOST = 14, 60  # columns of a run's name
_BAR = 10
_SPARK = 16
_MAX_REASONS = 5  # runs whose failure is explained below the table


@dataclass(frozen=True)
class Column:
    """A column: heading, width, drop priority (highest first), and its text for a run."""

    head: str
    width: int
    leaves: int
    show: Callable[[Followed, bool], str]


def _loss(run: Followed, plain: bool) -> str:
    return number(run.track.loss)


def _curve(run: Followed, plain: bool) -> str:
    return sparkline(run.track.train.values, _SPARK, plain=plain)


def _bar(run: Followed, plain: bool) -> str:
    share = run.track.share
    return "" if share is None else "".join(bar(share, _BAR, plain=plain))


def _dev(run: Followed, plain: bool) -> str:
    track = run.track
    return "-" if track.dev is None else f"{percent(track.dev)[:-2]} / {percent(track.best)[:-2]}"


def _pace(run: Followed, plain: bool) -> str:
    pace = run.track.pace.now if run.state.state == "running" else None
    return "-" if pace is None else f"{pace:,.3g}" if pace < 1000 else f"{pace:,.0f}"


def _age(run: Followed, plain: bool) -> str:
    return "-" if run.ended or run.rows.age is None else clock(run.rows.age)


def _step(run: Followed, plain: bool) -> str:
    return f"{run.track.steps:,}" if run.track.steps else "-"


def _share(run: Followed, plain: bool) -> str:
    return "-" if run.track.share is None else f"{100 * run.track.share:.0f} %"


COLUMNS = (
    Column("state", 8, 0, lambda run, plain: run.state.state),
    Column("", _BAR, 7, _bar),
    Column("done", 5, 0, _share),
    Column("step", 7, 4, _step),
    Column("ETA", 8, 1, lambda run, plain: clock(run.eta)),
    Column("train loss", _SPARK, 6, _curve),
    Column("", 8, 3, _loss),
    Column("dev / best", 13, 2, _dev),
    Column("fwd/s", 7, 5, _pace),
    Column("memory", 10, 9, lambda run, plain: mebibytes(run.track.memory)),
    Column("last row", 8, 8, _age),
)


class Overview:
    """The table of a flock. height: available lines; None means as many as needed."""

    def __init__(self, flock: Flock, height: int | None = None):
        self._flock = flock
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain, width = options.ascii_only, options.max_width
        longest = max((len(name) for name in self._flock.names), default=0)
        least = min(longest, max(_LEAST, width // 4))
        columns = fitting(width - least)
        name_width = min(longest, _MOST, width - sum(column.width + 2 for column in columns))
        table = Table(
            box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", collapse_padding=True
        )
        table.add_column("run", width=name_width, no_wrap=True)
        for column in columns:
            table.add_column(column.head, width=column.width, no_wrap=True, overflow="ellipsis")
        rows = _ordered(self._flock)
        foot = [Text(words, no_wrap=True, overflow="ellipsis") for words in _words(rows)]
        foot += packed(totals(self._flock), width)
        room = len(rows) if self._height is None else max(1, self._height - 1 - len(foot))
        hidden = len(rows) - room + 1 if len(rows) > room else 0
        for name, run in rows[: len(rows) - hidden]:
            style = STYLES.get(run.state.state, "dim")
            cells = [Text(column.show(run, plain), style=_style(column, style)) for column in columns]
            table.add_row(Text(_shortened(name, name_width)), *cells)
        if hidden:
            table.add_row(Text(f"and {hidden} more", style="dim"))
        yield Group(table, *foot)


def fitting(width: int) -> list[Column]:
    """Returns the columns that fit the width."""
    columns = list(COLUMNS)
    while len(columns) > 1 and sum(column.width + 2 for column in columns) > width:
        columns.remove(max(columns, key=lambda column: column.leaves))
    return columns


def _style(column: Column, style: str) -> str:
    if column.head == "state" or column.show is _bar:
        return style
    return "cyan" if column.show is _curve else ""


def _ordered(flock: Flock) -> list[tuple[str, Followed]]:
    """Sorts running runs first and successfully finished ones last."""
    pairs = list(zip(flock.names, flock.runs, strict=True))
    return sorted(pairs, key=lambda pair: _rank(pair[1].state.state))


def _rank(state: str) -> int:
    return _ORDER.index(state) if state in _ORDER else len(_ORDER)


def _words(rows: Sequence[tuple[str, Followed]]) -> list[str]:
    """Returns the reasons of the first few failures."""
    reasons = [
        f"{name}: {run.state.detail}" for name, run in rows if run.state.state in _WHY and run.state.detail
    ]
    return reasons[:_MAX_REASONS]


def _shortened(name: str, width: int) -> str:
    """Cuts a name from the left: its end, the seed, tells most."""
    return name if len(name) <= width else f"…{name[len(name) - width + 1 :]}"


def totals(flock: Flock) -> list[str]:
    """Returns runs per status, total forward passes, throughput, and ETA of the last running one."""
    counts = Counter(run.state.state for run in flock.runs)
    parts = [f"{len(flock.runs)} runs", *(f"{count} {state}" for state, count in counts.items())]
    parts.append(f"{sum(run.track.forwards for run in flock.runs):,} forwards")
    running = [run for run in flock.runs if run.state.state == "running"]
    if paces := [pace for run in running if (pace := run.track.pace.now) is not None]:
        parts.append(f"{sum(paces):,.3g} forwards/s")
    if (eta := eta_of_all(flock.runs)) is not None:
        parts.append(f"ETA of all {clock(eta)}" if counts["queued"] else f"ETA {clock(eta)}")
    elif etas := [eta for run in running if (eta := run.eta) is not None]:
        parts.append(f"ETA of those running {clock(max(etas))}")
    return parts


def line(name: str, run: Followed) -> str:
    """Describes a run in one line, for logs."""
    track = run.track
    parts = [name, run.state.state]
    if run.state.state in _WHY and run.state.detail:
        parts.append(run.state.detail)
    if track.share is not None:
        parts.append(f"{100 * track.share:.0f} %  {track.forwards:,} forwards")
    if run.eta is not None:
        parts.append(f"ETA {clock(run.eta)}")
    if track.loss is not None:
        parts.append(f"loss {number(track.loss)}")
    if track.dev is not None:
        parts.append(f"dev {track.metric} {percent(track.dev)}, best {percent(track.best)}")
    return "  ".join(parts)
