"""Submits runs as SLURM jobs through submitit: one array per class of resources, within the site's limit.

A job gets the path of its run's folder; what it runs is frozen there (experiments.launching.submission). What
submitit pickles is that path and the name of a function, so a requeued job cannot begin from something stale.

A lock in each run's folder is held from asking squeue to noting the job's number: of two commands that want to
submit a run at the same time one finds the lock taken, or the job in the queue.
"""

import io
import resource
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from experiments.config.launcher_config import Cluster
from experiments.config.run_config import RunConfig
from experiments.launching.check import missing_programs
from experiments.launching.job import job
from experiments.launching.states import with_jobs
from experiments.launching.submission import LOCK, NAME, Pending, submission
from experiments.rundir.code_places import install
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import Lock
from zo.errors import ConfigError, Locked

# Python takes seconds to be able to answer SIGUSR2, which would end it before; blocked, the signal waits.
BLOCKED = "env --block-signal=USR2"
WAITING = f'WAITING=env; {BLOCKED} true 2> /dev/null && WAITING="{BLOCKED}"'
_OTHER_FILES = 200  # that the process may have open beside the locks of an array


@dataclass(frozen=True)
class Resources:
    """The resources of one process of a run: GPUs, GiB of memory, and minutes."""

    gpus: int
    mem: int
    minutes: int


@dataclass
class Submitted:
    """The scheduler's refusals, in its words, and the runs that another command starts or has started."""

    refused: list[str] = field(default_factory=list)
    elsewhere: list[Path] = field(default_factory=list)


def resources_of(config: RunConfig, cluster: Cluster) -> Resources:
    """Returns the site's resources, else the model's."""
    model = config.model.resources
    values = {name: getattr(cluster, name) for name in ("gpus", "mem", "minutes")}
    return Resources(
        **{name: getattr(model, name) if value is None else value for name, value in values.items()}
    )


def arrays(
    folders: Sequence[Path], asked: Sequence[Resources], most: int
) -> Iterator[tuple[Resources, list[Path]]]:
    """Groups runs of equal resources into arrays of at most `most`, in order."""
    paired = sorted(zip(folders, asked, strict=True), key=lambda pair: str(pair[1]))
    for resources, group in groupby(paired, key=lambda pair: pair[1]):
        members = [folder for folder, _ in group]
        for start in range(0, len(members), most):
            yield resources, members[start : start + most]


def parameters(
    resources: Resources, cluster: Cluster, code: Path, name: str, paths: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the parameters of submitit's SlurmExecutor.

    paths: the user's PYTHONPATH, which comes after the frozen code.
    """
    flags = ("partition", "account", "qos", "constraint", "exclude", "nodelist")
    flags_given: dict[str, Any] = {
        flag: value for flag in flags if (value := getattr(cluster, flag)) is not None
    }
    if resources.gpus:
        flags_given["gpus_per_node"] = resources.gpus * cluster.tasks
    if cluster.cpus is not None:
        flags_given["cpus_per_task"] = cluster.cpus
    exports = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    setup = [f"export {key}={shlex.quote(value)}" for key, value in exports.items()]
    # After the site's lines, or a module that is loaded there would put its own packages before the frozen code.
    first = shlex.quote(":".join([str(code), *paths]))
    setup += [*cluster.setup, f"export PYTHONPATH={first}${{PYTHONPATH:+:$PYTHONPATH}}"]
    return flags_given | {
        "job_name": name,
        "time": resources.minutes,
        "mem": f"{resources.mem * cluster.tasks}GB",
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks,
        "array_parallelism": cluster.parallel,
        "signal_delay_s": cluster.signal_seconds,
        "setup": [*setup, WAITING],
        "srun_args": ["--kill-on-bad-exit=1"],  # a failure of one task is the run's
        "additional_parameters": {"requeue": True, **cluster.more},
    }


def submit(runs: Sequence[Pending], settings: Mapping[str, Any], name: str, logs: Path) -> Submitted:
    """Freezes and submits runs, except those queued, running, or being submitted by another command.

    logs: folder of submitit's files. Raises ConfigError where there is no SLURM or no submitit.
    """
    if missing := missing_programs():
        raise ConfigError(missing)
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    cluster = Cluster(**settings)
    pending = {run.folder: run for run in runs}
    asked = [resources_of(run.config, cluster) for run in runs]
    outcome = Submitted()
    for resources, members in arrays(list(pending), asked, min(cluster.max_array, _most_locks())):
        with ExitStack() as held:
            try:
                mine = _claimed(held, [pending[folder] for folder in members], outcome)
            except ConfigError as error:
                outcome.refused.append(str(error))
                continue
            if not mine:
                continue
            frozen = submission(mine[0]) or {}
            executor = submitit.SlurmExecutor(logs, python=_python(cluster))
            options = parameters(resources, cluster, Path(frozen["code"]), name, frozen.get("pythonpath", ()))
            try:
                # submitit prints what sbatch refuses, and raises it; it is printed once, by who asked.
                with submitit.helpers.clean_env(), redirect_stderr(io.StringIO()):
                    executor.update_parameters(**options)
                    jobs = executor.map_array(job, [str(folder.resolve()) for folder in mine])
            except (FailedJobError, FailedSubmissionError) as error:
                words = _words(error)
                outcome.refused.append(words)
                for folder in mine:
                    RunFolder(folder).write_status("failed", error=f"not submitted: {words}")
                continue
            for folder, one in zip(mine, jobs, strict=True):
                _note(folder, one.job_id, str(one.paths.stderr))
    return outcome


def _claimed(held: ExitStack, runs: Sequence[Pending], outcome: Submitted) -> list[Path]:
    """Locks and freezes the runs that this command submits; notes the others as held elsewhere."""
    locked = []
    for run in runs:
        try:
            held.enter_context(Lock(RunFolder(run.folder).path / LOCK))
            locked.append(run)
        except Locked:
            outcome.elsewhere.append(run.folder)
    queued = with_jobs([run.folder for run in locked])
    outcome.elsewhere += queued
    mine = []
    for run in locked:
        if run.folder in queued:
            continue
        try:
            run.freeze()
            mine.append(run.folder)
        except Locked:
            outcome.elsewhere.append(run.folder)
    return mine


def _most_locks() -> int:
    """Returns the number of locks that this process can hold at once.

    Each is an open file, and many systems allow only 1024 at first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16 * 1024 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return 16 * 1024 if soft == resource.RLIM_INFINITY else max(1, soft - _OTHER_FILES)


def _python(cluster: Cluster) -> str:
    return f"$WAITING {cluster.python or shlex.quote(sys.executable)}"


def described(configs: Sequence[RunConfig], settings: Mapping[str, Any], name: str, runs: Path) -> list[str]:
    """Describes what would be submitted for these runs, and shows the scripts that sbatch would get."""
    cluster = Cluster(**settings)
    asked = [resources_of(config, cluster) for config in configs]
    places = [Path(str(number)) for number in range(len(configs))]
    lines = []
    for resources, members in arrays(places, asked, cluster.max_array):
        jobs = f"{len(members)} jobs" if len(members) > 1 else "1 job"
        shape = f"{cluster.nodes} node{'s' * (cluster.nodes > 1)} of {cluster.tasks} task{'s' * (cluster.tasks > 1)}"
        gpus, mem = resources.gpus * cluster.tasks, resources.mem * cluster.tasks
        lines.append(
            f"{jobs} of {shape}; a node gives {gpus} GPUs and {mem} GB of memory ({resources.gpus} and {resources.mem} "
            f"a task), for {resources.minutes} minutes."
        )
        lines.append(
            _script(parameters(resources, cluster, runs / "code" / "HASH", name), cluster, runs, len(members))
        )
    return lines


def _script(options: Mapping[str, Any], cluster: Cluster, runs: Path, jobs: int) -> str:
    try:
        from submitit.slurm.slurm import _make_sbatch_string
    except ModuleNotFoundError:
        return f"Its script is written by submitit, which is not installed: {install('slurm')}"
    logs = runs / "sweeps" / str(options["job_name"]).removeprefix("zo-") / "slurm"
    count = None if jobs == 1 else jobs
    command = f"{_python(cluster)} -u -m submitit.core._submit {shlex.quote(str(logs))}"
    return _make_sbatch_string(command=command, folder=logs, map_count=count, **options).strip()


def _words(error: Exception) -> str:
    """Returns sbatch's message without submitit's frame around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip().startswith("sbatch:")]
    return " ".join(lines) or str(error).strip()


def _note(folder: Path, job_id: str, log: str) -> None:
    """Records the job's number for status, cancel and logs."""
    frozen = submission(folder)
    RunFolder(folder).write(NAME, {**(frozen or {}), "job": job_id, "scheduler_log": log})
