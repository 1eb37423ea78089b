"""All that a report says, as values: what the tables, the figures and the page are made of."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.report.ablation import Variant, check_keys
from experiments.report.cells import Cell, cells_of, newest
from experiments.report.passes import Ratio, ratios, reference_of, target_words
from experiments.report.published import Beside, Published, compare
from experiments.report.runs import UNREADABLE, Run
from experiments.report.statistics import (
    BAND,
    HAS_SCIPY,
    LEVEL,
    Curve,
    Difference,
    Reach,
    curves,
    differences,
    reach,
)

_NUMBER = re.compile(r"\d[\d.,]*(e[+-]\d+)?")


@dataclass(frozen=True)
class Comparison:
    """Runs compared. Metrics are fractions; published numbers per cent.

    title: what was compared, for a heading. target: the metric on dev that `reaches` is about, a fraction, or the loss
    (target_by), or None. ratios: of forward passes to it, to those of `reference`. curves: of every cell's chosen
    setting. by: keys whose values are cells of their own. notes: sentences that belong under the tables.
    """

    title: str
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]
    curves: tuple[Curve, ...]
    differences: tuple[Difference, ...]
    target: float | None
    reaches: tuple[Reach, ...]
    published: tuple[Beside, ...]
    notes: tuple[str, ...] = ()
    target_by: str = "metric"
    reference: str | None = None
    ratios: tuple[Ratio, ...] = ()
    by: tuple[str, ...] = ()
    band: str = BAND
    level: float = LEVEL

    @cached_property
    def summary(self) -> str:
        """38 of 40 runs ended, 1 diverged, 1 failed, 1 running."""
        counts = Counter(run.status for run in self.runs)
        ended = sum(run.ended for run in self.runs)
        others = [f"{counts[status]} {status}" for status in sorted(counts) if status != "finished"]
        return ", ".join([f"{ended} of {len(self.runs)} runs ended", *others])

    @property
    def target_words(self) -> str:
        """80 %, or loss 0.5."""
        return target_words(self.target or 0.0, self.target_by)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, sorted, and by the values of --by: the rows of the tables, the order of the colours."""
        places = {cell.method: cell.variant.place for cell in self.cells}
        return tuple(sorted(places, key=lambda method: (places[method], method)))

    @cached_property
    def columns(self) -> tuple[tuple[str, str, str], ...]:
        """(model, peft, task), sorted: the columns of the tables."""
        return tuple(sorted({(cell.model, cell.peft, cell.task) for cell in self.cells}))

    def cell(self, method: str, column: tuple[str, str, str]) -> Cell | None:
        """The cell of a method in a column."""
        return self._cells.get((method, *column))

    def means(self, column: tuple[str, str, str]) -> list[float]:
        """The mean of every cell of a column that has one."""
        cells = [self.cell(method, column) for method in self.methods]
        return [cell.mean for cell in cells if cell is not None and cell.mean is not None]

    @cached_property
    def _cells(self) -> Mapping[tuple[str, str, str, str], Cell]:
        return {(cell.method, cell.model, cell.peft, cell.task): cell for cell in self.cells}

    def to_json(self) -> str:
        """Everything but the runs' configurations and rows."""
        return json.dumps(_plain(self), indent=1, allow_nan=False)


def comparison(
    runs: Sequence[Run],
    *,
    title: str = "",
    target: float | None = None,
    target_by: str = "metric",
    reference: str | None = None,
    by: Sequence[str] = (),
    published: Sequence[Published] = (),
    smoke: bool = False,
) -> Comparison:
    """Compares runs; their order does not matter. smoke: with smoke runs, which are else left out beside others.

    Raises ConfigError for a key of `by` that does not vary, or a reference that is no method of the runs.
    """
    given = len(runs)
    runs = [run for run in runs if smoke or not run.smoke] or runs
    readable = [run for run in runs if run.status != UNREADABLE]
    check_keys(by, [run.config for run in readable])
    cells = cells_of(readable, by)
    reaches = () if target is None else tuple(reach(cell, target, target_by) for cell in cells if cell.chosen)
    reference = None if target is None else reference_of(reference, [cell.method for cell in cells])
    return Comparison(
        title=title or f"{len(runs)} runs",
        runs=tuple(sorted(runs, key=lambda run: run.folder)),
        cells=cells,
        curves=tuple(curve for cell in cells for curve in curves(cell)),
        differences=differences(cells),
        target=target,
        reaches=reaches,
        published=compare(cells, published),
        notes=tuple(_notes(runs, cells, given - len(runs))),
        target_by=target_by,
        reference=reference,
        ratios=() if reference is None else ratios(reaches, reference),
        by=tuple(by),
    )


def _notes(runs: Sequence[Run], cells: Sequence[Cell], smoke: int) -> Iterator[str]:
    """What a reader must know to read the tables rightly. smoke: how many such runs are left out."""
    if smoke:
        yield f"{smoke} runs of debug=smoke or --smoke are left out; --where experiment=smoke shows them."
    if runs and all(run.smoke for run in runs):
        yield "All runs are of debug=smoke or --smoke, a step or two on a few examples."
    if older := len(runs) - len(newest(runs)):
        yield f"{older} runs are left out, for a later run of the same setting and seed is there."
    for run in runs:
        if (problem := run.problem) is not None:
            yield f"{run.folder}: {problem}{'; the run is left out' if run.status == UNREADABLE else ''}."
    for cell in cells:
        where = f"{cell.method} on {cell.task} with {cell.model} ({cell.peft})"
        if cell.chosen is None and any(setting.ended for setting in cell.settings):
            yield f"{where}: {cell.why}."
        if cell.chosen and (diverged := [run.seed for run in cell.chosen.ended if run.status == "diverged"]):
            seeds = ", ".join(str(seed) for seed in diverged)
            yield f"{where}: seed {seeds} diverged, and counts with the weights that it reported."
        for run in cell.learned_nothing:
            yield f"{where}: seed {run.seed} learned nothing: {run.learned_nothing}."
    shown = [run for cell in cells if cell.chosen for run in cell.chosen.ended]
    commits = Counter(run.commit for run in shown if run.commit)
    if len(commits) > 1:
        parts = [f"{commit} ({count})" for commit, count in sorted(commits.items())]
        yield f"The runs shown are of {len(commits)} commits of zo: {', '.join(parts)}."
    if not HAS_SCIPY:
        yield "There are no intervals, for scipy is not here: pip install -e '.[report]'."
    yield from _dropout(runs)
    for cell in cells:
        yield from _warnings(cell)
    for cell in cells:
        if cell.n < len(cell.values):
            where = f"{cell.method} on {cell.task} with {cell.model} ({cell.peft})"
            yield f"{where}: {cell.count_text}, for the other seeds changed nothing."


def _warnings(cell: Cell) -> Iterator[str]:
    """What the runs behind a cell warned of, each sentence once with how many say it, whatever their numbers.

    Those of the setting shown, or of every setting where none is; the sentence is the first run's.
    """
    shown = [cell.chosen] if cell.chosen else cell.settings
    runs = [run for setting in shown for run in setting.runs]
    alike: dict[str, list[str]] = {}
    for run in runs:
        for key, sentence in {_NUMBER.sub("#", sentence): sentence for sentence in run.warnings}.items():
            alike.setdefault(key, []).append(sentence)
    for sentence, count in ((sentences[0], len(sentences)) for sentences in alike.values()):
        yield (
            f"{cell.method} on {cell.task} with {cell.model} ({cell.peft}), {count} of {len(runs)} "
            f"run{'s' if len(runs) > 1 else ''}: {sentence}"
        )


def _dropout(runs: Sequence[Run]) -> Iterator[str]:
    """Of methods that train with dropout, of a probability above 0."""
    results = [(run.method, run.result) for run in runs if run.result]
    if on := sorted({method for method, result in results if result.get("dropout")}):
        yield f"With dropout in training: {', '.join(on)}. All others train without."
    if older := sorted({m for m, result in results if "dropout" not in result and result.get("train_mode")}):
        yield f"In train mode, of which their version did not write down the dropout: {', '.join(older)}."


def _plain(value: Any) -> Any:
    """Dataclasses as mappings; a setting's runs as seeds, for the runs themselves are listed once."""
    if isinstance(value, Run):
        names = (
            "folder",
            "status",
            "method",
            "model",
            "task",
            "peft",
            "seed",
            "config_hash",
            "setting",
            "detail",
        )
        return {name: _plain(getattr(value, name)) for name in names} | {"result": value.result}
    if is_dataclass(value) and not isinstance(value, type):
        made = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, Variant):
            return {key: _plain(item) for key, item in value.values}
        if isinstance(value, Cell):
            made["chosen"] = value.chosen.key if value.chosen else None
            made |= {name: getattr(value, name) for name in _DERIVED}
        return made
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # an open end, for which JSON has no number
    return str(value) if isinstance(value, Path) else value


_DERIVED = ("mean", "deviation", "n", "tries", "before", "forward_passes", "seconds", "seconds_per_step",
            "peak_memory_bytes")  # fmt: skip
