"""The tables of a report, as text in cells; experiments.report.render writes them out.

results      method × task: mean ± deviation over seeds (n), and the runs that are not there
choices      which of the settings tried each of these is
costs        forward passes, also to a target, seconds, memory
differences  of every two methods, over common seeds
settings     everything that was tried
published    a paper's tables with one's own numbers beside theirs (experiments.report.tables.paper_tables)

Bold is the highest mean of a column and every other that prints as the same tenth of a point.
"""

from collections.abc import Sequence

from experiments.report.cells import Cell, Setting
from experiments.report.comparison import Comparison
from experiments.report.distinct import count_words, distinct, over_words, varied
from experiments.report.statistics import Difference, Reach
from experiments.report.tables.paper_tables import papertables
from experiments.report.tables.table import NOTHING, Entry, Table, best, percent, signed, spread, whole

Column = tuple[str, str, str]


def tables(made: Comparison) -> list[Table]:
    """All tables that have a row."""
    parts = [results(made), choices(made), costs(made), differences(made), settings(made)]
    return [table for table in [*parts, *papertables(made.published)] if table.rows]


def results(made: Comparison) -> Table:
    """Method × task."""
    highest = {column: best(made.means(column)) for column in made.columns}
    rows = []
    for method in made.methods:
        entries = [Entry(method)]
        for column in made.columns:
            cell = made.cell(method, column)
            text = NOTHING if cell is None else _result(cell)
            bold = cell is not None and cell.mean is not None and percent(cell.mean) == highest[column]
            entries.append(Entry(text, bold))
        rows.append(tuple(entries))
    metrics = sorted({cell.metric for cell in made.cells if cell.metric})
    return Table(
        "results",
        f"{' / '.join(metrics).capitalize() or 'Metric'} on test, in per cent",
        ("method", *headings(made.columns)),
        tuple(rows),
        notes=(
            "Mean ± sample deviation over seeds, (n) how many distinct runs. A cell is the setting that is best on dev "
            "of all that were tried for it, never the best on test.",
            *_over(made),
            "Bold: the highest mean of a column, and those that print as the same tenth.",
        ),
    )


def choices(made: Comparison) -> Table:
    """A row for each cell: which setting it is, of how many, and what that did."""
    rows = []
    for cell in made.cells:
        texts = (
            cell.method,
            *_on(made, cell),
            cell.chosen.label if cell.chosen else NOTHING,
            cell.how,
            str(cell.tries),
            percent(cell.chosen.dev if cell.chosen else None),
            percent(cell.before),
            spread(cell.mean, cell.deviation),
            str(cell.n) if cell.n == len(cell.values) else f"{cell.n} of {len(cell.values)}",
            ", ".join(cell.varied) or NOTHING,
        )
        rows.append(tuple(Entry(text) for text in texts))
    where = _heads(made)
    return Table(
        "choices",
        "Which setting each cell is",
        ("method", *where, "setting", "chosen by", "tried", "dev", "before", "after", "n", "varied"),
        tuple(rows),
        left=3 + len(where),
        notes=(
            "Settings are compared on dev over the seeds named, which all of a cell's settings have. Varied: what "
            "differs between the seeds' runs, and ± is over.",
        ),
    )


def costs(made: Comparison) -> Table:
    """A row for each cell: forward passes, time and memory."""
    reaches = {(each.method, each.model, each.peft, each.task): each for each in made.reaches}
    rows = []
    for cell in made.cells:
        if not cell.n:
            continue
        reached = reaches.get((cell.method, cell.model, cell.peft, cell.task))
        texts = (
            cell.method,
            *_on(made, cell),
            whole(cell.forward_passes),
            *(() if made.target is None else (reach_words(reached),)),
            NOTHING if cell.seconds_per_step is None else f"{cell.seconds_per_step:.3g}",
            whole(cell.seconds),
            NOTHING if cell.peak_memory_bytes is None else f"{cell.peak_memory_bytes / 2**20:,.0f}",
        )
        rows.append(tuple(Entry(text) for text in texts))
    where = _heads(made)
    target = () if made.target is None else (f"to {100 * made.target:g} % on dev",)
    notes = [
        "Forward passes are those of training; a step of a first-order method counts its backward pass as three. "
        "Seconds a step without evaluations, a run with them. Peak memory: the largest over seeds."
    ]
    if made.target is not None:
        notes.append("Forward passes to the target: mean over the runs that got there (how many).")
    return Table(
        "costs",
        "What it cost",
        ("method", *where, "forwards", *target, "s/step", "s/run", "peak MiB"),
        tuple(rows),
        left=1 + len(where),
        notes=tuple(notes),
    )


def differences(made: Comparison) -> Table:
    """Of every two methods, task by task."""
    found = {(each.a, each.b, (each.model, each.peft, each.task)): each for each in made.differences}
    pairs = sorted({(a, b) for a, b, _ in found})
    rows = [
        (Entry(f"{a} − {b}"), *(_difference(found.get((a, b, column))) for column in made.columns))
        for a, b in pairs
    ]
    return Table(
        "differences",
        "Paired differences in points, over the seeds that both methods have",
        ("methods", *headings(made.columns)),
        tuple(rows),
        notes=(
            f"Mean [{100 * made.level:g} % interval of t over pairs] (pairs); no interval for one pair. Bold: zero "
            "lies outside, of three pairs or more. Each interval is for itself: among many pairs of equal methods "
            "some exclude zero.",
        ),
    )


def settings(made: Comparison) -> Table:
    """Everything that was tried, the chosen ones bold."""
    rows = []
    for cell in made.cells:
        for setting in cell.settings:
            bold = setting is cell.chosen
            texts = (cell.method, *_on(made, cell), setting.label, setting.key, _seeds(setting),
                     percent(setting.dev), spread(setting.mean, setting.deviation),
                     ", ".join(varied(setting.ended)) or NOTHING)  # fmt: skip
            rows.append(tuple(Entry(text, bold) for text in texts))
    where = _heads(made)
    return Table(
        "settings",
        "All settings that were tried",
        ("method", *where, "setting", "key", "seeds", "dev", "after", "varied"),
        tuple(rows),
        left=4 + len(where),
        notes=(
            "Bold: chosen, by dev over the seeds that the settings of a cell share. --where setting=KEY.",
        ),
    )


def headings(columns: Sequence[Column]) -> tuple[str, ...]:
    """The task, with the model and the peft where there are several of them."""
    models, pefts = {column[0] for column in columns}, {column[1] for column in columns}
    return tuple(
        " · ".join(
            [task, *([model] if len(models) > 1 else []), *([f"peft {peft}"] if len(pefts) > 1 else [])]
        )
        for model, peft, task in columns
    )


def reach_words(reached: Reach | None) -> str:
    """1,200 (3), or 1,200 (2), never (1 of 3), or never (3 of 3)."""
    if reached is None or not reached.of:
        return NOTHING
    if reached.mean is None:
        return f"never ({reached.never} of {reached.of})"
    if reached.never:
        return f"{reached.mean:,.0f} ({len(reached.reached)}), never ({reached.never} of {reached.of})"
    return f"{reached.mean:,.0f} ({reached.of})"


def _heads(made: Comparison) -> tuple[str, ...]:
    """A column that says where a cell is, when there are several places."""
    return ("on",) if len(made.columns) > 1 else ()


def _on(made: Comparison, cell: Cell) -> tuple[str, ...]:
    names = dict(zip(made.columns, headings(made.columns), strict=True))
    return (names[cell.model, cell.peft, cell.task],) if len(names) > 1 else ()


def _result(cell: Cell) -> str:
    others = _others(cell)
    if cell.mean is None:
        if cell.chosen is None and any(setting.ended for setting in cell.settings):
            others = f"not chosen on dev; {others}".removesuffix("; ")
        return others or NOTHING
    return f"{spread(cell.mean, cell.deviation)} ({cell.count_text})" + (f"; {others}" if others else "")


def _over(made: Comparison) -> tuple[str, ...]:
    """A sentence that says what ± is over."""
    words = over_words((cell.method, cell.varied) for cell in made.cells if cell.deviation is not None)
    return (f"± is over what differs between the seeds' runs: {words}.",) if words else ()


def _others(cell: Cell) -> str:
    """What is to be known of runs that are not plain results: 1 diverged, 2 missing."""
    counts = {status: count for status, count in cell.counts.items() if status != "finished"}
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _difference(each: Difference | None) -> Entry:
    if each is None:
        return Entry(NOTHING)
    mean, low, high, n = each.spread.mean, each.spread.low, each.spread.high, each.spread.n
    if low is None or high is None:
        return Entry(f"{signed(mean)} ({n})")
    return Entry(f"{signed(mean)} [{signed(low)}, {signed(high)}] ({n})", n > 2 and (low > 0 or high < 0))


def _seeds(setting: Setting) -> str:
    """0, 1 diverged, 2 running; and how many distinct runs that are, where seeds changed nothing."""
    named = ", ".join(
        f"{run.seed}" if run.status == "finished" else f"{run.seed} {run.status}" for run in setting.runs
    )
    seeds, runs = len(setting.ended), len(distinct(setting.ended))
    return named if seeds == runs else f"{named} ({count_words(seeds, runs)})"
