"""Groups runs into settings and cells: the hyper-parameters that were tried, and which of them a table shows.

A cell is a method on a task (with a model and a peft). Runs of one task with other examples, or of one model in
another precision, are other cells: "sst2 (k 16)". Over the settings tried for it, the cell is the one that is
best on dev, never on test:

    S = seeds with which every setting that has a result has one
    score of a setting = mean over S of the metric on dev of the weights that are reported on test
    chosen = highest score; of equal ones the lower mean dev loss at those best steps; then the first by its label

S is what all tries share, so that a setting that was run again with more seeds is judged by the same seeds as the
others. Mean and deviation of a cell are over all seeds of the chosen setting, seeds that changed nothing counted once
(experiments.report.distinct). A diverged run is a result, with the
metric of its last or best weights, and counts. Without dev, or without common seeds, nothing is chosen, and the
cell says so.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import fmean, stdev
from typing import Any

from experiments.report.ablation import Variant, variant_of
from experiments.report.distinct import count_words, distinct, varied
from experiments.report.runs import WAITING, Run
from experiments.report.setting_key import differing, filled, flattened, problem, words

# Keys that every label shows, even if all settings agree on them.
ALWAYS = (
    "optimizer.lr",
    "schedule._target_",
)


@dataclass(frozen=True)
class Setting:
    """Runs that differ only in their seed.

    key: 8 hex digits. label: how it differs from the other settings of its cell, "lr 0.003, constant".
    differs: the same as dotted config keys and their values. runs: by seed.
    """

    method: str
    model: str
    task: str
    peft: str
    key: str
    label: str
    differs: Mapping[str, Any]
    runs: tuple[Run, ...]

    @property
    def ended(self) -> tuple[Run, ...]:
        """Returns the runs with a result and a value, sorted by seed."""
        return tuple(run for run in self.runs if run.value is not None)

    @property
    def values(self) -> dict[int, float]:
        """Returns the test metric by seed, a fraction."""
        return {run.seed: run.value for run in self.runs if run.value is not None}

    @property
    def counted(self) -> dict[int, float]:
        """Returns the test metric by seed of distinct runs: seeds that changed nothing count once."""
        return {run.seed: run.value for run in distinct(self.ended) if run.value is not None}

    @property
    def devs(self) -> dict[int, float]:
        """Returns the metric on dev by seed."""
        return {run.seed: run.dev for run in self.runs if run.dev is not None}

    @property
    def mean(self) -> float | None:
        """Returns the mean test metric over distinct runs, or None if no run finished."""
        return fmean(self.counted.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Returns the sample deviation (n − 1) of the test metric; None below two distinct runs."""
        return stdev(self.counted.values()) if len(self.counted) > 1 else None

    @property
    def dev(self) -> float | None:
        """Returns the mean over seeds of the metric on dev."""
        return fmean(self.devs.values()) if self.devs else None

    @property
    def dev_loss(self) -> float | None:
        """Returns the mean dev loss of the reported weights over seeds, or None if no run has one."""
        losses = [loss for run in self.ended if (loss := run.dev_loss) is not None]
        return fmean(losses) if losses else None


@dataclass(frozen=True)
class Cell:
    """A method on a task, with a model and a peft.

    settings: all that were tried, by label. chosen: the one the cell shows, None where dev cannot choose. why: how
    it was chosen, or why not, a phrase; how: the same in three words. counts: of all runs of all settings by status.
    variant: the method and, with --by, the values that this cell is of; `method` is its name.
    """

    method: str
    model: str
    task: str
    peft: str
    metric: str
    settings: tuple[Setting, ...]
    chosen: Setting | None
    why: str
    how: str
    counts: Mapping[str, int]
    variant: Variant

    @property
    def tries(self) -> int:
        """Returns the number of settings tried."""
        return len(self.settings)

    @property
    def values(self) -> dict[int, float]:
        """Returns the test metric of the chosen setting by seed, fractions."""
        return self.chosen.values if self.chosen else {}

    @property
    def n(self) -> int:
        """Returns the number of distinct runs behind the mean: seeds that changed nothing count once."""
        return len(self.chosen.counted) if self.chosen else 0

    @property
    def count_text(self) -> str:
        """Returns that number as text, such as "3 seeds, 1 distinct run" if seeds changed nothing."""
        return count_words(len(self.values), self.n)

    @property
    def varied(self) -> tuple[str, ...]:
        """Returns the parts in which its runs differ: what the deviation is over."""
        return varied(self._ended)

    @property
    def mean(self) -> float | None:
        """Returns the mean test metric over the seeds of the chosen setting."""
        return self.chosen.mean if self.chosen else None

    @property
    def deviation(self) -> float | None:
        """Returns the sample deviation over those seeds; None below two."""
        return self.chosen.deviation if self.chosen else None

    @property
    def before(self) -> float | None:
        """Returns the mean test metric before training."""
        return self._mean_result("before")

    @property
    def forward_passes(self) -> float | None:
        """Returns the mean forward passes of training; a backward pass counts as the three that it costs."""
        passes = [
            max(result["forward_passes"], result["steps"] * result["forward_passes_per_step"])
            for run in self._ended
            if (result := run.result) is not None
        ]
        return fmean(passes) if passes else None

    @property
    def seconds(self) -> float | None:
        """Returns the mean seconds of a run, including its evaluations on dev."""
        return self._mean_result("seconds")

    @property
    def seconds_per_step(self) -> float | None:
        """Returns the mean seconds per step over seeds, without evaluations; None if unknown."""
        times = [time for run in self._ended if (time := step_seconds(run)) is not None]
        return fmean(times) if times else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """Returns the largest peak memory of its runs."""
        peaks = [run.result["peak_memory_bytes"] for run in self._ended if run.result]
        return max(peaks) if peaks else None

    def count(self, *statuses: str) -> int:
        """Returns the number of its runs, over all settings, with one of these statuses."""
        return sum(self.counts.get(status, 0) for status in statuses)

    @property
    def failed(self) -> int:
        """Returns the number of failed runs over all settings."""
        return self.count("failed")

    @property
    def diverged(self) -> int:
        """Returns the number of diverged runs over all settings."""
        return self.count("diverged")

    @property
    def waiting(self) -> int:
        """Returns the number of runs that are running, queued or stopped."""
        return self.count(*WAITING)

    @property
    def learned_nothing(self) -> tuple[Run, ...]:
        """Returns the runs of the chosen setting that learned nothing."""
        return tuple(run for run in self._ended if run.learned_nothing)

    @property
    def missing(self) -> int:
        """Returns the number of runs that a sweep lists and that have no folder."""
        return self.count("missing")

    @property
    def _ended(self) -> tuple[Run, ...]:
        return self.chosen.ended if self.chosen else ()

    def _mean_result(self, name: str) -> float | None:
        numbers = [run.result[name] for run in self._ended if run.result and run.result.get(name) is not None]
        return fmean(numbers) if numbers else None


def cells_of(runs: Sequence[Run], by: Sequence[str] = ()) -> tuple[Cell, ...]:
    """Returns all cells, sorted by model, peft, task and method; the order of the runs does not matter.

    by: keys of the configuration (experiments.report.ablation); each of their values is a cell of its own.
    """
    runs = newest(runs)
    groups: dict[tuple[str, str, str, Variant], list[Run]] = {}
    for run, model, task in zip(
        runs, _names(runs, by, "model", "model"), _names(runs, by, "task", "task", "seeds"), strict=True
    ):
        groups.setdefault((model, run.peft, task, variant_of(run.method, run.config, by)), []).append(run)
    order = sorted(groups, key=lambda key: (*key[:3], key[3].place))
    return tuple(_cell(groups[key], key[0], key[2], key[3]) for key in order)


def _names(runs: Sequence[Run], by: Sequence[str], kind: str, *groups: str) -> list[str]:
    """Returns each run's model or task name, with what distinguishes problems of one name: "sst2 (k 16)"."""
    parts = [
        {key: value for key, value in problem(run.config, *groups).items() if key not in by} for run in runs
    ]
    alike: dict[str, list[dict[str, Any]]] = {}
    for run, part in zip(runs, parts, strict=True):
        alike.setdefault(getattr(run, kind), []).append(part)
    differ = {name: differing(members) for name, members in alike.items()}
    names = []
    for run, part in zip(runs, parts, strict=True):
        name = getattr(run, kind)
        extra = ", ".join(words(key, part[key]) for key in differ[name] if part.get(key) is not None)
        names.append(f"{name} ({extra})" if extra else name)
    return names


def _cell(runs: Sequence[Run], model: str, task: str, variant: Variant) -> Cell:
    settings = _settings(runs, model, task, variant.name)
    chosen, why, how = choose(settings)
    metrics = sorted({str(run.result["metric"]) for run in runs if run.result})
    counts = dict(sorted(Counter(run.status for run in runs).items()))
    return Cell(
        variant.name, model, task, runs[0].peft, " / ".join(metrics), settings, chosen, why, how, counts, variant,
    )  # fmt: skip


def choose(settings: Sequence[Setting]) -> tuple[Setting | None, str, str]:
    """Returns the setting that is best on dev, the reason, and the reason in three words.

    The setting is None if dev cannot decide.
    """
    judged = [setting for setting in settings if setting.ended]
    if not judged:
        return None, "no run has ended", "no result"
    if len(judged) == 1:
        return judged[0], f"the only one with a result of {len(settings)} tried", "only result"
    if any(run.dev is None for setting in judged for run in setting.ended if run.status == "finished"):
        return None, f"not chosen on dev: of {len(judged)} settings some have runs without dev", "no dev"
    shared = shared_seeds(judged)
    if not shared:
        return None, f"not chosen on dev: the {len(judged)} settings have no seed in common", "no common seed"
    scores = {setting.key: dev_score(setting, shared) for setting in judged}
    best = max((score for score in scores.values() if score is not None), default=None)
    equal = [setting for setting in judged if scores[setting.key] == best]
    if len(equal) > 1:
        equal.sort(key=lambda setting: _mean_dev_loss(setting, shared))
    seeds = f"seed{'s' if len(shared) > 1 else ''} {', '.join(str(seed) for seed in shared)}"
    without = len(settings) - len(judged)
    suffix = f", {without} more without a result" if without else ""
    return equal[0], f"best on dev of {len(judged)} settings ({seeds}){suffix}", f"dev, {seeds}"


def shared_seeds(settings: Sequence[Setting]) -> list[int]:
    """Returns the seeds that every setting with a result has in common."""
    seeds = [{run.seed for run in setting.ended} for setting in settings if setting.ended]
    return sorted(reduce(set.intersection, seeds)) if seeds else []


def dev_score(setting: Setting, seeds: Sequence[int]) -> float | None:
    """Returns the mean best dev metric over the seeds; None if one has none, as after a divergence."""
    devs = [setting.devs[seed] for seed in seeds if seed in setting.devs]
    return fmean(devs) if devs and len(devs) == len(seeds) else None


def _mean_dev_loss(setting: Setting, seeds: Sequence[int]) -> float:
    """Returns the mean dev loss of the reported weights over the seeds; infinite if one is missing."""
    losses = [run.dev_loss for run in setting.ended if run.seed in seeds]
    return fmean(math.inf if loss is None else loss for loss in losses)


def step_seconds(run: Run) -> float | None:
    """Returns the median seconds per step between neighbouring train rows.

    Pairs of rows with an evaluation on dev between them are left out.
    """
    times, previous = [], None
    for row in run.rows:
        if row["kind"] == "train" and previous is not None and row["steps"] > previous["steps"]:
            times.append((row["seconds"] - previous["seconds"]) / (row["steps"] - previous["steps"]))
        previous = row if row["kind"] == "train" else None
    times.sort()
    return times[len(times) // 2] if times else None


def newest(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Keeps one run per setting and seed: of several versions or copies, the last that ended."""
    latest: dict[tuple[str, ...], Run] = {}
    for run in sorted(runs, key=lambda run: (run.ended, run.time, str(run.folder))):
        latest[run.method, run.model, run.task, run.peft, run.setting, str(run.seed)] = run
    return tuple(sorted(latest.values(), key=lambda run: (run.seed, run.folder)))


def _settings(runs: Sequence[Run], model: str, task: str, method: str) -> tuple[Setting, ...]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    flat = {key: _flat(group[0]) for key, group in groups.items()}
    names = list(dict.fromkeys([*ALWAYS, *differing(list(flat.values()))]))
    settings = []
    for key, group in groups.items():
        differs = {name: flat[key][name] for name in names if name in flat[key]}
        label = ", ".join(words(name, value) for name, value in differs.items())
        settings.append(Setting(method, model, task, group[0].peft, key, label or key, differs, tuple(group)))
    return tuple(sorted(settings, key=lambda setting: (setting.label, setting.key)))


def _flat(run: Run) -> dict[str, Any]:
    return flattened(filled(run.config)) if run.config else {}
