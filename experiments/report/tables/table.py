"""Defines a table as text in cells, and how numbers are formatted in one."""

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
    """A table of text cells.

    name: its label; the part before the first dash names the file. head: column headings. left: number of leading
    columns that hold words. notes: sentences below the table.
    """

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    left: int = 1
    notes: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Returns the file that the table belongs to; several tables can share one."""
        return self.name.partition("-")[0]


def percent(fraction: float | None, digits: int = 1) -> str:
    """Formats a fraction in per cent, to a tenth, without the sign; a dash for None."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f}"


def best(fractions: Sequence[float]) -> str | None:
    """Returns the highest fraction of a column as printed, which is set in bold; None below two fractions."""
    return percent(max(fractions)) if len(fractions) > 1 else None


def spread(mean: float | None, deviation: float | None) -> str:
    """Formats "80.0 ± 10.0"; the mean alone without a deviation."""
    return percent(mean) + ("" if deviation is None else f" ± {percent(deviation)}")


def loss_words(loss: float | None) -> str:
    """Formats a loss to three digits; a dash for None."""
    return NOTHING if loss is None else f"{loss:.3g}"


def p_words(p: float) -> str:
    """Formats a p-value: 0.032, 1e-05."""
    return f"{p:.2g}"


def signed(fraction: float) -> str:
    """Formats a signed number of points: +1.2, −1.2."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def with_commas(number: float | None) -> str:
    """Formats an integer with commas: 1,200; a dash for None."""
    return NOTHING if number is None else f"{number:,.0f}"
