"""The tables of report --by: the metric and the loss on dev by method, value and task, and of two keys a grid.

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


def by_words(made: Comparison) -> str:
    """, by optimizer.betas; nothing without a key."""
    return f", by {' and '.join(made.by)}" if made.by else ""


def bytables(made: Comparison) -> list[Table]:
    """The table on dev, then the grids; none without --by."""
    if not made.by:
        return []
    return [_on_dev(made), *(_grids(made) if len(made.by) == 2 else [])]


def headings(columns: Sequence[Column]) -> tuple[str, ...]:
    """The task, with the model and the peft where there are several of them."""
    models, pefts = {column[0] for column in columns}, {column[1] for column in columns}
    return tuple(
        " · ".join(
            [task, *([model] if len(models) > 1 else []), *([f"peft {peft}"] if len(pefts) > 1 else [])]
        )
        for model, peft, task in columns
    )


def _on_dev(made: Comparison) -> Table:
    rows = []
    for method in made.methods:
        cells = [made.cell(method, column) for column in made.columns]
        rows.append((Entry(method), *(Entry(_dev(cell)) for cell in cells)))
    return Table(
        "by-dev",
        f"On dev, metric in per cent and loss{by_words(made)}",
        ("method", *headings(made.columns)),
        tuple(rows),
        notes=(
            "Mean ± sample deviation over seeds of the reported weights' metric; their loss; (n) how many seeds.",
        ),
    )


def _dev(cell: Cell | None) -> str:
    """80.0 ± 1.0; loss 0.41 ± 0.02 (3)."""
    if cell is None or cell.chosen is None or not cell.chosen.devs:
        return NOTHING
    devs = list(cell.chosen.devs.values())
    losses = [loss for run in cell.chosen.ended if (loss := run.dev_loss) is not None]
    off = f" ± {loss_words(stdev(losses))}" if len(losses) > 1 else ""
    loss = f"; loss {loss_words(fmean(losses))}{off}" if losses else ""
    return f"{spread(fmean(devs), stdev(devs) if len(devs) > 1 else None)}{loss} ({len(devs)})"


def _grids(made: Comparison) -> list[Table]:
    first, second = made.by
    made_tables = []
    for column, heading in zip(made.columns, headings(made.columns), strict=True):
        cells = [cell for method in made.methods if (cell := made.cell(method, column)) is not None]
        for method in dict.fromkeys(cell.variant.method for cell in cells):
            own = [c for c in cells if c.variant.method == method and len(c.variant.values) == 2]
            if own:
                name = f"by-{len(made_tables) + 1}"
                made_tables.append(_grid(name, f"{method} on {heading}", own, first, second))
    return made_tables


def _grid(name: str, title: str, cells: Sequence[Cell], first: str, second: str) -> Table:
    """Mean ± deviation (n) on test. Its last column is the mean over a row, of rows with a number in every column."""
    found = {(str(c.variant.value(first)), str(c.variant.value(second))): c for c in cells}
    down = _ordered(cells, first)
    across = _ordered(cells, second)
    means = {key: cell.mean for key, cell in found.items()}
    highest = best([mean for mean in means.values() if mean is not None])
    rows = []
    for one in down:
        entries, own = [Entry(words(first, one))], []
        for other in across:
            cell = found.get((str(one), str(other)))
            mean = None if cell is None else cell.mean
            own.append(mean)
            text = NOTHING if cell is None or mean is None else f"{spread(mean, cell.deviation)} ({cell.n})"
            entries.append(Entry(text, mean is not None and percent(mean) == highest))
        whole = [mean for mean in own if mean is not None]
        entries.append(Entry(percent(fmean(whole)) if len(whole) == len(across) else NOTHING))
        rows.append(tuple(entries))
    return Table(
        name,
        f"{title}, on test in per cent: {first} by {second}",
        (first, *(words(second, other) for other in across), "average"),
        tuple(rows),
        notes=(
            "Mean ± sample deviation over seeds (n). Bold: the highest mean, and those that print as the same tenth.",
        ),
    )


def _ordered(cells: Sequence[Cell], key: str) -> list[Any]:
    """Values of a key by size, each once."""
    order = sorted(cells, key=lambda cell: cell.variant.place_of(key))
    return list({str(cell.variant.value(key)): cell.variant.value(key) for cell in order}.values())
