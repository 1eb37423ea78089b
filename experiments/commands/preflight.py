"""What can be said of a run before torch and transformers are imported, which takes seconds.

Files that are not there are told at once. A run that has ended is shown again when its result is surely the one that
this command would find: the folder's configuration says the same, and the contents of model and data, digested by
the very functions that a run uses, give the hash that the folder is named by. Wherever something here is not on this
machine (models and data of the hub), or is shared by several processes, the run proper answers.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

import yaml

from experiments.config.model_config import ModelConfig
from experiments.config.parsing import read
from experiments.config.run_id import FILES, Config, folder_of, hash_of, name_of, seed_of, trains
from experiments.config.task_config import TaskConfig, read_by
from experiments.models.source import check_here, fingerprint, here, infer_family, model_name, read_config
from experiments.tasks.data import split_files
from experiments.tasks.splits import draw_shown, draw_splits
from experiments.tasks.splits import fingerprint as fingerprint_of
from zo.errors import ConfigError, DataError
from zo.rank_env import rank_info


def missing(config: Config) -> list[str]:
    """A sentence for each file of the configuration that is not there."""
    task = read(TaskConfig, config["task"], "task")
    checks = [lambda: check_here(read(ModelConfig, config["model"], "model"))]
    if task.data_dir is not None:
        names = [[task.source.train], [] if task.test_share else task.source.tests]
        checks += [functools.partial(split_files, task, some) for some in names if some]
    checks += [functools.partial(_check_file, key, config["optimizer"].get(key)) for key in FILES]
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except (ConfigError, DataError) as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def _check_file(key: str, path: str | None) -> None:
    try:
        if path is not None:
            open(path, "rb").close()
    except OSError as error:
        raise ConfigError(
            f"optimizer.{key}={path} cannot be read: {error.strerror}. Give a file that is there, or null."
        ) from error


def ended(config: Config) -> tuple[dict[str, Any], Path] | None:
    """The result and the folder of this very run, where it has ended; None also where that takes more to say."""
    if rank_info(os.environ).size > 1:
        return None
    model = read(ModelConfig, config["model"], "model")
    name = name_of(config, model_name(model))
    steps = int(trains(config))  # whether there are any
    above = folder_of(config, name, "").parents[0]
    own = hash_of(config, [], steps)
    for result in sorted(above.glob(f"*/seed{config['seed']}/result.json")):
        # Reading a large model twice would cost more than is saved, so the configurations are compared first.
        if _hash_without_contents(result.with_name("config.yaml"), steps) == own:
            contents = _contents(config, model)
            if contents is None:
                return None
            folder = folder_of(config, name, hash_of(config, contents, steps))
            return (
                (json.loads((folder / result.name).read_text()), folder)
                if (folder / result.name).exists()
                else None
            )
    return None


def _hash_without_contents(path: Path, steps: int) -> str | None:
    try:
        return hash_of(yaml.safe_load(path.read_text()), [], steps)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):  # of another version, or damaged
        return None


def _contents(config: Config, model: ModelConfig) -> list[str] | None:
    """Fingerprints of the model and the data, as the session's; None for the hub's."""
    task = read(TaskConfig, config["task"], "task")
    if task.data_dir is None and task.source.world is None:
        return None
    try:
        check_here(model)
        folder = here(model, Path(config["paths"]["models"]))
        if folder is None:
            return None
        family = model.family or infer_family(read_config(folder), folder)
        fields, seed = sorted(read_by(task, family)), seed_of(config, "split")
        splits = draw_splits(task, fields, seed)
        shown = draw_shown(task, fields, splits, seed)
    except (ConfigError, DataError):
        return None
    return [fingerprint(folder), fingerprint_of(splits, shown)]
