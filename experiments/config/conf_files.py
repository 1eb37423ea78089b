"""Composes files of conf/ by Hydra, each choice of files once, and gives `methods` of an experiment their place.

A file of conf/experiment may have the key `methods`: values that hold with one optimizer, by its name. Hydra knows no
such table, so the values of the chosen one are stored as a file of a group `methods` while it composes; the list of
conf/config.yaml says where they come.
"""

import functools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

METHODS = "methods"


def read_files(lines: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    """Returns what the chosen files say. lines: such as "optimizer=mezo". folders: conf/, then those with own files.

    Raises what Hydra, OmegaConf and yaml raise for files that cannot be put together.
    """
    return deepcopy(_composed_once(tuple(lines), tuple(folders), _stamp(folders)))


@functools.lru_cache(maxsize=64)  # the runs of a sweep differ in values more than in files
def _composed_once(lines: tuple[str, ...], folders: tuple[Path, ...], stamp: int) -> DictConfig:
    """Composes the files. stamp: of all files, so that they are read anew after a change."""
    whole = [*lines, *search_path(folders)]
    with initialize_config_dir(config_dir=str(folders[0]), version_base="1.3"):
        methods = _methods_of(lines, folders)
        tree = _composed(whole, methods)
        if METHODS in tree and not methods:  # of an experiment that a file of conf/local chose
            tree = _composed(whole, _checked(OmegaConf.to_container(tree[METHODS])))
    with open_dict(tree):
        tree.pop(METHODS, None)
    return tree


def search_path(folders: Sequence[Path]) -> list[str]:
    """Returns the override by which Hydra finds files in the folders behind the first, conf/."""
    others = ",".join("'file://" + str(folder).replace("'", "\\'") + "'" for folder in folders[1:])
    return [f"hydra.searchpath=[{others}]"] if others else []


def _stamp(folders: Sequence[Path]) -> int:
    """Returns a number that changes when a file of configuration is written, added or removed."""
    states = ((path, path.stat()) for folder in folders for path in folder.rglob("*.yaml"))
    return hash(frozenset((path, state.st_mtime_ns, state.st_size) for path, state in states))


def _methods_of(lines: Sequence[str], folders: Sequence[Path]) -> Mapping[str, Any]:
    """Returns `methods` of the experiment that is chosen on the command line; empty without one."""
    names = [line.partition("=")[2] for line in lines if line.startswith("experiment=")]
    paths = [base / "experiment" / f"{name}.yaml" for name in names[-1:] for base in folders]
    path = next((path for path in paths if path.is_file()), None)
    content = None if path is None else OmegaConf.to_container(OmegaConf.load(path))
    return _checked(content.get(METHODS, {})) if isinstance(content, dict) else {}


def _checked(methods: Any) -> Mapping[str, Any]:
    if isinstance(methods, dict) and all(isinstance(values, dict) for values in methods.values()):
        return methods
    raise HydraException(
        f"{METHODS}: it is a mapping of optimizers to values, such as {{mezo: {{optimizer: {{lr: 1e-6}}}}}}."
    )


def _composed(lines: list[str], methods: Mapping[str, Any]) -> DictConfig:
    """Composes by Hydra, with the values of each method stored meanwhile."""
    store = ConfigStore.instance()
    try:
        for name, values in methods.items():
            store.store(name=name, group=METHODS, package="_global_", node=values)
        return compose("config", lines)
    finally:
        store.repo.pop(METHODS, None)  # of this composition alone
