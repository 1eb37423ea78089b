"""Reads files of sweeps/, which describe many runs.

overrides   of every run, as on the command line                       [task=sst2, peft=none]
grid        every combination of these values                          {optimizer: [mezo, fzoo], batch.size: [8, 16]}
zip         values that belong together, one line each                 [{optimizer: mezo, optimizer.lr: 1e-4}, ...]
seeds       a list, or how many from 0 on                              3
budget      as the section of that name                                {forward_passes: 20000}

A text of several values in Hydra's grammar stands for all of them: in a line of zip, `optimizer.lr: 1e-4,1e-3`
tries both for that line alone. Overrides on the command line replace the file's for the same keys.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.config.expand import MAX_RUNS, replaced
from experiments.config.own_files import own_folders
from experiments.config.problems import Problem, did_you_mean, one_of
from experiments.rundir.code_places import shipped

FOLDER = shipped("sweeps")
KEYS = ("overrides", "grid", "zip", "seeds", "budget")


def read_sweep(name: str, above: Sequence[str]) -> tuple[str, list[list[str]], list[Problem]]:
    """Returns a file's name, its overrides in Hydra's grammar (one list per line of zip), and its problems.

    name: a path, or a name of sweeps/. above: overrides of the command line.
    """
    path = _find(name)
    if path is None:
        known = sorted(p.stem for folder in _folders() for p in folder.glob("*.yaml"))
        what = f"There is no such file.{did_you_mean(name, known)} Files of sweeps/: {one_of(known)}."
        return name, [], [Problem(f"sweep={name}", what)]
    problems: list[Problem] = []
    content = _read(path, problems)
    return path.stem, [] if problems else [replaced(line, above) for line in _lines(content)], problems


def _find(name: str) -> Path | None:
    """Returns the file itself, or the one with that name in sweeps/ or in sweeps/ of the user's own folder."""
    named = [path for folder in _folders() for path in (folder / f"{name}.yaml", folder / name)]
    below = [folder.parent / name for folder in _folders()] if name.startswith("sweeps/") else []
    for path in (Path(name), *named, *below):
        if path.is_file():
            return path
    return None


def _folders() -> list[Path]:
    return [FOLDER, *(folder / "sweeps" for folder in own_folders())]


def _read(path: Path, problems: list[Problem]) -> dict[str, Any]:
    """Reads the file by OmegaConf, for which 1e-4 is a number."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        problems.append(Problem(str(path), f"This cannot be read: {str(error).splitlines()[0]}"))
        return {}
    if not isinstance(content, dict):
        problems.append(Problem(str(path), f"A sweep is a mapping with the keys {', '.join(KEYS)}."))
        return {}
    shapes: dict[str, tuple[type, ...]] = {
        "overrides": (list,), "grid": (dict,), "zip": (list,), "seeds": (int, list), "budget": (dict,)
    }  # fmt: skip
    for key, value in content.items():
        where = f"{path}: {key}"
        if key not in KEYS:
            what = f"There is no such key.{did_you_mean(str(key), KEYS)} Keys: {', '.join(KEYS)}."
            problems.append(Problem(where, what))
        elif not isinstance(value, shapes[key]):
            words = " or ".join({list: "a list", dict: "a mapping", int: "a number"}[k] for k in shapes[key])
            problems.append(Problem(where, f"It takes {words}; see experiments/launching/sweep_file.py."))
        elif key == "seeds" and isinstance(value, int) and not 1 <= value <= MAX_RUNS:
            problems.append(Problem(where, f"It takes a list, or a whole number of 1 to {MAX_RUNS:,}."))
        elif isinstance(value, list) and key == "zip" and not all(isinstance(line, dict) for line in value):
            problems.append(Problem(where, "Each line of it is a mapping of keys to values."))
    return {str(key): value for key, value in content.items()}


def _lines(content: Mapping[str, Any]) -> list[list[str]]:
    """Returns overrides in Hydra's grammar, one list for each line of zip."""
    common = [str(text) for text in content.get("overrides", [])]
    common += [f"{key}={_choices(values)}" for key, values in content.get("grid", {}).items()]
    common += [f"budget.{key}={text_of(value)}" for key, value in content.get("budget", {}).items()]
    seeds = content.get("seeds", [])
    seeds = list(range(seeds)) if isinstance(seeds, int) else seeds
    last = [f"seed={_choices(seeds)}"] if seeds else []
    zipped = content.get("zip") or [{}]
    return [
        [*replaced(common, [f"{key}={_raw(value)}" for key, value in line.items()]), *last] for line in zipped
    ]


def _choices(values: Any) -> str:
    """Returns a list as several values; a text is in Hydra's grammar already."""
    return ",".join(text_of(value) for value in values) if isinstance(values, list) else _raw(values)


def _raw(value: Any) -> str:
    return value if isinstance(value, str) else text_of(value)


def text_of(value: Any) -> str:
    """Returns a value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{text_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(text_of(item) for item in value) + "]"
    if isinstance(value, str) and not all(letter.isalnum() or letter in "-_./:+" for letter in value):
        escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
