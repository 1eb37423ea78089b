"""Builds the tables of a report as text in cells; experiments.report.render writes them out.

results      method × task: mean ± deviation over seeds (n), and the runs that are not there
by           the same on dev, metric and loss, and of two keys a grid (experiments.report.bytables)
choices      which of the settings tried each of these is
costs        forward passes, also to a target, seconds, memory
passes       forward passes to a target, and their ratio to a reference method's
differences  of every two methods, over common seeds
settings     everything that was tried
published    a paper's tables with one's own numbers beside theirs (experiments.report.tables.paper_tables)

Bold is the highest mean of a column and every other that prints as the same tenth of a point.
"""

from collections import Counter
from collections.abc import Sequence

from experiments.report.bytables import by_words, bytables, headings
from experiments.report.cells import Cell, Setting
from experiments.report.comparison import Comparison
from experiments.report.distinct import count_words, distinct, over_words, varied
from experiments.report.statistics import LEVEL, Difference, Reach
from experiments.report.tables.paper_tables import papertables
from experiments.report.tables.table import (
    NOTHING,
    Entry,
    Table,
    best,
    loss_words,
    p_words,
    percent,
    signed,
    spread,
    with_commas,
)

Column = tuple[str, str, str]


def tables(comparison: Comparison) -> list[Table]:
    """Returns all tables that have a row."""
    parts = [
        results(comparison),
        *bytables(comparison),
        choices(comparison),
        costs(comparison),
        passes(comparison),
        differences(comparison),
        settings(comparison),
    ]
    return [table for table in [*parts, *papertables(comparison.published)] if table.rows]


def results(comparison: Comparison) -> Table:
    """Builds the table of methods × tasks."""
    highest = {column: best(comparison.means(column)) for column in comparison.columns}
    rows = []
    for method in comparison.methods:
        entries = [Entry(method)]
        for column in comparison.columns:
            cell = comparison.cell(method, column)
            text = NOTHING if cell is None else _result(cell)
            bold = cell is not None and cell.mean is not None and percent(cell.mean) == highest[column]
            entries.append(Entry(text, bold))
        rows.append(tuple(entries))
    metrics = sorted({cell.metric for cell in comparison.cells if cell.metric})
    return Table(
        "results",
        f"{' / '.join(metrics).capitalize() or 'Metric'} on test, in per cent{by_words(comparison)}",
        ("method", *headings(comparison.columns)),
        tuple(rows),
        notes=(
            "Mean ± sample deviation over seeds, (n) distinct runs. A cell shows the setting that was best on dev of "
            "all that were tried, never the best on test.",
            *_over_note(comparison),
            "Bold: the highest mean of a column, and those that print as the same tenth.",
        ),
    )


def choices(comparison: Comparison) -> Table:
    """Builds a row for each cell: its setting, how many were tried, and the outcome."""
    rows = []
    for cell in comparison.cells:
        texts = (
            cell.method,
            *_place(comparison, cell),
            cell.chosen.label if cell.chosen else NOTHING,
            cell.how,
            str(cell.tries),
            percent(cell.chosen.dev if cell.chosen else None),
            loss_words(cell.chosen.dev_loss if cell.chosen else None),
            percent(cell.before),
            spread(cell.mean, cell.deviation),
            str(cell.n) if cell.n == len(cell.values) else f"{cell.n} of {len(cell.values)}",
            ", ".join(cell.varied) or NOTHING,
        )
        rows.append(tuple(Entry(text) for text in texts))
    place_heads = _heads(comparison)
    return Table(
        "choices",
        "The setting behind each cell",
        (
            "method",
            *place_heads,
            "setting",
            "chosen by",
            "tried",
            "dev",
            "dev loss",
            "before",
            "after",
            "n",
            "varied",
        ),
        tuple(rows),
        left=3 + len(place_heads),
        notes=(
            "Settings are compared on dev over the named seeds, which all of a cell's settings have. Varied: what "
            "differs between the seeds' runs, which is what ± is over.",
        ),
    )


def costs(comparison: Comparison) -> Table:
    """Builds a row for each cell: forward passes, time and memory."""
    reaches = {(r.method, r.model, r.peft, r.task): r for r in comparison.reaches}
    rows = []
    for cell in comparison.cells:
        if not cell.n:
            continue
        reached = reaches.get((cell.method, cell.model, cell.peft, cell.task))
        texts = (
            cell.method,
            *_place(comparison, cell),
            with_commas(cell.forward_passes),
            *(() if comparison.target is None else (reach_words(reached),)),
            NOTHING if cell.seconds_per_step is None else f"{cell.seconds_per_step:.3g}",
            with_commas(cell.seconds),
            NOTHING if cell.peak_memory_bytes is None else f"{cell.peak_memory_bytes / 2**20:,.0f}",
        )
        rows.append(tuple(Entry(text) for text in texts))
    place_heads = _heads(comparison)
    target = () if comparison.target is None else (f"to {comparison.target_words} on dev",)
    notes = [
        "Forward passes of training; a backward pass of a first-order method counts as three. Seconds per step "
        "exclude evaluations, seconds per run include them. Peak memory: the largest over seeds."
    ]
    if comparison.target is not None:
        notes.append("Forward passes to the target: mean over the runs that got there (how many).")
    return Table(
        "costs",
        "Costs",
        ("method", *place_heads, "forwards", *target, "s/step", "s/run", "peak MiB"),
        tuple(rows),
        left=1 + len(place_heads),
        notes=tuple(notes),
    )


def passes(comparison: Comparison) -> Table:
    """Builds a row for each cell: forward passes to the target, the runs that never got there, and the ratio."""
    ratio_of = {(r.method, r.model, r.peft, r.task): r for r in comparison.ratios}
    names = dict(zip(comparison.columns, headings(comparison.columns), strict=True))
    place_heads = _heads(comparison)
    rows = []
    for reach in comparison.reaches:
        if not reach.run_count:
            continue
        ratio = ratio_of.get((reach.method, reach.model, reach.peft, reach.task))
        place = (names[reach.model, reach.peft, reach.task],) if place_heads else ()
        itself = "1" if reach.method == comparison.reference else NOTHING
        times = () if comparison.reference is None else (itself if ratio is None else ratio.text,)
        rows.append(
            (
                reach.method,
                *place,
                with_commas(reach.mean),
                f"{len(reach.reached)} of {reach.run_count}",
                _never(reach),
                *times,
            )
        )
    for ratio in comparison.ratios:
        if ratio.columns > 1:
            mean_over = f"{ratio.columns} columns, geometric mean"
            rows.append(
                (ratio.method, *((mean_over,) if place_heads else ()), NOTHING, NOTHING, NOTHING, ratio.text)
            )
    heads = () if comparison.reference is None else (f"times fewer than {comparison.reference}",)
    notes = [
        "Forward passes at the first evaluation on dev that meets the target, mean over the runs that got there. "
        "Never: seeds whose run did not get there, and the forward passes of its last evaluation."
    ]
    if comparison.reference is not None:
        notes.append(
            f"Times fewer: geometric mean, over the seeds that both have, of {comparison.reference}'s forward passes "
            f"over the method's. [{100 * comparison.level:g} % interval] covers the spacing of the evaluations and, "
            "from two seeds on, t over the seeds. > and <: an end is open, because a run never got there or met the "
            "target at its first evaluation."
        )
    return Table(
        "passes",
        f"Forward passes to {comparison.target_words} on dev",
        ("method", *place_heads, "forwards", "reached", "never", *heads),
        tuple(tuple(Entry(text) for text in row) for row in rows),
        left=1 + len(place_heads),
        notes=tuple(notes),
    )


def _never(reached: Reach) -> str:
    """Returns the runs that never got there: "seed 1 (40,000), seed 2 (38,000)"."""
    parts = [f"seed {seed} ({last_passes:,.0f})" for seed, last_passes in sorted(reached.censored.items())]
    return ", ".join(parts) or NOTHING


def differences(comparison: Comparison) -> Table:
    """Builds the table of paired differences: every two methods, task by task."""
    by_pair = {(d.a, d.b, (d.model, d.peft, d.task)): d for d in comparison.differences}
    pairs = sorted({(a, b) for a, b, _ in by_pair})
    rows = [
        (Entry(f"{a} − {b}"), *(_difference(by_pair.get((a, b, column))) for column in comparison.columns))
        for a, b in pairs
    ]
    return Table(
        "differences",
        "Paired differences in points, over the seeds that both methods have",
        ("methods", *headings(comparison.columns)),
        tuple(rows),
        notes=(
            f"Mean [{100 * comparison.level:g} % interval over seeds and test examples, uncorrected] (pairs); p of "
            f"that interval, by Holm over all {sum(d.p is not None for d in comparison.differences)} pairs of this "
            "report. Bold: p is below "
            f"{1 - comparison.level:.2g}. No interval for one pair. Each interval stands alone: among many pairs of "
            "equal methods, some exclude zero.",
            *_sources(comparison.differences),
        ),
    )


def settings(comparison: Comparison) -> Table:
    """Builds the table of everything that was tried, with the chosen settings in bold."""
    rows = []
    for cell in comparison.cells:
        for setting in cell.settings:
            bold = setting is cell.chosen
            texts = (cell.method, *_place(comparison, cell), setting.label, setting.key, _seeds(setting),
                     percent(setting.dev), loss_words(setting.dev_loss), spread(setting.mean, setting.deviation),
                     ", ".join(varied(setting.ended)) or NOTHING)  # fmt: skip
            rows.append(tuple(Entry(text, bold) for text in texts))
    place_heads = _heads(comparison)
    return Table(
        "settings",
        "All settings tried",
        ("method", *place_heads, "setting", "key", "seeds", "dev", "dev loss", "after", "varied"),
        tuple(rows),
        left=4 + len(place_heads),
        notes=(
            "Bold: chosen, by dev over the seeds that the settings of a cell share. --where setting=KEY.",
        ),
    )


def reach_words(reached: Reach | None) -> str:
    """Returns "1,200 (3)", "1,200 (2), never (1 of 3)" or "never (3 of 3)"."""
    if reached is None or not reached.run_count:
        return NOTHING
    if reached.mean is None:
        return f"never ({reached.never} of {reached.run_count})"
    if reached.never:
        return f"{reached.mean:,.0f} ({len(reached.reached)}), never ({reached.never} of {reached.run_count})"
    return f"{reached.mean:,.0f} ({reached.run_count})"


def _heads(comparison: Comparison) -> tuple[str, ...]:
    """Returns the heading of the column that names a cell's place, if there are several places."""
    return ("on",) if len(comparison.columns) > 1 else ()


def _place(comparison: Comparison, cell: Cell) -> tuple[str, ...]:
    names = dict(zip(comparison.columns, headings(comparison.columns), strict=True))
    return (names[cell.model, cell.peft, cell.task],) if len(names) > 1 else ()


def _result(cell: Cell) -> str:
    exceptions = _exceptions(cell)
    if cell.mean is None:
        if cell.chosen is None and any(setting.ended for setting in cell.settings):
            exceptions = f"not chosen on dev; {exceptions}".removesuffix("; ")
        return exceptions or NOTHING
    return f"{spread(cell.mean, cell.deviation)} ({cell.count_text})" + (
        f"; {exceptions}" if exceptions else ""
    )


def _over_note(comparison: Comparison) -> tuple[str, ...]:
    """Returns the sentence that says what ± is over."""
    words = over_words((cell.method, cell.varied) for cell in comparison.cells if cell.deviation is not None)
    return (f"± is over what differs between the seeds' runs: {words}.",) if words else ()


def _exceptions(cell: Cell) -> str:
    """Returns the counts of runs that are not plain results: "1 diverged, 2 missing, 3 learned nothing"."""
    counts = {status: count for status, count in cell.counts.items() if status != "finished"}
    counts |= {"learned nothing": len(cell.learned_nothing)} if cell.learned_nothing else {}
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _difference(difference: Difference | None) -> Entry:
    if difference is None:
        return Entry(NOTHING)
    mean, low, high, n = (
        difference.spread.mean,
        difference.spread.low,
        difference.spread.high,
        difference.spread.n,
    )
    if low is None or high is None:
        return Entry(f"{signed(mean)} ({n})")
    chance = "" if difference.p_holm is None else f", p {p_words(difference.p_holm)}"
    clear = difference.p_holm is not None and difference.p_holm < 1 - LEVEL
    return Entry(f"{signed(mean)} [{signed(low)}, {signed(high)}] ({n}){chance}", clear)


def _sources(pairs: Sequence[Difference]) -> tuple[str, ...]:
    """Returns notes on intervals whose variance over test examples does not come from the answers."""
    words = {
        "bound": "is bounded by p (1 − p) / n of each method, since single answers were not stored or the metric "
        "is not their mean: these intervals are wider than necessary",
        "drawn anew": "is already in the seeds' differences, since each seed draws its own test rows",
        "unknown": "is unknown and left out, since the results do not say how many there were",
    }
    counts = Counter(pair.examples for pair in pairs if pair.spread.low is not None)
    return tuple(
        f"In {counts[kind]} pairs the test examples' variance {reason}."
        for kind, reason in words.items()
        if counts[kind]
    )


def _seeds(setting: Setting) -> str:
    """Returns the seeds, such as "0, 1 diverged, 2 running", and the distinct runs if seeds changed nothing."""
    text = ", ".join(
        f"{run.seed}" if run.status == "finished" else f"{run.seed} {run.status}" for run in setting.runs
    )
    seeds, runs = len(setting.ended), len(distinct(setting.ended))
    return text if seeds == runs else f"{text} ({count_words(seeds, runs)})"
