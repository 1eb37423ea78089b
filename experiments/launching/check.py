"""Turns a command line with several values into checked configurations, without torch; lists all problems."""

import hashlib
import importlib.util
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.config.combinations import missing_packages
from experiments.config.compose import compose
from experiments.config.expand import expand, replaced
from experiments.config.problems import Problem
from experiments.config.run_config import RunConfig
from experiments.launching.search_space import Space, read_space
from experiments.launching.sweep_file import read_sweep
from experiments.rundir.code_places import install

# One step of each run, with its own model, batch and prompts, and as little evaluation as there can be.
SMOKE = ("debug=step", "budget.steps=1", "task.dev=2", "task.test=2", "select=last", "save=false")
SHARED = ("launcher", "cluster", "paths")  # belong to a sweep, not to its runs
MAX_LOCATIONS = 4  # listed per problem


@dataclass(frozen=True)
class Asked:
    """The request of a command line. file: of sweeps/, or None. name: of the sweep's folder, or None."""

    overrides: Sequence[str]
    file: str | None = None
    name: str | None = None
    dry: bool = False
    smoke: bool = False
    rerun: bool = False
    trials: int | None = None

    @property
    def again(self) -> bool:
        """Returns True if finished runs are repeated: with --rerun, and with --smoke."""
        return self.rerun or self.smoke


@dataclass
class Checked:
    """The result of checking a sweep: its name, each run's overrides and configuration, and all problems.

    space: of a search, whose runs here are those that show what could be wrong with any.
    """

    name: str
    runs: list[tuple[list[str], RunConfig]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    space: Space | None = None


def check(request: Asked) -> Checked:
    """Composes every run. Each problem is listed once, with the number of runs that have it."""
    name, sweep, problems, space = _expanded(request)
    result = Checked(name, problems=problems, space=space)
    wrong = Tally(len(sweep))
    for overrides in sweep:
        composed = compose(overrides)
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
        result.problems += _site_problems(configs, request.dry)
    return result


def _site_problems(configs: Sequence[RunConfig], dry: bool) -> list[Problem]:
    """Returns reasons why SLURM cannot run a sweep: missing programs, several tasks on one device."""
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
                f"It names devices, so all cluster.tasks={tasks} processes of a node would use the same ones. Use "
                f"model.{named}={'auto' if named == 'device' else 'balanced'}, which gives each process its own."
            )
            problems.append(Problem(f"model.{named}={getattr(model, named)}", what))
    return list(dict.fromkeys(problems))


def one_device(choice: Any) -> bool:
    """Returns True if a model.device or model.device_map names certain GPUs for every process."""
    return isinstance(choice, Mapping) or str(choice).startswith("cuda:")


def missing_programs() -> str | None:
    """Returns a sentence if launcher=slurm cannot submit from this machine, else None."""
    if shutil.which("sbatch") is None:
        return (
            "launcher=slurm needs sbatch, which is not installed here. Run it on a login node of the cluster, or use "
            "launcher=local."
        )
    if shutil.which("srun") is None:
        return (
            f"launcher=slurm needs srun to start tasks, but finds only {shutil.which('sbatch')}. "
            "Load the site's module of SLURM, or add srun's folder to PATH."
        )
    if importlib.util.find_spec("submitit") is None:
        return f"launcher=slurm needs the package submitit: {install('slurm')}"
    return None


def _expanded(request: Asked) -> tuple[str, list[list[str]], list[Problem], Space | None]:
    """Returns the sweep's name, the overrides of each run, the problems, and a search's space."""
    if request.file is not None:
        name, lines, problems = read_sweep(request.file, request.overrides)
    else:
        lines, problems = [list(request.overrides)], []
        name = hashlib.sha256("\n".join(sorted(request.overrides)).encode()).hexdigest()[:8]
    name = request.name or name
    if request.smoke:
        name += "-smoke"  # also if a name was given: a search would count these trials as its own
        lines = [replaced(line, SMOKE) for line in lines]
    if request.trials is None:
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
    """Collects the problems of a sweep's runs, each sentence once, in the order of their first appearance."""

    def __init__(self, run_count: int):
        self._run_count = run_count
        self._found: dict[str, list[str]] = {}  # sentence → location in each run that has it

    def note(self, where: str, what: str) -> None:
        """Records a problem of one run."""
        self._found.setdefault(what, []).append(where)

    def problems(self) -> list[Problem]:
        """Returns the problems with their counts, unless all runs have them.

        Of many locations only the first is named.
        """
        problems = []
        for what, wheres in self._found.items():
            places = Counter(wheres)
            if len(places) > MAX_LOCATIONS:
                places = Counter({f"{wheres[0]} and {len(places) - 1} more": len(wheres)})
            problems += [
                Problem(
                    where, what if count == self._run_count else f"{what} ({count} of {self._run_count} runs)"
                )
                for where, count in places.items()
            ]
        return problems


def variations(sweep: Sequence[Sequence[str]]) -> list[list[str]]:
    """Returns for each run of a sweep the overrides in which it differs from others."""
    shared = set(sweep[0]).intersection(*sweep[1:]) if sweep else set()
    return [[text for text in overrides if text not in shared] for overrides in sweep]
