"""Reads the states of runs from their files, and from squeue if SLURM holds their jobs.

The states: queued, running, requeued, waiting, stopped, finished, diverged, failed, unreadable.

failed: also a run that its files call running although no process and no job is left; it was ended from outside
(signal 9, memory, a node), and retry runs it again. Likewise a run whose result.json is damaged. unreadable:
config.yaml is damaged, so nobody can tell what was run until the run's command writes it anew. waiting: its files say
queued, but the process that should start it is gone. A stopped or failed run is neither while its job is in the
queue: an administrator, a preemption or a node may have requeued it.
"""

import getpass
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.launching.submission import read_sweep, submission
from experiments.rundir.folder import title_of
from experiments.rundir.json_files import (
    began,
    problem_of_configuration,
    read_json,
    read_result,
    row_of,
    warnings_of,
)
from experiments.rundir.lock import holder_of, may_run
from zo.errors import ConfigError

OPEN = ("queued", "running", "requeued")  # states of runs that may still change by themselves
SETTLED = ("finished", "diverged")  # states that no scheduler can change
_END = 1 << 14  # bytes at the end of metrics.jsonl that hold two rows
POLL = 5.0  # seconds between polls while waiting


@dataclass(frozen=True)
class State:
    """A run's state, its explanation, its steps so far, its scheduler's job."""

    folder: Path
    state: str
    detail: str = ""
    steps: int | None = None
    job: str | None = None

    @cached_property
    def warnings(self) -> int:
        """Returns the number of warnings of the run."""
        return len(warnings_of(read_json(self.folder / "status.json")))


_OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "DEADLINE")
_WAITS = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


class Scheduler:
    """SLURM's answer about jobs, queried once; empty without SLURM.

    here: squeue has answered. silent: squeue is installed but has not answered.
    """

    def __init__(self, jobs: Iterable[str]):
        ids = sorted(set(jobs))
        asks = bool(ids) and shutil.which("squeue") is not None
        queue = self._query("squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i|%T|%r") if asks else None
        self.here = queue is not None
        self.silent = asks and queue is None
        self._queue = queue or {}
        ended = [job for job in ids if job not in self._queue]
        self._past: dict[str, tuple[str, str]] = {}
        if ended and shutil.which("sacct"):
            columns = "JobID,State,ExitCode"
            self._past = self._query("sacct", "-n", "-X", "-P", "-o", columns, "-j", ",".join(ended)) or {}

    @staticmethod
    def _query(*command: str) -> dict[str, tuple[str, str]] | None:
        """Queries a command; returns rows by job, or None if it fails, which proves nothing about any job."""
        try:
            process = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if process.returncode:
            return None
        rows = [line.split("|") for line in process.stdout.splitlines()]
        return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}

    def queued(self, job: str) -> tuple[str, str] | None:
        """Returns state and reason of a job that has not ended, else None."""
        entry = self._queue.get(job)
        return None if entry is None or entry[0] in _OVER else entry

    def past(self, job: str) -> str:
        """Returns what the accounting reports of an ended job; '' if it knows nothing."""
        state, code = self._past.get(job, ("", ""))
        return f"{state} {code}".strip()


def with_jobs(folders: Sequence[Path]) -> list[Path]:
    """Returns the runs that already have a job in SLURM's queue and must not be submitted again.

    Raises ConfigError if squeue does not answer.
    """
    jobs = {folder: str((submission(folder) or {}).get("job", "")) for folder in folders}
    scheduler = Scheduler(set(jobs.values()) - {""})
    if scheduler.silent:
        raise ConfigError(
            "squeue does not answer, so these runs may already have jobs. Nothing was submitted. Rerun the same "
            "command when squeue answers."
        )
    return [folder for folder, job in jobs.items() if scheduler.queued(job) is not None]


def states(folders: Sequence[Path], scheduler: Scheduler | None = None) -> list[State]:
    """Returns the state of each run. scheduler: one that was queried about their jobs already."""
    requests = [submission(folder) or {} for folder in folders]
    if scheduler is None:
        scheduler = Scheduler(str(request["job"]) for request in requests if "job" in request)
    return [state_of(folder, request, scheduler) for folder, request in zip(folders, requests, strict=True)]


def state_of(folder: Path, request: dict[str, Any], scheduler: Scheduler) -> State:
    """Returns the state of one run. request: its submission.json, {} without one."""
    job = request.get("job")
    # The lock is read before the files: a process that has released it by now has written them all.
    holder = None if (folder / "result.json").exists() else holder_of(folder / "lock")
    status = read_json(folder / "status.json") or {}
    unreadable = problem_of_configuration(folder)
    result, damaged = read_result(folder)
    if unreadable is None and result is not None:  # first: it is the state of most runs where there are many
        return State(folder, result["status"], outcome_of(result), result["steps"], job)
    steps = _steps(folder, status)
    if unreadable is not None and holder is None:
        return State(folder, "unreadable", unreadable, steps, job)
    if damaged is not None and holder is None:
        return State(folder, "failed", f"{damaged}; the same command, or retry, writes it anew", steps, job)
    if result is not None:
        return State(folder, result["status"], outcome_of(result), result["steps"], job)
    state = str(status.get("state", "new"))
    if holder is not None:
        detail = f"process {holder['pid']} on {holder['host']}"
        if job is None and (starter := request.get("by")) is not None and not may_run(starter):
            detail += "; the sweep that started it is gone, and it runs on alone"
        return State(folder, "running", detail, steps, job)
    if job is not None and state != "new" and (entry := scheduler.queued(job)) is not None:
        return _in_queue(folder, state, job, entry, steps)
    if state == "failed":
        return State(folder, "failed", str(status.get("error", "")), steps, job)
    if state == "stopped":
        return State(folder, "stopped", str(status.get("reason", "")), steps, job)
    if state not in OPEN:
        return State(folder, state, "", steps, job)
    if job is None and state == "queued":
        starter = request.get("by")
        if starter is None or may_run(starter):
            return State(folder, "queued", "", steps)
        return State(folder, "waiting", "the process that should start it is gone", steps)
    return _open(folder, state, status, steps, job, scheduler)


def _in_queue(folder: Path, state: str, job: str, entry: tuple[str, str], steps: int | None) -> State:
    """Returns the state of a run whose job is in SLURM's queue, whatever its files say."""
    word, reason = entry
    if word in _WAITS:
        return State(
            folder, "queued" if state == "queued" else "requeued", f"job {job}: {reason}", steps, job
        )
    return State(
        folder, "running", f"job {job}" + ("" if word == "RUNNING" else f" is {word.lower()}"), steps, job
    )


def _open(
    folder: Path, state: str, status: dict[str, Any], steps: int | None, job: str | None, scheduler: Scheduler
) -> State:
    """Returns the state of a run that looks open by its files but has no process or queued job."""
    if job is None:
        return State(folder, "failed", f"killed: process {status.get('pid')} is gone", steps)
    if not scheduler.here:
        reason = "squeue does not answer" if scheduler.silent else "no squeue here to ask"
        return State(folder, state, f"job {job}; {reason}", steps, job)
    past = scheduler.past(job)
    if (folder / "STOP").exists() or past.startswith("CANCELLED"):
        return State(folder, "stopped", f"job {job}: {past or 'cancelled'}", steps, job)
    return State(
        folder, "failed", f"killed: job {job} is gone{f', SLURM says {past}' if past else ''}", steps, job
    )


def outcome_of(result: dict[str, Any]) -> str:
    """Returns the outcome of a run that has ended: why it diverged, else the best on dev.

    Never the test metric: settings may still be chosen by what is read here.
    """
    if result.get("reason"):
        return str(result["reason"])
    value = result.get("best_dev")
    return "" if value is None else f"dev {result['metric']} {100 * value:.1f} %"


def _steps(folder: Path, status: dict[str, Any]) -> int | None:
    """Returns the steps recorded in the last row of metrics.jsonl, else in the status."""
    path = folder / "metrics.jsonl"
    if path.exists():
        for line in reversed(_end(path).splitlines()[-2:]):
            if (row := row_of(line)) is not None:  # else it is torn
                return row["steps"]
    steps = status.get("steps")
    return steps if isinstance(steps, int) else None


def _end(path: Path) -> bytes:
    """Returns enough of a file to hold its last two lines."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END))
        return file.read()


def wait(folders: Sequence[Path], console: Console) -> int:
    """Waits until no run is queued or running, printing each as it ends; returns 1 if one failed."""
    printed: set[Path] = set()
    while True:
        current = states(folders)
        for run in current:
            if run.state not in OPEN and run.folder not in printed:
                printed.add(run.folder)
                console.print(f"{title_of(run.folder)} {run.state} {run.detail}", soft_wrap=True)
        if len(printed) == len(folders):
            return int(any(run.state in ("failed", "unreadable") for run in current))
        time.sleep(POLL)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Returns the run folders that the paths mean, each once. Raises ConfigError that lists every path without runs."""
    folders: dict[Path, None] = {}
    without: list[Path] = []
    for path in paths:
        if (path / "sweep.json").is_file():
            below = read_sweep(path)
        elif (path / "config.yaml").is_file():
            below = [path]
        else:
            below = sorted(file.parent for file in path.rglob("status.json") if began(file.parent))
        if not below:
            without.append(path)
        folders |= dict.fromkeys(below)
    if without:
        lines = (f"{path} is neither a sweep nor a run, and there are no runs below it." for path in without)
        raise ConfigError("\n".join(lines))
    return list(folders)
