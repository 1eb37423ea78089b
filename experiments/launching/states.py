"""How runs are, from their files; where SLURM holds a run's job, by what squeue says of it.

queued, running, requeued, waiting, stopped, finished, diverged, failed, unreadable. A run that its files call running,
of which no process and no job is left, was ended from outside (signal 9, memory, a node): failed, and retry runs it
again; likewise one whose result.json is damaged. One whose config.yaml is damaged is unreadable: nobody can tell what
was run, until the run's command writes it anew. One that its files call queued while what should start it is gone is
waiting. One that its files call stopped or failed is neither while its job is in the queue: an administrator, a
preemption or a node may have put it back.
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
POLL = 5.0  # seconds between looks while waiting


@dataclass(frozen=True)
class State:
    """A run's state, what there is to say about it, its steps so far, its scheduler's job."""

    folder: Path
    state: str
    detail: str = ""
    steps: int | None = None
    job: str | None = None

    @cached_property
    def warnings(self) -> int:
        """How many warnings the run carries."""
        return len(warnings_of(read_json(self.folder / "status.json")))


_OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "DEADLINE")
_WAITS = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


class Scheduler:
    """What SLURM says of jobs, asked once; empty where there is none.

    here: squeue has answered. silent: it is there, and has not.
    """

    def __init__(self, jobs: Iterable[str]):
        wanted = sorted(set(jobs))
        asks = bool(wanted) and shutil.which("squeue") is not None
        queue = self._asked("squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i|%T|%r") if asks else None
        self.here = queue is not None
        self.silent = asks and queue is None
        self._queue = queue or {}
        gone = [job for job in wanted if job not in self._queue]
        self._past: dict[str, tuple[str, str]] = {}
        if gone and shutil.which("sacct"):
            columns = "JobID,State,ExitCode"
            self._past = self._asked("sacct", "-n", "-X", "-P", "-o", columns, "-j", ",".join(gone)) or {}

    @staticmethod
    def _asked(*command: str) -> dict[str, tuple[str, str]] | None:
        """Rows by job; None where the command fails, which says nothing of any job."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
        rows = [line.split("|") for line in done.stdout.splitlines()]
        return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}

    def queued(self, job: str) -> tuple[str, str] | None:
        """State and reason of a job that has not ended."""
        found = self._queue.get(job)
        return None if found is None or found[0] in _OVER else found

    def past(self, job: str) -> str:
        """What the accounting says of a job that has ended, '' where it says nothing."""
        state, code = self._past.get(job, ("", ""))
        return f"{state} {code}".strip()


def with_jobs(folders: Sequence[Path]) -> list[Path]:
    """Those for which SLURM holds a job: to submit them again would be once too often.

    Raises ConfigError where squeue does not answer.
    """
    jobs = {folder: str((submission(folder) or {}).get("job", "")) for folder in folders}
    scheduler = Scheduler(set(jobs.values()) - {""})
    if scheduler.silent:
        raise ConfigError(
            "squeue does not answer, so SLURM may hold jobs of these runs already, and nothing was submitted. Give the "
            "same command again when it does."
        )
    return [folder for folder, job in jobs.items() if scheduler.queued(job) is not None]


def states(folders: Sequence[Path], scheduler: Scheduler | None = None) -> list[State]:
    """The state of each run. scheduler: one that was asked about their jobs already."""
    asked = [submission(folder) or {} for folder in folders]
    if scheduler is None:
        scheduler = Scheduler(str(each["job"]) for each in asked if "job" in each)
    return [_state(folder, each, scheduler) for folder, each in zip(folders, asked, strict=True)]


def _state(folder: Path, asked: dict[str, Any], scheduler: Scheduler) -> State:
    job = asked.get("job")
    # Before the files are read: whoever has let go by now has written them.
    holder = None if (folder / "result.json").exists() else holder_of(folder / "lock")
    status = read_json(folder / "status.json") or {}
    steps = _steps(folder, status)
    unreadable = problem_of_configuration(folder)
    if unreadable is not None and holder is None:
        return State(folder, "unreadable", unreadable, steps, job)
    result, damaged = read_result(folder)
    if damaged is not None and holder is None:
        return State(folder, "failed", f"{damaged}; the same command, or retry, writes it anew", steps, job)
    if result is not None:
        return State(folder, result["status"], outcome_of(result), result["steps"], job)
    state = str(status.get("state", "new"))
    if holder is not None:
        detail = f"process {holder['pid']} on {holder['host']}"
        if job is None and (by := asked.get("by")) is not None and not may_run(by):
            detail += "; the sweep that started it is gone, and it goes on alone"
        return State(folder, "running", detail, steps, job)
    if job is not None and state != "new" and (entry := scheduler.queued(job)) is not None:
        return _held(folder, state, job, entry, steps)
    if state == "failed":
        return State(folder, "failed", str(status.get("error", "")), steps, job)
    if state == "stopped":
        return State(folder, "stopped", str(status.get("reason", "")), steps, job)
    if state not in OPEN:
        return State(folder, state, "", steps, job)
    if job is None and state == "queued":
        by = asked.get("by")
        if by is None or may_run(by):
            return State(folder, "queued", "", steps)
        return State(folder, "waiting", "what should start it is gone", steps)
    return _open(folder, state, status, steps, job, scheduler)


def _held(folder: Path, state: str, job: str, entry: tuple[str, str], steps: int | None) -> State:
    """A run whose job is in SLURM's queue, whatever its files say."""
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
    """A run that its files call queued, running or requeued, and at which no process or queued job is."""
    if job is None:
        return State(folder, "failed", f"killed: process {status.get('pid')} is gone", steps)
    if not scheduler.here:
        why = "squeue does not answer" if scheduler.silent else "no squeue here to ask"
        return State(folder, state, f"job {job}; {why}", steps, job)
    past = scheduler.past(job)
    if (folder / "STOP").exists() or past.startswith("CANCELLED"):
        return State(folder, "stopped", f"job {job}: {past or 'cancelled'}", steps, job)
    return State(
        folder, "failed", f"killed: job {job} is gone{f', SLURM says {past}' if past else ''}", steps, job
    )


def outcome_of(result: dict[str, Any]) -> str:
    """Returns what to tell of a run that has ended: why it diverged, else the best on dev.

    Never test: settings may still be chosen between by what is read here.
    """
    if result.get("reason"):
        return str(result["reason"])
    value = result.get("best_dev")
    return "" if value is None else f"dev {result['metric']} {100 * value:.1f} %"


def _steps(folder: Path, status: dict[str, Any]) -> int | None:
    """Steps that are noted: of the last row of metrics.jsonl, else of the status."""
    path = folder / "metrics.jsonl"
    if path.exists():
        for line in reversed(_end(path).splitlines()[-2:]):
            if (row := row_of(line)) is not None:  # else it is torn
                return row["steps"]
    steps = status.get("steps")
    return steps if isinstance(steps, int) else None


def _end(path: Path) -> bytes:
    """Enough of a file to hold its last two lines."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END))
        return file.read()


def wait(folders: Sequence[Path], console: Console) -> int:
    """Until no run is queued or running; 1 when one failed. Tells of each as it ends."""
    told: set[Path] = set()
    while True:
        found = states(folders)
        for each in found:
            if each.state not in OPEN and each.folder not in told:
                told.add(each.folder)
                console.print(f"{title_of(each.folder)} {each.state} {each.detail}", soft_wrap=True)
        if len(told) == len(folders):
            return int(any(each.state in ("failed", "unreadable") for each in found))
        time.sleep(POLL)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The runs' folders that the paths mean, each once. Raises ConfigError for a path without any."""
    folders: dict[Path, None] = {}
    for path in paths:
        if (path / "sweep.json").is_file():
            below = read_sweep(path)
        elif (path / "config.yaml").is_file():
            below = [path]
        else:
            below = sorted(
                file.parent for file in path.rglob("config.yaml") if (file.parent / "status.json").exists()
            )
        if not below:
            raise ConfigError(f"{path} is no sweep and no run, and there are no runs below it.")
        folders |= dict.fromkeys(below)
    return list(folders)
