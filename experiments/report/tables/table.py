"""A table as text in cells, and how numbers are written in one."""

from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "–"


@dataclass(frozen=True)
class Entry:
    """The text of a cell of a table."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """name: its label; what stands before the first dash of it names the file. head: of the columns. left: how many
    of them hold words. notes: sentences below it.
    """

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    left: int = 1
    notes: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Tables of one file have it in common."""
        return self.name.partition("-")[0]


def percent(fraction: float | None, digits: int = 1) -> str:
    """In per cent, to a tenth, without the sign; a dash for none."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f}"


def best(fractions: Sequence[float]) -> str | None:
    """The highest of a column as it is printed, which is what is bold; None where there are not two."""
    return percent(max(fractions)) if len(fractions) > 1 else None


def spread(mean: float | None, deviation: float | None) -> str:
    """80.0 ± 10.0; the mean alone where there is no deviation."""
    return percent(mean) + ("" if deviation is None else f" ± {percent(deviation)}")


def loss_words(loss: float | None) -> str:
    """A loss to three digits; a dash for none."""
    return NOTHING if loss is None else f"{loss:.3g}"


def p_words(p: float) -> str:
    """0.032, 1e-05."""
    return f"{p:.2g}"


def signed(fraction: float) -> str:
    """+1.2, −1.2."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def whole(number: float | None) -> str:
    """1,200."""
    return NOTHING if number is None else f"{number:,.0f}"
