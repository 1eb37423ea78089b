"""Shows one run on its terminal: a panel redrawn twice a second, below permanent lines.

A thread draws it, so that the clock goes on during long steps and a resized terminal is filled anew. It is four
columns narrower than the terminal, because the terminal itself writes ^C behind it, and a line that is full would
break there.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.panel import Panel as Box
from rich.text import Text

from experiments.display.sparkline import Curve, bar, sparkline
from experiments.display.track import Goal, Track, clock, mebibytes, number, percent

REFRESH = 2.0  # times a second
CURSOR = b"\x1b[?25h"  # shows it again
_WIDEST = 110
_BEHIND = 4  # columns for what the terminal echoes
_SPARK = 48  # columns of a curve, at most
_ALIGNED = 16  # below so many each curve takes what its own line has
_LETTERS = {"sigma": "σ", "alpha": "α"}


class Panel:
    """A live panel; see the module."""

    farewell = CURSOR  # what the terminal needs when the process ends without leaving the view

    def __init__(self, console: Console, title: str, goal: Goal):
        self.track = Track(goal)
        self._title = title
        self._console = console
        self._doing = ""
        self._seconds_at = time.monotonic()  # when the track's seconds were told
        self._live = Live(self, console=console, refresh_per_second=REFRESH)

    def __enter__(self) -> "Panel":
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def recall(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes rows of earlier processes."""
        for row in rows:
            self.track.take(row, live=False)
        self._seconds_at = time.monotonic()

    def take(self, row: Mapping[str, Any], replayed: bool = False) -> None:
        if replayed:
            self._doing = f"step {row['steps']:,} again from the journal"
            return
        if row["kind"] == "train":
            self._doing = ""
        self.track.take(row)
        self._seconds_at = time.monotonic()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def doing(self, words: str) -> Iterator[None]:
        self._doing = words
        try:
            yield
        finally:
            self._doing = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        since = time.monotonic() - self._seconds_at
        width = max(20, min(_WIDEST, options.max_width - _BEHIND))
        title = Text(self._title, style="not dim bold")
        title.truncate(width - 6, overflow="ellipsis")
        yield Box(
            Group(*_lines(self.track, width - 4, since, plain=options.ascii_only)),
            title=title,
            title_align="left",
            subtitle=Text(f"{self._doing}  {clock(self.track.seconds + since)}".strip()),
            subtitle_align="right",
            border_style="dim",
            width=width,
        )


def _lines(track: Track, width: int, since: float, *, plain: bool) -> list[Text]:
    """Returns the panel's inside line by line, for this many columns."""
    lines = [_bar(track, width, since, plain)]
    curves: list[tuple[str, Curve, str, str]] = [
        ("train loss", track.train, number(track.loss), "cyan"),
    ]
    for name, value in list(track.seen.items())[:1]:
        curves.append((_name(name, plain), track.noted, number(value), "yellow"))
    if track.dev_loss is not None:
        curves.append(("dev loss", track.dev_losses, number(track.dev_loss), "magenta"))
    if track.dev is not None:
        best = f"{percent(track.dev)}  best {percent(track.best)} at step {track.best_step:,}"
        curves.append((f"dev {track.metric}", track.dev_values, best, "green"))
    label = max(len(name) for name, *_ in curves)
    rooms = [width - label - 4 - len(value) for _, _, value, _ in curves]
    for (name, curve, value, color), room in zip(curves, rooms, strict=True):
        line = Text(f"{name:<{label}}  ", style="dim", overflow="ellipsis", no_wrap=True)
        spark = min(_SPARK, min(rooms) if min(rooms) >= _ALIGNED else room)
        if spark >= 4:
            drawn = sparkline(curve.values, spark, plain=plain)
            line.append(f"{drawn:<{spark}}  ", style=f"not dim {color}")
        line.append(value, style="not dim bold")
        lines.append(line)
    return lines + packed(_facts(track, plain), width)


def _bar(track: Track, width: int, since: float, plain: bool) -> Text:
    """Returns a bar and its label; the bar gets the room that the words leave."""
    share, total = track.share, track.total
    words = [] if share is None else [f"{100 * share:.0f} %"]
    words.append(f"{track.forwards:,}{'' if total is None else f'/{total:,}'} forwards")
    if share is None or share < 1:
        words.append(f"ETA {clock(track.eta(since))}")
    text = "  ".join(words)
    line = Text(overflow="ellipsis", no_wrap=True)
    if (room := width - len(text) - 2) >= 8:
        full, empty = bar(share or 0.0, room, plain=plain)
        line.append(full, style="green").append(f"{empty}  ", style="dim")
    return line.append(text, style="bold")


def _facts(track: Track, plain: bool) -> list[str]:
    """Returns the numbers without a curve."""
    facts = [f"{_name(name, plain)} {number(value)}" for name, value in list(track.seen.items())[1:]]
    if track.lr is not None:
        facts.append(f"lr {number(track.lr)}")
    if (pace := track.pace.now) is not None:
        facts.append(f"{pace:,.3g} forwards/s" if pace < 1000 else f"{pace:,.0f} forwards/s")
        if track.tokens is not None:
            facts.append(f"{pace * track.tokens:,.0f} tokens/s")
    if track.memory is not None:
        facts.append(mebibytes(track.memory))
    return facts


def packed(items: Sequence[str], width: int) -> list[Text]:
    """Packs the items into lines of at most `width` columns without breaking any."""
    lines: list[str] = []
    for item in items:
        if lines and cell_len(lines[-1]) + 3 + cell_len(item) <= width:
            lines[-1] += f"   {item}"
        else:
            lines.append(item)
    return [Text(line, overflow="ellipsis", no_wrap=True) for line in lines]


def _name(name: str, plain: bool) -> str:
    letter = None if plain else _LETTERS.get(name)
    return letter or name.replace("_", " ")
