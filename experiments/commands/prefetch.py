"""python -m experiments prefetch: model and data of runs brought to this machine, for nodes without network."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.run_config import RunConfig
from experiments.models.source import prefetch as prefetch_model
from experiments.tasks.data import read_split
from zo.errors import ConfigError, DataError


def prefetch(configs: Sequence[RunConfig]) -> int:
    """Fetches missing models and data and prints each; returns 0. Raises ConfigError that lists all failures."""
    problems: dict[str, None] = {}
    for models, choice in _distinct([(config.paths.models, config.model) for config in configs]):
        try:
            folder, done = prefetch_model(choice, Path(models))
            _say(f"model {choice.path}: {done} ({folder})")
        except ConfigError as error:
            problems[str(error)] = None
    for choice in _distinct([config.task for config in configs]):
        if choice.source.world is not None:
            _say(f"task {choice.name}: part of the program")
            continue
        try:
            # With a share, test is of the train split.
            tests = () if choice.test_share else (choice.source.tests,)
            for names in ((choice.source.train,), *tests):
                table = read_split(choice, names)
                _say(f"task {choice.name}: {len(table.rows):,} rows of {table.where}")
        except DataError as error:
            problems[str(error)] = None
    if problems:
        raise ConfigError("\n".join(problems))
    return 0


def _distinct(choices: Sequence[Any]) -> list[Any]:
    """Each once, in order; choices hold lists, so they are compared, not hashed."""
    distinct: list[Any] = []
    for choice in choices:
        if choice not in distinct:
            distinct.append(choice)
    return distinct


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
