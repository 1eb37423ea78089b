"""Runs as SLURM jobs, through submitit: one array for each class of resources, cut to the site's limit.

A job gets the path of its run's folder; what it runs is frozen there (experiments.launching.submission). What
submitit pickles is that path and the name of a function, so a requeued job cannot begin from something stale.
"""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from experiments.config.launcher_config import Cluster
from experiments.config.saved import load_config
from experiments.launching.job import job
from experiments.launching.submission import NAME, submission
from experiments.rundir.folder import RunFolder
from zo.errors import ConfigError

MISSING = (
    "launcher=slurm needs sbatch, which is not here. Start it on a login node of the cluster, or take "
    "launcher=local."
)


# Python takes seconds to be able to answer SIGUSR2, which would end it before; blocked, the signal waits.
BLOCKED = "env --block-signal=USR2"
WAITING = f'WAITING=env; {BLOCKED} true 2> /dev/null && WAITING="{BLOCKED}"'


@dataclass(frozen=True)
class Resources:
    """What a job asks for."""

    gpus: int
    mem: int
    minutes: int


def resources_of(config: Mapping[str, Any], cluster: Cluster) -> Resources:
    """The site's word, else the model's."""
    model = config["model"]["resources"]
    values = {name: getattr(cluster, name) for name in ("gpus", "mem", "minutes")}
    return Resources(**{name: model[name] if value is None else value for name, value in values.items()})


def arrays(
    folders: Sequence[Path], asked: Sequence[Resources], most: int
) -> Iterator[tuple[Resources, list[Path]]]:
    """Runs of equal resources together, `most` an array, in their order."""
    paired = sorted(zip(folders, asked, strict=True), key=lambda pair: str(pair[1]))
    for resources, group in groupby(paired, key=lambda pair: pair[1]):
        members = [folder for folder, _ in group]
        for start in range(0, len(members), most):
            yield resources, members[start : start + most]


def parameters(resources: Resources, cluster: Cluster, code: Path, name: str) -> dict[str, Any]:
    """What submitit's SlurmExecutor is told."""
    flags = ("partition", "account", "qos", "constraint", "exclude", "nodelist")
    said: dict[str, Any] = {flag: value for flag in flags if (value := getattr(cluster, flag)) is not None}
    if resources.gpus:
        said["gpus_per_node"] = resources.gpus
    if cluster.cpus is not None:
        said["cpus_per_task"] = cluster.cpus
    exports = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    setup = [f"export {key}={shlex.quote(value)}" for key, value in exports.items()]
    return said | {
        "job_name": name,
        "time": resources.minutes,
        "mem": f"{resources.mem}GB",
        "ntasks_per_node": cluster.tasks,
        "array_parallelism": cluster.parallel,
        "signal_delay_s": cluster.signal_seconds,
        "setup": [*setup, *cluster.setup, WAITING],
        "srun_args": ["--kill-on-bad-exit=1"],  # a failure of one task is the run's
        "additional_parameters": {"requeue": True, **cluster.more},
    }


def submit(folders: Sequence[Path], settings: Mapping[str, Any], name: str, logs: Path) -> list[str]:
    """Submits frozen runs; what the scheduler refused, in its words, [] when it took all.

    logs: folder of submitit's files. Raises ConfigError where there is no SLURM or no submitit.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(MISSING)
    try:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}. launcher=slurm needs submitit: pip install -e '.[slurm]'") from None

    cluster = Cluster(**settings)
    asked = [resources_of(load_config(folder), cluster) for folder in folders]
    refused: list[str] = []
    for resources, members in arrays(folders, asked, cluster.max_array):
        frozen = submission(members[0])
        assert frozen is not None
        python = cluster.python or shlex.quote(sys.executable)
        executor = submitit.SlurmExecutor(logs, python=f"$WAITING {python}")
        with submitit.helpers.clean_env():
            try:
                executor.update_parameters(**parameters(resources, cluster, Path(frozen["code"]), name))
                jobs = executor.map_array(job, [str(folder.resolve()) for folder in members])
            except (FailedJobError, FailedSubmissionError) as error:
                words = _words(error)
                refused.append(words)
                for folder in members:
                    RunFolder(folder).write_status("failed", error=f"not submitted: {words}")
                continue
        for folder, made in zip(members, jobs, strict=True):
            _note(folder, made.job_id, str(made.paths.stderr))
    return refused


def _words(error: Exception) -> str:
    """What sbatch said, without submitit's frame around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip().startswith("sbatch:")]
    return " ".join(lines) or str(error).strip()


def _note(folder: Path, job_id: str, log: str) -> None:
    """The job's number, for status, cancel and logs."""
    frozen = submission(folder)
    RunFolder(folder).write(NAME, {**(frozen or {}), "job": job_id, "scheduler_log": log})
