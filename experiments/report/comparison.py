"""Compares runs and holds everything a report shows: tables, figures and the page are made from it."""

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
from experiments.report.published import Published, PublishedPair, compare
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
from experiments.rundir.code_places import install

_NUMBER = re.compile(r"\d[\d.,]*(e[+-]\d+)?")


@dataclass(frozen=True)
class Comparison:
    """The comparison of runs. Metrics are fractions; published numbers per cent.

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
    published: tuple[PublishedPair, ...]
    notes: tuple[str, ...] = ()
    target_by: str = "metric"
    reference: str | None = None
    ratios: tuple[Ratio, ...] = ()
    by: tuple[str, ...] = ()
    band: str = BAND
    level: float = LEVEL

    @cached_property
    def summary(self) -> str:
        """Returns the counts: "38 of 40 runs ended, 1 diverged, 1 failed, 1 running"."""
        counts = Counter(run.status for run in self.runs)
        ended = sum(run.ended for run in self.runs)
        counts_by_status = [f"{counts[status]} {status}" for status in sorted(counts) if status != "finished"]
        return ", ".join([f"{ended} of {len(self.runs)} runs ended", *counts_by_status])

    @property
    def target_words(self) -> str:
        """Returns the target as text: "80 %" or "loss 0.5"."""
        return target_words(self.target or 0.0, self.target_by)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Returns the methods sorted by name and by the values of --by: the order of rows and colours."""
        places = {cell.method: cell.variant.place for cell in self.cells}
        return tuple(sorted(places, key=lambda method: (places[method], method)))

    @cached_property
    def columns(self) -> tuple[tuple[str, str, str], ...]:
        """Returns (model, peft, task), sorted: the columns of the tables."""
        return tuple(sorted({(cell.model, cell.peft, cell.task) for cell in self.cells}))

    def cell(self, method: str, column: tuple[str, str, str]) -> Cell | None:
        """Returns the cell of a method in a column, or None."""
        return self._cells.get((method, *column))

    def means(self, column: tuple[str, str, str]) -> list[float]:
        """Returns the mean of every cell of a column that has one."""
        cells = [self.cell(method, column) for method in self.methods]
        return [cell.mean for cell in cells if cell is not None and cell.mean is not None]

    @cached_property
    def _cells(self) -> Mapping[tuple[str, str, str, str], Cell]:
        return {(cell.method, cell.model, cell.peft, cell.task): cell for cell in self.cells}

    def to_json(self) -> str:
        """Returns everything but the runs' configurations and rows as JSON."""
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
    """Compares runs; their order does not matter.

    smoke: include smoke runs, which are otherwise left out unless all runs are smoke runs.

    Raises ConfigError for a key of `by` that does not vary, or a reference that is no method of the runs.
    """
    run_count = len(runs)
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
        notes=tuple(_notes(runs, cells, run_count - len(runs))),
        target_by=target_by,
        reference=reference,
        ratios=() if reference is None else ratios(reaches, reference),
        by=tuple(by),
    )


def _notes(runs: Sequence[Run], cells: Sequence[Cell], smoke: int) -> Iterator[str]:
    """Yields the sentences a reader needs to interpret the tables. smoke: number of smoke runs left out."""
    if smoke:
        yield f"{smoke} runs of debug=smoke or --smoke are left out; --where experiment=smoke shows them."
    if runs and all(run.smoke for run in runs):
        yield "All runs are of debug=smoke or --smoke, a step or two on a few examples."
    if older := len(runs) - len(newest(runs)):
        yield f"{older} runs are left out: each has a later run of the same setting and seed."
    for run in runs:
        if (problem := run.problem) is not None:
            yield f"{run.folder}: {problem}{'; the run is left out' if run.status == UNREADABLE else ''}."
    for cell in cells:
        place = f"{cell.method} on {cell.task} with {cell.model} ({cell.peft})"
        if cell.chosen is None and any(setting.ended for setting in cell.settings):
            yield f"{place}: {cell.why}."
        if cell.chosen and (diverged := [run.seed for run in cell.chosen.ended if run.status == "diverged"]):
            seeds = ", ".join(str(seed) for seed in diverged)
            yield f"{place}: seed {seeds} diverged; it counts with the weights it reported."
        for run in cell.learned_nothing:
            yield f"{place}: seed {run.seed} learned nothing: {run.learned_nothing}."
    chosen_runs = [run for cell in cells if cell.chosen for run in cell.chosen.ended]
    commits = Counter(run.commit for run in chosen_runs if run.commit)
    if len(commits) > 1:
        parts = [f"{commit} ({count})" for commit, count in sorted(commits.items())]
        yield f"The runs come from {len(commits)} commits of zo: {', '.join(parts)}."
    if not HAS_SCIPY:
        yield f"Intervals are missing because scipy is not installed: {install('report')}."
    yield from _dropout(runs)
    for cell in cells:
        yield from _warnings(cell)
    for cell in cells:
        if cell.n < len(cell.values):
            place = f"{cell.method} on {cell.task} with {cell.model} ({cell.peft})"
            yield f"{place}: {cell.count_text}; the other seeds changed nothing."


def _warnings(cell: Cell) -> Iterator[str]:
    """Yields each warning of the runs behind a cell once, with how many runs gave it.

    Sentences that differ only in numbers count as one; the first run's is printed. The runs are those of the setting
    shown, or of every setting if none is.
    """
    settings = [cell.chosen] if cell.chosen else cell.settings
    runs = [run for setting in settings for run in setting.runs]
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
    """Yields notes on methods that train with dropout (a probability above 0)."""
    results = [(run.method, run.result) for run in runs if run.result]
    if methods := sorted({method for method, result in results if result.get("dropout")}):
        yield f"With dropout in training: {', '.join(methods)}. All others train without."
    if older := sorted({m for m, result in results if "dropout" not in result and result.get("train_mode")}):
        yield f"In train mode, by a version that did not record the dropout: {', '.join(older)}."


def _plain(value: Any) -> Any:
    """Returns a value as plain JSON types.

    Dataclasses become mappings; a setting's runs become seeds, because the runs themselves are listed once.
    """
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
        mapping = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, Variant):
            return {key: _plain(item) for key, item in value.values}
        if isinstance(value, Cell):
            mapping["chosen"] = value.chosen.key if value.chosen else None
            mapping |= {name: getattr(value, name) for name in _DERIVED}
        return mapping
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # an open end: JSON has no infinity
    return str(value) if isinstance(value, Path) else value


_DERIVED = ("mean", "deviation", "n", "tries", "before", "forward_passes", "seconds", "seconds_per_step",
            "peak_memory_bytes")  # fmt: skip
