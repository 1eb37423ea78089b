"""Composes a choice of files by Hydra, from conf/ and folders beside it, once for all runs of a sweep."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict

METHODS = "methods"  # a key of an experiment's file: the values of each method, by optimizer=NAME


@functools.lru_cache(maxsize=64)  # the runs of a sweep differ in values more than in files
def composed(lines: tuple[str, ...], folders: tuple[Path, ...], stamp: int) -> DictConfig:
    """Returns what Hydra makes of a choice of files; callers copy it before they write to it.

    folders: conf/, then those with a user's own files. stamp: `stamp_of` them, so that the result is made anew after a
    change.
    """
    lines = (*lines, *search_path(folders))
    with initialize_config_dir(config_dir=str(folders[0]), version_base="1.3"):
        methods = _methods_of(lines, folders)
        tree = _once(lines, methods)
        if METHODS in tree and methods is None:  # of an experiment that a file of conf/local chose
            tree = _once(lines, OmegaConf.to_container(tree[METHODS]))
    with open_dict(tree):
        tree.pop(METHODS, None)
    return tree


def _methods_of(lines: Sequence[str], folders: Sequence[Path]) -> Any:
    """Returns `methods` of the experiment that is chosen on the command line, or None."""
    names = [line.partition("=")[2] for line in lines if line.startswith("experiment=")]
    paths = [base / "experiment" / f"{name}.yaml" for name in names[-1:] for base in folders]
    path = next((path for path in paths if path.is_file()), None)
    content = None if path is None else OmegaConf.to_container(OmegaConf.load(path))
    return content.get(METHODS) if isinstance(content, dict) else None


def _once(lines: Sequence[str], methods: Any) -> DictConfig:
    """Composes by Hydra. methods: values by optimizer, which take the place that conf/config.yaml names `methods`."""
    store = ConfigStore.instance()
    try:
        for name, values in (methods or {}).items():
            store.store(name=name, group=METHODS, package="_global_", node=values)
        return hydra_compose("config", list(lines))
    finally:
        store.repo.pop(METHODS, None)  # of this composition alone


def stamp_of(folders: Sequence[Path]) -> int:
    """Returns a number that changes when a file of configuration is written, added or removed."""
    states = ((path, path.stat()) for folder in folders for path in folder.rglob("*.yaml"))
    return hash(frozenset((path, state.st_mtime_ns, state.st_size) for path, state in states))


def search_path(folders: Sequence[Path]) -> list[str]:
    """Returns the override by which Hydra finds files in the folders behind the first, conf/."""
    others = ",".join("'file://" + str(folder).replace("'", "\\'") + "'" for folder in folders[1:])
    return [f"hydra.searchpath=[{others}]"] if others else []
