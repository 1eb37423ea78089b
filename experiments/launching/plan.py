"""Plans a sweep before anything starts: names every run, lists every problem, runs nothing.

A run's name is a hash of what decides its result, contents of model and data included. Neither needs the weights
in memory: model files are digested once a sweep, examples drawn and tokenised once for each model, task and split.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from experiments.config.problems import Problem
from experiments.config.run_config import RunConfig, plain
from experiments.config.run_id import folder_of, hash_of, method_of, name_of, seed_of, trains
from experiments.launching.check import Checked, Tally, variations
from experiments.launching.seeds import Drawn, copies, drawn
from experiments.models.dropping import configured_dropout
from experiments.models.loading import Loaded, outline
from experiments.models.refusals import refusals
from experiments.rundir.folder import RunFolder, title_of
from experiments.rundir.json_files import read_result
from experiments.tasks.summary import Summary
from experiments.tasks.task import Task, load_task
from experiments.training.session import steps_of, trial_optimizer
from zo.errors import ConfigError, DataError
from zo.optimizers.firstorder import BACKWARD_COST


@dataclass(frozen=True)
class Run:
    """A run of a sweep: its overrides, its configuration (without launcher and cluster), its folder and data.

    drawn: which parts it draws (experiments.launching.seeds).
    """

    overrides: tuple[str, ...]
    config: RunConfig
    name: str
    hash: str
    steps: int
    folder: Path
    drawn: Drawn
    data: Summary = field(default_factory=Summary)
    passes: int | None = None  # forward passes of the training; None: none, or as many as its minutes allow

    @property
    def ended(self) -> bool:
        """Returns True if its result is there."""
        return read_result(self.folder)[0] is not None


class Planner:
    """Names runs; reads models and tasks that several share once."""

    def __init__(self) -> None:
        self._models: dict[str, Loaded | ConfigError | DataError] = {}
        self._tasks: dict[str, Task] = {}
        self._dropouts: dict[str, float] = {}

    def name(self, config: RunConfig, overrides: Sequence[str]) -> Run:
        """Returns the run of a complete configuration.

        Raises ConfigError and DataError for what `build` would refuse without the weights.
        """
        steps = _checked_steps(config)
        model = json.dumps(plain(config.model), sort_keys=True)
        if model not in self._models:
            try:
                self._models[model] = outline(config.model, Path(config.paths.models))
            except (ConfigError, DataError) as error:  # a hub that does not answer is asked once
                self._models[model] = error
        loaded = self._models[model]
        if not isinstance(loaded, Loaded):
            raise loaded
        seeds = seed_of(config, "split"), seed_of(config, "test")
        task = json.dumps([model, plain(config.task), seeds], sort_keys=True)
        if task not in self._tasks:
            self._tasks[task] = load_task(config.task, loaded, *seeds)
        if config.select == "best" and not self._tasks[task].dev:
            raise ConfigError(
                "select = best chooses a step on dev, but task.dev = 0. Set task.dev, or select=last."
            )
        decides = hash_of(config, [loaded.fingerprint, self._tasks[task].sources], steps)
        name = name_of(config, loaded.name)
        if model not in self._dropouts:
            self._dropouts[model] = configured_dropout(AutoConfig.from_pretrained(loaded.folder).to_dict())
        parts = drawn(config, steps, loaded.family, self._dropouts[model])
        folder, summary = folder_of(config, name, decides), self._tasks[task].summary
        return Run(
            tuple(overrides), config, name, decides, steps, folder, parts, summary, _passes(config, steps)
        )


def _checked_steps(config: RunConfig) -> int:
    """The steps that the budget allows; raises ConfigError with every problem of optimizer, budget, model and mode."""
    problems = refusals(config.model, config.peft.name, Path(config.paths.models))
    steps = 0
    try:
        steps = steps_of(config)
    except ConfigError as error:
        problems = [*str(error).splitlines(), *problems]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return steps


def _passes(config: RunConfig, steps: int) -> int | None:
    """Returns the forward passes of this many steps; backward passes count as in budgets."""
    if not trains(config) or config.trains_until_clock:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer proper will warn
        one = trial_optimizer(config)
    return steps * (one.forward_passes + BACKWARD_COST * one.backward_passes)


def unequal(runs: Sequence[Run]) -> str | None:
    """Returns a sentence if a sweep's methods do not get the same forward passes, so are not comparable; else None."""
    by_method: dict[str, set[int]] = {}
    for run in runs:
        if run.passes is not None:
            by_method.setdefault(method_of(run.config), set()).add(run.passes)
    if len({frozenset(passes) for passes in by_method.values()}) < 2:
        return None
    amounts = ", ".join(
        f"{method} {' or '.join(f'{n:,}' for n in sorted(passes))}" for method, passes in by_method.items()
    )
    return (
        f"These methods do not get the same forward passes: {amounts}. A comparison at equal cost says "
        f"budget.forward_passes={max(max(passes) for passes in by_method.values())}, of which each makes its own steps."
    )


@dataclass(frozen=True)
class Plan:
    """The runs, each once, and the settings they share. notes: sentences to read before starting."""

    runs: list[Run]
    launcher: Mapping[str, Any]
    cluster: Mapping[str, Any]
    runs_folder: Path
    notes: tuple[str, ...] = ()


def plan(checked: Checked) -> tuple[Plan | None, list[Problem]]:
    """Returns every run of a sweep once, or every problem that only models and data reveal."""
    planner, wrong = Planner(), Tally(len(checked.runs))
    differing = variations([overrides for overrides, _ in checked.runs])
    runs: dict[Path, Run] = {}
    for (overrides, config), varied in zip(checked.runs, differing, strict=True):
        try:
            run = planner.name(config, overrides)
        except (ConfigError, DataError) as error:
            wrong.note(" ".join(varied) or " ".join(overrides) or "conf/", str(error))
        else:
            runs.setdefault(run.folder, run)
    if problems := wrong.problems():
        return None, problems
    first = checked.runs[0][1]
    notes = copies((run.config, run.folder, run.drawn) for run in runs.values())
    folder = Path(first.paths.runs)
    return Plan(list(runs.values()), plain(first.launcher), plain(first.cluster), folder, tuple(notes)), []


def short_names(runs: Sequence[Run]) -> dict[Path, str]:
    """Returns for each planned run, by its folder, the keys and values in which it differs from the others."""
    differing = variations([run.overrides for run in runs])
    return {
        run.folder: " ".join(varied) or title_of(run.folder)
        for run, varied in zip(runs, differing, strict=True)
    }


def state_of(run: Run) -> str:
    """Returns "new", or the state in the run's folder."""
    if not run.folder.is_dir():
        return "new"
    status = RunFolder(run.folder).status()
    return "new" if status is None else str(status.get("state", "new"))
