"""Builds the tables of report --by: metric and loss on dev by method, value and task, and a grid for two keys.

Test stands in the table of results, whose rows are the same. A grid is of one method in one column, a value of the
first key in a row, of the second in a column: FZOO's Table 14.
"""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from experiments.report.cells import Cell
from experiments.report.comparison import Comparison
from experiments.report.setting_key import words
from experiments.report.tables.table import NOTHING, Entry, Table, best, loss_words, percent, spread

Column = tuple[str, str, str]


def by_words(comparison: Comparison) -> str:
    """Returns the end of a title, such as ", by optimizer.betas"; empty without --by."""
    return f", by {' and '.join(comparison.by)}" if comparison.by else ""


def bytables(comparison: Comparison) -> list[Table]:
    """Returns the table on dev, then the grids; nothing without --by."""
    if not comparison.by:
        return []
    return [_on_dev(comparison), *(_grids(comparison) if len(comparison.by) == 2 else [])]


def headings(columns: Sequence[Column]) -> tuple[str, ...]:
    """Returns a heading for each column: the task, with model and peft if there are several of them."""
    models, pefts = {column[0] for column in columns}, {column[1] for column in columns}
    return tuple(
        " · ".join(
            [task, *([model] if len(models) > 1 else []), *([f"peft {peft}"] if len(pefts) > 1 else [])]
        )
        for model, peft, task in columns
    )


def _on_dev(comparison: Comparison) -> Table:
    rows = []
    for method in comparison.methods:
        cells = [comparison.cell(method, column) for column in comparison.columns]
        rows.append((Entry(method), *(Entry(_dev(cell)) for cell in cells)))
    return Table(
        "by-dev",
        f"On dev, metric in per cent and loss{by_words(comparison)}",
        ("method", *headings(comparison.columns)),
        tuple(rows),
        notes=(
            "Mean ± sample deviation over seeds of the reported weights' metric; their loss; (n) how many seeds.",
        ),
    )


def _dev(cell: Cell | None) -> str:
    """Returns a cell's text, such as "80.0 ± 1.0; loss 0.41 ± 0.02 (3)"."""
    if cell is None or cell.chosen is None or not cell.chosen.devs:
        return NOTHING
    devs = list(cell.chosen.devs.values())
    losses = [loss for run in cell.chosen.ended if (loss := run.dev_loss) is not None]
    off = f" ± {loss_words(stdev(losses))}" if len(losses) > 1 else ""
    loss = f"; loss {loss_words(fmean(losses))}{off}" if losses else ""
    return f"{spread(fmean(devs), stdev(devs) if len(devs) > 1 else None)}{loss} ({len(devs)})"


def _grids(comparison: Comparison) -> list[Table]:
    first, second = comparison.by
    grids = []
    for column, heading in zip(comparison.columns, headings(comparison.columns), strict=True):
        cells = [
            cell for method in comparison.methods if (cell := comparison.cell(method, column)) is not None
        ]
        for method in dict.fromkeys(cell.variant.method for cell in cells):
            split = [c for c in cells if c.variant.method == method and len(c.variant.values) == 2]
            if split:
                name = f"by-{len(grids) + 1}"
                grids.append(_grid(name, f"{method} on {heading}", split, first, second))
    return grids


def _grid(name: str, title: str, cells: Sequence[Cell], first: str, second: str) -> Table:
    """Builds a grid of mean ± deviation (n) on test.

    The last column averages a row, if every column of that row has a number.
    """
    by_values = {(str(c.variant.value(first)), str(c.variant.value(second))): c for c in cells}
    down = _ordered(cells, first)
    across = _ordered(cells, second)
    means = {key: cell.mean for key, cell in by_values.items()}
    highest = best([mean for mean in means.values() if mean is not None])
    rows = []
    for row_value in down:
        entries, row_means = [Entry(words(first, row_value))], []
        for column_value in across:
            cell = by_values.get((str(row_value), str(column_value)))
            mean = None if cell is None else cell.mean
            row_means.append(mean)
            text = NOTHING if cell is None or mean is None else f"{spread(mean, cell.deviation)} ({cell.n})"
            entries.append(Entry(text, mean is not None and percent(mean) == highest))
        known = [mean for mean in row_means if mean is not None]
        entries.append(Entry(percent(fmean(known)) if len(known) == len(across) else NOTHING))
        rows.append(tuple(entries))
    return Table(
        name,
        f"{title}, on test in per cent: {first} by {second}",
        (first, *(words(second, column_value) for column_value in across), "average"),
        tuple(rows),
        notes=(
            "Mean ± sample deviation over seeds (n). Bold: the highest mean, and those that print as the same tenth.",
        ),
    )


def _ordered(cells: Sequence[Cell], key: str) -> list[Any]:
    """Returns the distinct values of a key, sorted by size."""
    order = sorted(cells, key=lambda cell: cell.variant.place_of(key))
    return list({str(cell.variant.value(key)): cell.variant.value(key) for cell in order}.values())
