"""Executes a run as a SLURM job: signals, time limit, preemption.

SLURM sends SIGUSR2 some time before the job's end. Our handlers replace submitit's: the run's own sets a flag, the
step in flight ends, the journal is whole, and then `scontrol requeue` is called. The next job resumes from the journal
to the same bits. Before the first step, or if no step ends in time, the job is requeued at once; nothing is lost, as
the journal is whole after every step. SLURM cancels and preempts with SIGTERM; the job is requeued only if SLURM
reports PREEMPTED.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.launching.submission import submission
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import steady_holder_of

BUSY = 3  # exit code: another process is at this run
SHARE = 0.6  # of the time between signal and end that a step may take


def job(path: str) -> None:
    """Runs the frozen run; submitit calls it. The exit code is the run's, so that SLURM marks failed runs FAILED."""
    folder = RunFolder(Path(path))
    submitted: Any = submission(folder.path)
    lead = rank() == 0
    _speak_into(folder.path / ("log.txt" if lead else f"log-rank{rank()}.txt"))
    if lead and (why := _not_ours(folder, submitted)):
        sys.stderr.write(f"{why}\n")
        raise SystemExit(BUSY)
    requeue = Requeue(folder, submitted["cluster"]["signal_seconds"], submitted["launch"]["requeues"], lead)
    requeue.listen()
    from experiments.launching.worker import work  # late: a signal may come while torch is imported

    code = work(folder.path)
    requeue.after(code)
    if code:
        raise SystemExit(code)


def _not_ours(folder: RunFolder, submitted: Mapping[str, Any]) -> str:
    """Returns why this job must not run this folder, or '' if it should."""
    noted = submitted.get("job", job_id())  # it may have begun before its number was noted
    if noted != job_id():
        return f"This run was submitted again as job {noted}, so job {job_id()} ends: {folder.path}"
    if (holder := steady_holder_of(folder.path / "lock")) is not None:
        return f"Process {holder['pid']} on {holder['host']} is at this run, so this job ends: {folder.path}"
    return ""


def rank() -> int:
    """Returns this process's rank among the job's tasks."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def job_id(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the job as scontrol names it; an array element by the array and its index."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


class Requeue:
    """Requeues the job, once, and records it in the run's status."""

    def __init__(self, folder: RunFolder, signal_seconds: float, most: int, lead: bool):
        self._folder = folder
        self._patience = SHARE * signal_seconds
        self._most = most
        self._lead = lead
        self._once = threading.Lock()

    def listen(self) -> None:
        """Installs handlers until the run installs its own, and starts a thread that limits the waiting time."""
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._early)
        signal.signal(signal.SIGCONT, signal.SIG_IGN)
        receive, send = os.pipe()
        os.set_blocking(send, False)
        signal.set_wakeup_fd(send, warn_on_full_buffer=False)  # tells of signals whoever handles them
        threading.Thread(target=self._watch, args=(receive,), daemon=True).start()
        # launching.slurm blocks this signal until here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})

    def after(self, code: int) -> None:
        """Requeues the job after the run has returned, if a signal asked for it."""
        status = self._folder.status() or {}
        if code == 0 and status.get("state") == "stopped":
            self._decide(status.get("reason"))

    def _decide(self, reason: str | None) -> None:
        if reason == "SIGUSR2" or (reason == "SIGTERM" and _state() == "PREEMPTED"):
            self.now(reason)

    def _early(self, number: int, _: FrameType | None) -> None:
        """Returns True if no step is in progress, so that requeueing at once loses nothing."""
        if number == signal.SIGTERM and self._lead:
            self._folder.write_status("stopped", reason="SIGTERM")
        self._decide(signal.Signals(number).name)
        os._exit(0)

    def _watch(self, receive: int) -> None:
        while (data := os.read(receive, 1)) and data[0] != signal.SIGUSR2:
            pass
        threading.Event().wait(self._patience)
        self.now("SIGUSR2, before the step was over")
        os._exit(0)

    def now(self, reason: str) -> None:
        """Requeues, unless it was done already or too often."""
        if not self._lead or not self._once.acquire(blocking=False):
            return
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        status = self._folder.status() or {}
        steps = {"steps": status["steps"]} if "steps" in status else {}
        if restarts >= self._most:
            error = f"requeued {restarts} times, which launcher.requeues={self._most} ends"
            self._folder.write_status("failed", error=error, **steps)
            os._exit(1)
        self._folder.write_status("requeued", reason=reason, restarts=restarts + 1, **steps)
        done = subprocess.run(["scontrol", "requeue", job_id()], capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(done.stderr)
            self._folder.write_status("failed", error=f"not requeued: {done.stderr.strip()}", **steps)
            os._exit(1)


def _state() -> str:
    """Returns the job's state as SLURM reports it."""
    done = subprocess.run(["scontrol", "show", "job", "-o", job_id()], capture_output=True, text=True)
    return next((word[9:] for word in done.stdout.split() if word.startswith("JobState=")), "")


def _speak_into(path: Path) -> None:
    """Redirects this process's output to the run's own log."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)
