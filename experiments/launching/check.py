"""From a command line with several values to checked configurations, without torch, and all that is wrong at once."""

import hashlib
import importlib.util
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from experiments.config.combinations import missing_packages
from experiments.config.compose import compose
from experiments.config.expand import expand, replaced
from experiments.config.problems import Problem
from experiments.config.run_config import RunConfig
from experiments.launching.search_space import Space, read_space
from experiments.launching.sweep_file import read_sweep

# One step of each run, with its own model, batch and prompts, and as little evaluation as there can be.
SMOKE = ("debug=step", "budget.steps=1", "task.dev=2", "task.test=2", "select=last", "save=false")
SHARED = ("launcher", "cluster", "paths")  # of a sweep, not of its runs
_PLACES = 4  # where one sentence is said at most


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. file: of sweeps/, or None. name: of the sweep's folder, or None."""

    overrides: Sequence[str]
    file: str | None = None
    name: str | None = None
    dry: bool = False
    smoke: bool = False
    rerun: bool = False
    trials: int | None = None

    @property
    def again(self) -> bool:
        """Whether what has ended is run again: also a smoke, which is asked for after every change of the code."""
        return self.rerun or self.smoke


@dataclass
class Checked:
    """A sweep's name, the overrides and the complete configuration of each run, and what is wrong.

    space: of a search, whose runs here are those that show what could be wrong with any.
    """

    name: str
    runs: list[tuple[list[str], RunConfig]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    space: Space | None = None


def check(asked: Asked) -> Checked:
    """Composes every run. A problem is told once, with how many runs have it."""
    name, sweep, problems, space = _expanded(asked)
    result = Checked(name, problems=problems, space=space)
    trees: dict[tuple[str, ...], DictConfig] = {}
    wrong = Tally(len(sweep))
    for overrides in sweep:
        composed = compose(overrides, trees)
        for problem in [*composed.problems, *missing_packages(composed.parts)]:
            wrong.note(problem.where, problem.what)
        if composed.config is not None:
            result.runs.append((overrides, composed.config))
    configs = [config for _, config in result.runs]
    for key in SHARED:
        if any(getattr(config, key) != getattr(configs[0], key) for config in configs):
            what = (
                f"All runs of a sweep have the same {key}, and these differ. Launch them one after the other."
            )
            result.problems.append(Problem(key, what))
    result.problems += wrong.problems()
    if configs:
        result.problems += _site_problems(configs, asked.dry)
    return result


def _site_problems(configs: Sequence[RunConfig], dry: bool) -> list[Problem]:
    """Returns what keeps a sweep from SLURM: programs that are missing, and several tasks on one device."""
    if configs[0].launcher.name != "slurm":
        return []
    problems = []
    if not dry and (missing := missing_programs()):
        problems.append(Problem("launcher=slurm", missing))
    tasks = configs[0].cluster.tasks
    for config in configs if tasks > 1 else ():
        model = config.model
        named = next((key for key in ("device", "device_map") if one_device(getattr(model, key))), None)
        if named is not None:
            what = (
                f"It names devices, and cluster.tasks={tasks} processes of a node would all take the same. Take "
                f"model.{named}={'auto' if named == 'device' else 'balanced'}, with which each has its own."
            )
            problems.append(Problem(f"model.{named}={getattr(model, named)}", what))
    return list(dict.fromkeys(problems))


def one_device(choice: Any) -> bool:
    """Returns whether a model.device or model.device_map means certain GPUs, whichever process asks."""
    return isinstance(choice, Mapping) or str(choice).startswith("cuda:")


def missing_programs() -> str | None:
    """A sentence where launcher=slurm cannot submit from this machine."""
    if shutil.which("sbatch") is None:
        return (
            "launcher=slurm needs sbatch, which is not here. Start it on a login node of the cluster, or take "
            "launcher=local."
        )
    if shutil.which("srun") is None:
        return (
            f"launcher=slurm needs srun, which is not beside {shutil.which('sbatch')}: jobs start their tasks by it. "
            "Load the site's module of SLURM, or put the folder that has srun into PATH."
        )
    if importlib.util.find_spec("submitit") is None:
        return "launcher=slurm needs the package submitit: pip install -e '.[slurm]'"
    return None


def _expanded(asked: Asked) -> tuple[str, list[list[str]], list[Problem], Space | None]:
    """The sweep's name, the overrides of each run, what cannot be read, and a search's space."""
    if asked.file is not None:
        name, lines, problems = read_sweep(asked.file, asked.overrides)
    else:
        lines, problems = [list(asked.overrides)], []
        name = hashlib.sha256("\n".join(sorted(asked.overrides)).encode()).hexdigest()[:8]
    name = asked.name or name
    if asked.smoke:
        name += "-smoke"  # also of a name that was said, or a search would count these trials as its own
        lines = [replaced(line, SMOKE) for line in lines]
    if asked.trials is None:
        sweep: list[list[str]] = []
        for line in lines:
            runs, wrong = expand(line)
            sweep += runs
            problems += [problem for problem in wrong if problem not in problems]
        return name, sweep, problems, None
    if len(lines) > 1:
        problems.append(Problem("--trials", "A search has one space; this file's zip gives several."))
    space, wrong = read_space(lines[0] if lines else [])
    return name, space.corners(), [*problems, *wrong], space


class Tally:
    """Problems of the runs of a sweep, each sentence once, in the order of their first appearance."""

    def __init__(self, of: int):
        self._of = of
        self._found: dict[str, list[str]] = {}  # sentence → where, a run each

    def note(self, where: str, what: str) -> None:
        """One run has it."""
        self._found.setdefault(what, []).append(where)

    def problems(self) -> list[Problem]:
        """With how many runs have each, unless all do; of many places the first alone."""
        found = []
        for what, wheres in self._found.items():
            places = Counter(wheres)
            if len(places) > _PLACES:
                places = Counter({f"{wheres[0]} and {len(places) - 1} more": len(wheres)})
            found += [
                Problem(where, what if count == self._of else f"{what} ({count} of {self._of} runs)")
                for where, count in places.items()
            ]
        return found


def varied(overrides: Sequence[str], sweep: Sequence[Sequence[str]]) -> list[str]:
    """The overrides in which a run differs from others of its sweep."""
    return [text for text in overrides if not all(text in other for other in sweep)]
