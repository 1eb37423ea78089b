"""Checks a run before torch and transformers are imported, which takes seconds.

Missing files are reported at once. If the run has ended and its inputs are unchanged, the stored result is printed: the
folder's configuration is the same, and the contents of model and data, digested by the functions that a run uses, give
the hash in the folder's name. Where the inputs are not on this machine (models and data of the hub), or several
processes share the run, the run itself decides.
"""

import functools
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.config.run_config import RunConfig
from experiments.config.run_id import FILES, folder_of, hash_of, name_of, trains
from experiments.models.source import check_here, fingerprint, here, model_name
from experiments.rundir.folder import RunFolder
from experiments.rundir.json_files import read_configuration, read_result
from experiments.tasks.data import split_files
from experiments.tasks.splits import digest_of, sources_of
from zo.errors import ConfigError, DataError, JournalError
from zo.rank_env import rank_info


def missing(config: RunConfig) -> list[str]:
    """A sentence for each file of the configuration that is not there."""
    task = config.task
    models = Path(config.paths.models)
    checks = [lambda: check_here(config.model, models)]
    if task.data_dir is not None:
        names = [[task.source.train], [] if task.test_share else task.source.tests]
        checks += [functools.partial(split_files, task, some) for some in names if some]
    checks += [functools.partial(_check_file, key, config.optimizer.options.get(key)) for key in FILES]
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


def ended(config: RunConfig) -> tuple[dict[str, Any], Path] | None:
    """Returns result and folder of this run if it has ended; None if it has not, or if that is not known yet."""
    if rank_info(os.environ).size > 1:
        return None
    name = name_of(config, model_name(config.model))
    steps = int(trains(config))  # whether there are any
    above = folder_of(config, name, "").parents[0]
    own = hash_of(config, [], steps)
    for result in sorted(above.glob(f"*/seed{config.seed}/result.json")):
        # Reading a large model twice would cost more than is saved, so the configurations are compared first.
        if _hash_without_contents(result.with_name("config.yaml"), steps) == own:
            contents = _contents(config)
            if contents is None:
                return None
            folder = folder_of(config, name, hash_of(config, contents, steps))
            # A damaged result counts as none: the run resumes and writes it again.
            stored, _ = read_result(folder)
            return None if stored is None else (stored, folder)
    return None


def tidy(config: RunConfig, path: Path) -> None:
    """Cleans up after a process that was killed once it had written the result, if this user may write there."""
    with suppress(JournalError, OSError):
        folder = RunFolder(path)
        if not folder.is_tidy() or (path / "lock").exists():
            with folder.locked():  # a lock file that was left behind goes with the context
                if not folder.is_tidy():
                    folder.tidy(config.recorded())


def _hash_without_contents(path: Path, steps: int) -> str | None:
    try:
        return hash_of(read_configuration(path.parent)[0], [], steps)
    except (OSError, KeyError, TypeError, AttributeError):  # of another version, or damaged
        return None


def _contents(config: RunConfig) -> list[str] | None:
    """Fingerprints of the model and of the data's sources, as the session's; None for the hub's."""
    model, task = config.model, config.task
    if task.data_dir is None and task.source.world is None:
        return None
    try:
        models = Path(config.paths.models)
        check_here(model, models)
        folder = here(model, models)
        if folder is None:
            return None
        return [fingerprint(folder), digest_of(task, sources_of(task))]
    except (ConfigError, DataError):
        return None
