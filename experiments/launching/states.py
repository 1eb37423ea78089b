"""How runs are, from their files first; squeue and sacct where they are there.

queued, running, requeued, stopped, finished, diverged, failed, unreadable. A run that its files call running, of
which no process and no job is left, was ended from outside (signal 9, memory, a node): failed, and retry runs it
again; likewise one whose result.json is damaged. One whose config.yaml is damaged is unreadable: nobody can tell what
was run, until the run's command writes it anew.
"""

import getpass
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.launching.submission import read_sweep, submission
from experiments.rundir.folder import title_of
from experiments.rundir.json_files import problem_of_configuration, read_json, read_result, row_of
from experiments.rundir.lock import holder_of
from zo.errors import ConfigError

OPEN = ("queued", "running", "requeued")  # states of runs that may still change by themselves
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


class Scheduler:
    """What SLURM says of jobs, asked once; empty where there is none."""

    def __init__(self, jobs: Iterable[str]):
        wanted = sorted(set(jobs))
        self.here = bool(wanted) and shutil.which("squeue") is not None
        self._queue = (
            self._asked("squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i|%T|%r") if self.here else {}
        )
        gone = [job for job in wanted if job not in self._queue]
        self._past: dict[str, tuple[str, str]] = {}
        if gone and shutil.which("sacct"):
            self._past = self._asked(
                "sacct", "-n", "-X", "-P", "-o", "JobID,State,ExitCode", "-j", ",".join(gone)
            )

    @staticmethod
    def _asked(*command: str) -> dict[str, tuple[str, str]]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        rows = [line.split("|") for line in done.stdout.splitlines()]
        return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}

    def queued(self, job: str) -> tuple[str, str] | None:
        """State and reason of a job that has not ended."""
        found = self._queue.get(job)
        return None if found is None or found[0] in ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT") else found

    def past(self, job: str) -> str:
        """What the accounting says of a job that has ended, '' where it says nothing."""
        state, code = self._past.get(job, ("", ""))
        return f"{state} {code}".strip()


def with_jobs(folders: Sequence[Path]) -> list[Path]:
    """Those for which SLURM holds a job: to submit them again would be once too often."""
    jobs = {folder: str((submission(folder) or {}).get("job", "")) for folder in folders}
    scheduler = Scheduler(set(jobs.values()) - {""})
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
        value = result["after"]
        said = "" if value is None else f"{result['metric']} {100 * value:.1f} %"
        return State(folder, result["status"], said, result["steps"], job)
    state = str(status.get("state", "new"))
    if state == "failed":
        return State(folder, "failed", str(status.get("error", "")), steps, job)
    if state == "stopped":
        return State(folder, "stopped", str(status.get("reason", "")), steps, job)
    if holder is not None:
        return State(folder, "running", f"process {holder['pid']} on {holder['host']}", steps, job)
    if state not in OPEN:
        return State(folder, state, "", steps, job)
    return _open(folder, state, status, steps, job, scheduler)


def _open(
    folder: Path, state: str, status: dict[str, Any], steps: int | None, job: str | None, scheduler: Scheduler
) -> State:
    """A run that its files call queued, running or requeued, and at which no process of this machine is."""
    if job is None:
        if state == "queued":
            return State(folder, "queued", "", steps)
        return State(folder, "failed", f"killed: process {status.get('pid')} is gone", steps)
    if not scheduler.here:
        return State(folder, state, f"job {job}; no squeue here to ask", steps, job)
    if (found := scheduler.queued(job)) is not None:
        word, reason = found
        if word in ("PENDING", "REQUEUED"):
            return State(
                folder, "queued" if state == "queued" else "requeued", f"job {job}: {reason}", steps, job
            )
        return State(folder, "running", f"job {job}", steps, job)
    past = scheduler.past(job)
    if (folder / "STOP").exists() or past.startswith("CANCELLED"):
        return State(folder, "stopped", f"job {job}: {past or 'cancelled'}", steps, job)
    return State(
        folder, "failed", f"killed: job {job} is gone{f', SLURM says {past}' if past else ''}", steps, job
    )


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
            return int(any(each.state == "failed" for each in found))
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
