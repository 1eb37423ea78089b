"""Prints the papers' numbers for the runs that launch.py would start: python -m experiments expected."""

import sys
from collections.abc import Sequence

from rich.table import Table

from experiments.config.run_config import RunConfig, plain
from experiments.config.run_id import method_of
from experiments.display.console import new_console
from experiments.models.source import model_name
from experiments.papers import POINTS, Published, published
from experiments.papers.unpublished import unpublished

NOTE = (
    "In per cent. A mean counts as reproduced within so many points: two published deviations, or, where the paper "
    f"prints none (–), {POINTS:g} points."
)


def expected(config: RunConfig) -> list[Published]:
    """Returns the published numbers of a run like this one.

    They agree in model, task, method, peft, objective and demonstrations, and in k where they say one.
    """
    task, values = config.task, config.as_dict()
    wanted = (
        model_name(config.model),
        task.name,
        method_of(config),
        config.peft.name,
    )
    return [
        number
        for number in published()
        if (number.model, number.task, number.method, number.peft) == wanted
        and number.k in (None, task.k)
        and number.fits(plain(task))
        and number.has_settings(values)
    ]


def show(configs: Sequence[RunConfig]) -> int:
    """Prints them, and how many configurations have none; 0."""
    numbers = list(dict.fromkeys(number for config in configs for number in expected(config)))
    console = new_console(width=None if sys.stdout.isatty() else 160)
    if numbers:
        console.print(_table(numbers))
        console.print(NOTE)
    for sentence in dict.fromkeys(sentence for config in configs if (sentence := unpublished(config))):
        console.print(sentence)
    without = sum(not expected(config) for config in configs)
    if without:
        console.print(f"No paper's number is at hand for {without} of {len(configs)} configurations.")
    return 0


def _table(numbers: Sequence[Published]) -> Table:
    table = Table(title="Published")
    names = ("paper", "table", "model", "task", "method", "peft", "k", "value", "±", "within", "note")
    for name in names:
        right = name in ("k", "value", "±", "within")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "note")
    for n in numbers:
        table.add_row(
            *(n.paper, n.table, n.model, n.task, n.method, n.peft),
            "" if n.k is None else str(n.k),
            f"{n.value:.1f}",
            "–" if n.deviation is None else f"{n.deviation:.1f}",
            f"{n.tolerance:.1f}",
            "; ".join(part for part in (n.settings_text, n.note) if part),
        )
    return table
