"""Holds what the figures and the page share: names of columns, and forward passes as they are drawn.

Along the axis of forward passes a backward pass counts as three (`zo.optimizers.firstorder.BACKWARD_COST`, as in the
FZOO paper), so that a method of first order is as long there as it is dear: 150 steps of AdamW end at 600. The rows
of metrics.jsonl count like that, and so do curves, reaches and cells.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from experiments.report.cells import Cell, dev_score, shared_seeds
from experiments.report.comparison import Comparison
from experiments.report.statistics import Curve, Reach

QUANTITIES = {
    "dev": "{metric} on dev, %",
    "dev loss": "loss on dev",
    "train loss": "training loss",
    "sigma": "spread of the losses, σ",
    "projected_gradient": "projected gradient",
    "gradient_norm": "gradient norm",
    "lr": "learning rate",
}

Column = tuple[str, str, str]  # model, peft, task


def column_of(value: Cell | Curve | Reach) -> Column:
    """Returns the column that a cell, curve or reach belongs to."""
    return (value.model, value.peft, value.task)


def column_label(column: Column) -> str:
    """Returns a column's name, such as "sst2 · opt-125m · lora"; the peft is omitted if all weights are trained."""
    model, peft, task = column
    return " · ".join([task, model, *([] if peft == "none" else [peft])])


def dev_scores(cell: Cell) -> dict[str, float | None]:
    """Returns the dev score of each setting of a cell, by setting key.

    A score is the mean best metric on dev over the seeds that all settings share.

    Without a shared seed it is over each setting's own seeds; None without dev.
    """
    shared = shared_seeds(cell.settings)
    return {setting.key: dev_score(setting, shared or list(setting.devs)) for setting in cell.settings}


def first_order(cell: Cell) -> bool:
    """Returns True if the cell's runs use backward passes."""
    return any(result.get("backward_passes") for result in results(cell))


def metric_of(comparison: Comparison, column: Column) -> str:
    """Returns the metric of a column, such as accuracy or f1."""
    names = {cell.metric for cell in comparison.cells if column_of(cell) == column and cell.metric}
    return " / ".join(sorted(names)) or "metric"


def quantity_label(quantity: str, metric: str = "metric") -> str:
    """Returns the axis label of a curve's quantity."""
    return QUANTITIES.get(quantity, quantity.replace("_", " ")).format(metric=metric)


def baselines(comparison: Comparison, column: Column) -> dict[str, float]:
    """Returns the metric of the majority class and of the untrained model, if the runs of a column know them."""
    values_by_name: dict[str, float] = {}
    cells = [cell for cell in comparison.cells if column_of(cell) == column]
    for name in ("majority", "before"):
        values = [result[name] for cell in cells for result in results(cell) if result.get(name) is not None]
        if values:
            values_by_name[name] = fmean(values)
    return values_by_name


def results(cell: Cell) -> list[Mapping[str, Any]]:
    """Returns the results of the chosen setting's runs that ended."""
    return [run.result for run in (cell.chosen.ended if cell.chosen else ()) if run.result]
