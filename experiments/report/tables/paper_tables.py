"""Builds a paper's tables with the numbers of these runs: method × task, a table for each model.

93.3 = 92.8 ± 0.4 (3) is reproduced, 93.3 ≠ 88.0 ± 1.2 (3) is not, and 93.3 alone was not run.
"""

from collections.abc import Sequence

from experiments.report.distinct import over_words
from experiments.report.published import WORDS, PublishedPair
from experiments.report.tables.table import NOTHING, Entry, Table

SIGNS = {"reproduced": "=", "not reproduced": "≠"}


def papertables(rows: Sequence[PublishedPair]) -> list[Table]:
    """Returns the tables in the papers' own order."""
    groups: dict[tuple[str, str, str], list[PublishedPair]] = {}
    for row in rows:
        groups.setdefault((row.published.paper, row.published.table, row.published.model), []).append(row)
    return [_table(f"published-{i}", group) for i, group in enumerate(groups.values(), start=1)]


def not_run(table: Table) -> bool:
    """Returns True if none of a table's numbers was run."""
    return not any(sign in entry.text for row in table.rows for entry in row for sign in SIGNS.values())


def _table(name: str, group: Sequence[PublishedPair]) -> Table:
    number = group[0].published
    tasks = list(dict.fromkeys(row.published.task for row in group))
    ks = {row.published.k for row in group}
    by_place = {(_method(row, ks), row.published.task): row for row in group}
    methods = list(dict.fromkeys(method for method, _ in by_place))
    counts = [f"{sum(row.verdict == verdict for row in group)} {verdict}" for verdict in WORDS]
    varied = over_words((row.published.method, row.varied) for row in group if row.deviation is not None)
    notes = list(dict.fromkeys(row.published.note for row in group if row.published.note))
    return Table(
        name,
        f"{number.paper}, table {number.table}, {number.model}, in per cent: {', '.join(counts)}",
        ("method", *tasks),
        tuple(
            (Entry(method), *(_entry(by_place.get((method, task))) for task in tasks)) for method in methods
        ),
        notes=(
            "Published, then these runs: = reproduced, within two published deviations, else within two points; "
            "≠ not reproduced; a number alone: not run, or not chosen on dev.",
            *([f"± of these runs is over {varied}."] if varied else []),
            *(["Of the paper: " + "; ".join(notes) + "."] if notes else []),
        ),
    )


def _method(row: PublishedPair, ks: set[int | None]) -> str:
    number = row.published
    peft = "" if number.peft == "none" else f" {number.peft}"
    settings = f", {number.settings_text}" if number.settings else ""
    return f"{number.method}{peft}{settings}" + (
        f", k {number.k}" if len(ks) > 1 and number.k is not None else ""
    )


def _entry(row: PublishedPair | None) -> Entry:
    if row is None:
        return Entry(NOTHING)
    number = row.published
    text = f"{number.value:g}" + (f" ± {number.deviation:g}" if number.deviation is not None else "")
    if row.ours is None:
        return Entry(text)
    ours = f"{row.ours:.1f}" + ("" if row.deviation is None else f" ± {row.deviation:.1f}")
    return Entry(f"{text} {SIGNS[row.verdict]} {ours} ({row.n})", row.verdict == "reproduced")
