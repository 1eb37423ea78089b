"""Prints where everything comes from (--info): version, commit, folders, and the files of a configuration."""

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from experiments.config import compose, own_files
from experiments.config.conf_files import search_path
from experiments.config.run_config import RunConfig
from experiments.rundir.code_places import ROOT
from experiments.rundir.provenance import source
from zo.version import version


def info(overrides: Sequence[str], config: RunConfig) -> str:
    """Returns the text for a configuration that is composed of these overrides."""
    code = source(ROOT)
    commit = f", commit {code['commit']}" if code["commit"] else ""
    folder, named_by = own_files.own_folder()
    own = "" if folder.is_dir() else ", which is not there"
    lines = [
        f"zo {version()}{commit}{' with changes' if code['dirty'] else ''}",
        f"Python {platform.python_version()}, {sys.executable}",
        f"code     {ROOT}",
        f"conf     {compose.CONF}",
        f"own conf {folder} ({named_by}){own}",
        f"runs     {Path(config.paths.runs).resolve()}",
        f"models   {Path(config.paths.models).resolve()}",
        "",
        "Files of this configuration; a later one replaces values of those before it:",
        *(f"  {path}" for path in files(overrides)),
    ]
    return "\n".join(lines) + "\n"


def files(overrides: Sequence[str]) -> list[Path]:
    """Returns the files that Hydra composes, in their order."""
    options, places = compose.groups(), compose.places()
    choices = [text for text in overrides if text.partition("=")[0] in options]
    with initialize_config_dir(config_dir=str(compose.CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        search = search_path(places)
        found = loader.compute_defaults_list("config", [*choices, *search], RunMode.RUN).defaults
    names = [
        entry.config_path
        for entry in found
        if entry.config_path and not entry.config_path.startswith("hydra")
    ]
    paths = [
        next((file for place in places if (file := place / f"{name}.yaml").is_file()), None) for name in names
    ]
    return [path for path in dict.fromkeys(paths) if path is not None]
