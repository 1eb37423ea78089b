"""Builds everything that a run needs from its configuration: model, task, optimizer, look, batches.

Building twice gives the same bits, so the weights of any recorded step can be rebuilt: build, then replay the journal
up to that step.
"""

import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from experiments.baselines.linear_probe import LinearProbe, output_alone
from experiments.baselines.no_training import NoTraining
from experiments.config.acting import noise_of, settled
from experiments.config.combinations import metric_needs_zeroth_order, probe_needs_whole_model
from experiments.config.peft_config import Head
from experiments.config.run_config import Call, RunConfig
from experiments.config.run_id import current_section, hash_of, method_of, name_of, seed_of
from experiments.models.device import check_devices
from experiments.models.dropping import dropout_of
from experiments.models.loading import Loaded, load
from experiments.models.refusals import check_model
from experiments.models.source import locate
from experiments.peft import attach
from experiments.tasks.draws import Draw, prompts_digest, rows_digest
from experiments.tasks.objectives import GeneratedLoss
from experiments.tasks.task import Task, class_count, load_task
from experiments.training.oom import BackoffLook
from experiments.training.token_count import TokenCount
from zo.errors import ConfigError
from zo.noise import key_of
from zo.optimizers import Optimizer, Probing
from zo.optimizers.firstorder import BACKWARD_COST
from zo.schedules import Schedule
from zo.team import Solo, Team
from zo.training import identity_of
from zo.weights import Weights

Made = TypeVar("Made")
_SMALL = 2_000_000  # weights
_NO_CLOCK = 10**9  # steps that a budget of minutes never reaches


@dataclass(frozen=True)
class Session:
    """Holds a run in memory.

    steps: the number that the budget allows (practically unbounded for a budget of minutes).
    hash: SHA-256 (hex) of all that decides the result but the seed.
    """

    config: RunConfig
    loaded: Loaded
    task: Task
    optimizer: Optimizer
    look: BackoffLook
    schedule: Schedule
    steps: int
    hash: str

    @property
    def name(self) -> str:
        """Returns <model>-<task>-<optimizer>-<peft>."""
        return name_of(self.config, self.loaded.name)

    @property
    def method(self) -> str:
        """Returns the optimizer's name in tables, lower case; zeroshot or icl if nothing is trained."""
        return method_of(self.config)

    @property
    def step_cost(self) -> int:
        """Returns the forward passes that a step counts for; a backward pass counts as three."""
        return self.optimizer.forward_passes + BACKWARD_COST * self.optimizer.backward_passes

    def batch(self, t: int) -> dict[str, torch.Tensor]:
        """Returns the batch of step t, a function of the order's seed and t; epochs are permutations, without gaps."""
        n, size = len(self.task.train), min(self.config.batch.size, len(self.task.train))
        seed = seed_of(self.config, "order")
        positions = range(t * size, (t + 1) * size)
        orders = {epoch: _permutation(n, seed, epoch) for epoch in {position // n for position in positions}}
        return self.task.collate([self.task.train[orders[i // n][i % n]] for i in positions])

    @property
    def dropout(self) -> float:
        """Returns the largest probability of dropout in training; 0 for a method that trains in eval mode."""
        return dropout_of(self.loaded.model) if getattr(self.optimizer, "dropout", False) else 0.0

    def draw(self, start: str) -> Draw:
        """Returns what this run drew, part by part (experiments.tasks.draws). start: digest of its first weights."""
        task, demonstrations = self.task, self.config.task.demonstrations
        steps, fits = self.steps > 0, isinstance(self.optimizer, LinearProbe)
        noise = seed_of(self.config, noise_of(self.config.optimizer.options))
        order = range(len(task.train))
        if steps:
            order = _permutation(len(task.train), seed_of(self.config, "order"), 0)
        return {
            "train": rows_digest(task.train, ordered=False) if steps or fits else None,
            "order": rows_digest([task.train[i] for i in order], ordered=True) if steps or fits else None,
            "dev": rows_digest(task.dev, ordered=False) if steps else None,
            "test": rows_digest(task.test, ordered=False),
            "demonstrations": prompts_digest(task.test) if demonstrations else None,
            "start": start,
            "directions": noise if steps and isinstance(self.optimizer, Probing) else None,
            "dropout": noise if steps and self.dropout > 0.0 else None,
        }

    def token_count(self) -> TokenCount:
        """Returns a function that gives the tokens of the first so many steps."""
        lengths = [self.task.tokens(example) for example in self.task.train]
        order = functools.partial(_permutation, len(lengths), seed_of(self.config, "order"))
        return TokenCount(lengths, min(self.config.batch.size, len(lengths)), order, self.step_cost)

    def header(self) -> dict[str, Any]:
        """Returns the journal's header; a journal with another one is not resumed."""
        return {
            "hash": self.hash,
            "seed": self.config.seed,
            "model": self.loaded.fingerprint,
            "data": self.task.fingerprint,
            "padding": "skipped" if self.config.batch.skip_padding else "evaluated",
            **identity_of(self.optimizer),
        }


def build(config: RunConfig, team: Team | None = None) -> Session:
    """Loads and constructs everything.

    team: the processes that will share the run.
    Raises ConfigError or DataError for what cannot work. Devices, optimizer and schedule are checked first, so that
    their errors are listed before a model is loaded.
    """
    schedule, trial = _check_constructors(config, team or Solo(), here=True)
    choice, models = config.model, Path(config.paths.models)
    locate(choice, models)  # fetches it where it is not here
    check_model(choice, config.peft.name, models)
    probed = isinstance(trial, LinearProbe)
    loaded = attach(
        load(
            config.model,
            classes=class_count(config.task),
            seed=seed_of(config, "init"),
            models=Path(config.paths.models),
        ),
        Head("head") if probed else config.peft,
        seed_of(config, "init"),
    )
    loaded = output_alone(loaded) if probed else loaded
    _set_threads(config.threads, loaded)
    task = load_task(config.task, loaded, seed_of(config, "split"), seed_of(config, "test"))
    if config.select == "best" and not task.dev:
        raise ConfigError(
            "select = best chooses a step on dev, but task.dev = 0. Set task.dev, or select=last."
        )
    weights = Weights(loaded.model, update=config.update, kernels=config.kernels)
    steps = budgeted_steps(config, trial)
    scheduled = not config.trains_until_clock and not isinstance(trial, NoTraining)
    lr = {"lr": schedule.over(config.optimizer.lr, steps)} if scheduled else {}
    optimizer = _optimizer(config, weights, **lr)
    look = BackoffLook(
        loaded.model,
        task.objective,
        optimizer,
        probes_per_forward=config.probes_per_forward,
        micro=config.batch.micro,
        materialise=isinstance(task.objective, GeneratedLoss),
        skip_padding=config.batch.skip_padding,
    )
    decides = hash_of(config, [loaded.fingerprint, task.sources], steps)
    return Session(config, loaded, task, optimizer, look, schedule, steps, decides)


def steps_of(config: RunConfig) -> int:
    """Returns how many steps the budget allows, without a model. Raises ConfigError for numbers out of range."""
    _, optimizer = _check_constructors(config, Solo(), here=False)
    return budgeted_steps(config, optimizer)


def _check_constructors(config: RunConfig, team: Team, *, here: bool) -> tuple[Schedule, Optimizer]:
    """Returns the schedule and an optimizer of one number. Raises one ConfigError with every problem of them.

    here: True if the run is on this machine, which must then have its GPUs.
    """
    problems: list[str] = []

    def attempt(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ConfigError as error:
            problems.append(str(error))

    if here:
        attempt(lambda: check_devices(config.model))
    schedule = attempt(lambda: _instantiate("schedule", config.schedule, Schedule))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer of the run will warn
        optimizer: Any = attempt(lambda: trial_optimizer(config))
    attempt(lambda: optimizer is None or team.check(optimizer))
    attempt(lambda: optimizer is None or budgeted_steps(config, optimizer))
    if config.task.objective == "metric" and optimizer is not None and optimizer.backward_passes:
        problems.append(
            f"task.objective=metric: {metric_needs_zeroth_order(config.task.metric, type(optimizer).__name__)}"
        )
    if isinstance(optimizer, LinearProbe) and config.peft.name not in ("none", "head"):
        problems.append(f"peft={config.peft.name}: {probe_needs_whole_model()}")
    if problems:
        raise ConfigError("\n".join(problems))
    assert optimizer is not None
    return schedule, optimizer


def trial_optimizer(config: RunConfig) -> Optimizer:
    """Returns the optimizer on a single weight, which checks its arguments and knows what a step costs."""
    return _optimizer(config, Weights([("w", torch.nn.Parameter(torch.zeros(1)))], kernels="eager"))


def _optimizer(config: RunConfig, weights: Weights, **scheduled: Any) -> Optimizer:
    """Returns the optimizer of these weights. scheduled: lr as a function of the step, in place of the number."""
    seed = seed_of(config, noise_of(config.optimizer.options))
    return _instantiate(
        "optimizer",
        config.optimizer,
        Optimizer,
        params=weights,
        seed=seed,
        on_nan=config.stop.on_nan,
        **scheduled,
    )


def _instantiate(group: str, call: Call, base: type[Made], **extra: Any) -> Made:
    """Returns an object of the class that the section's `_target_` names; nothing else calls a `_target_`.

    Only a class derived from `base` is called: run folders are passed on, and replaying one must not run whatever its
    config.yaml names.
    """
    section = current_section(call.as_dict())
    target = str(section["_target_"])
    module, _, name = target.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:  # ValueError: a name without a module
        raise ConfigError(
            f"{group}._target_ = {target} cannot be imported: {error}. Name a class by its full path, and install the "
            "package that it is in."
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ConfigError(
            f"{group}._target_ = {target} is no class derived from {base.__module__}.{base.__name__}, and nothing else "
            f"is called. Name one that is, such as those in conf/{group}."
        )
    options = settled(section)
    del options["_target_"]
    return kind(**(options | extra))


def _set_threads(threads: int | None, loaded: Loaded) -> None:
    """Sets torch's threads; one for a small model, which two make slower, above all on busy cores."""
    if threads is None and sum(parameter.numel() for parameter in loaded.model.parameters()) < _SMALL:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)


def budgeted_steps(config: RunConfig, optimizer: Optimizer) -> int:
    """Returns how many steps the budget allows; practically unbounded for a budget of minutes."""
    budget = config.budget
    if isinstance(optimizer, NoTraining):
        return 0
    if budget.steps is not None:
        return budget.steps
    if budget.minutes is not None:
        return _NO_CLOCK
    cost = optimizer.forward_passes + BACKWARD_COST * optimizer.backward_passes
    assert budget.forward_passes is not None  # exactly one kind is set
    if budget.forward_passes < cost:
        raise ConfigError(
            f"budget.forward_passes = {budget.forward_passes} is less than the {cost} that one step of "
            f"{type(optimizer).__name__} costs. Raise it."
        )
    return budget.forward_passes // cost


def _permutation(n: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(key_of(seed, epoch, 0) >> 1)
    return torch.randperm(n, generator=generator).tolist()
