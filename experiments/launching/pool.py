"""Runs a pool of processes on this machine: several runs at once, each with its own GPUs if there are any.

Without GPUs the runs are forks of one process that has imported the frozen code (launching.fork_server); with GPUs,
with the user's own modules on PYTHONPATH, and with launcher.fork=false each starts an interpreter of its own.

A run's output goes to log.txt in its folder. A failing run stops no other. The first Ctrl-C, SIGTERM or SIGHUP (the
terminal was closed) lets every run finish its step and starts no more; a second Ctrl-C or SIGTERM ends them at once,
and their journals are whole then too. A closed terminal may send SIGHUP twice, which is the same word once more.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.config.saved import load_config
from experiments.launching.forked import Forked, ForkServer, can_fork
from experiments.launching.job import BUSY
from experiments.launching.states import outcome_of
from experiments.launching.submission import LOG, submission
from experiments.rundir.folder import RunFolder, title_of
from experiments.training.stop import INTERRUPTED

ACKNOWLEDGED = "Every run stops after its step; Ctrl-C again ends all at once."
# Exit codes of a run that had no handlers yet.
_ENDED_EARLY = (
    -signal.SIGTERM,
    -signal.SIGINT,
    -signal.SIGHUP,
)
LINES = 1000  # characters at the end of a log in which its last line is looked for
Process = subprocess.Popen[bytes] | Forked


@dataclass
class Outcome:
    """The way a started run ended."""

    folder: Path
    code: int
    seconds: float

    @property
    def failed(self) -> bool:
        """Returns True if the run failed; runs held elsewhere or stopped by a signal do not count."""
        return self.code not in (0, BUSY, INTERRUPTED, *_ENDED_EARLY)

    @property
    def busy(self) -> bool:
        """Returns True if another process holds the run."""
        return self.code == BUSY


@dataclass(frozen=True)
class Show:
    """A pool's output. line: prints a permanent line. note: prints immediately; None: stderr, unbuffered."""

    line: Callable[[str], None]
    note: Callable[[str], None] | None = None


class Devices:
    """The GPUs that runs take and give back; a run that needs more than are free waits."""

    def __init__(self, names: Sequence[str]):
        self._free = list(names)
        self._changed = threading.Condition()

    def take(self, count: int) -> list[str]:
        """Takes `count` devices and returns their names, or None if too few are free."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) >= count)
            taken, self._free = self._free[:count], self._free[count:]
            return taken

    def give(self, names: Sequence[str]) -> None:
        """Returns devices to the pool."""
        with self._changed:
            self._free += names
            self._changed.notify_all()


def gpus() -> list[str]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return (
        [name for name in visible.split(",") if name][:count] if visible else [str(i) for i in range(count)]
    )


class Pool:
    """Runs runs in processes; see the module."""

    def __init__(
        self,
        parallel: int,
        threads: int | None,
        show: Show,
        names: Mapping[Path, str] | None = None,
        *,
        fork: bool = True,
    ):
        self._all = gpus()
        self._devices = Devices(self._all)
        self._parallel = parallel
        self._threads = threads or max(1, (os.cpu_count() or 1) // parallel)
        self._show = show
        self._names = names or {}
        self._lock = threading.Lock()
        self._running: dict[int, Process] = {}
        self._forks = fork and can_fork() and not self._all
        self._server: ForkServer | None = None
        self._stopping = 0
        self._signalled: dict[int, object] = {}  # processes that were asked to stop
        self.reason: str | None = None

    def __call__(self, folders: Sequence[Path]) -> list[Outcome]:
        """Runs all; returns the outcomes of those that were started."""
        heeded = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as it is under nohup
            heeded.append(signal.SIGHUP)
        before = {n: signal.signal(n, self._handle) for n in heeded}
        try:
            self._serve(folders)
            with ThreadPoolExecutor(self._parallel) as threads:
                futures = [
                    threads.submit(self._one, folder, i, len(folders)) for i, folder in enumerate(folders, 1)
                ]
                wait(futures)
        finally:
            if self._server is not None:
                self._server.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return [outcome for future in futures if (outcome := future.result()) is not None]

    def _one(self, folder: Path, number: int, of: int) -> Outcome | None:
        title = f"[{number}/{of}] {self._names.get(folder) or title_of(folder)}"
        wanted = min(load_config(folder).model.resources.gpus, len(self._all))
        devices = self._devices.take(wanted)
        began = time.monotonic()
        try:
            process = self._start(folder, devices)
            if process is None:
                return None
            self._show.line(f"{title} started{f' on GPU {chr(44).join(devices)}' if devices else ''}")
            code = process.wait()
            with self._lock:
                del self._running[process.pid]
        finally:
            self._devices.give(devices)
        outcome = Outcome(folder, code, time.monotonic() - began)
        self._show.line(f"{title} {self._ended(outcome)}")
        return outcome

    def _serve(self, folders: Sequence[Path]) -> None:
        """Starts the process that runs are forked from, if there are several to fork."""
        alike = [folder for folder in folders if self._forks and not submission_of(folder).get("pythonpath")]
        if len(alike) > 1:
            with suppress(OSError):  # no memory or process is left for it: each run starts an interpreter
                self._server = ForkServer(submission_of(alike[0])["code"], self._environment(alike[0], ()))

    def _start(self, folder: Path, devices: Sequence[str]) -> Process | None:
        asked, server = submission_of(folder), self._server
        if server is not None and (asked.get("pythonpath") or asked["code"] != server.code):
            server = None
        if server is not None:
            server.wait_until_ready(unwanted=lambda: self._stopping)
        with self._lock:  # a signal comes before the start or finds the process in the list
            if self._stopping or RunFolder(folder).stop_asked():
                return None
            with (folder / LOG).open("ab") as log:
                process = None if server is None else server.start(folder)
                if process is None:
                    process = subprocess.Popen(command(folder), stdout=log, stderr=subprocess.STDOUT,
                                               stdin=subprocess.DEVNULL, start_new_session=True,
                                               env=self._environment(folder, devices))  # fmt: skip
            self._running[process.pid] = process
        if self._stopping:
            self._stop(process, signal.Signals[self.reason or "SIGTERM"])
        return process

    def _stop(self, process: Process, number: int) -> None:
        """Forwards a signal once: a second SIGINT would end the run within its step.

        A single dict call decides, because a handler may interrupt between two calls.
        """
        mine = object()
        if self._signalled.setdefault(process.pid, mine) is mine:
            process.send_signal(number)

    def _environment(self, folder: Path, devices: Sequence[str]) -> dict[str, str]:
        more = {"OMP_NUM_THREADS": str(self._threads), "COLUMNS": "120"}
        if self._all:
            more["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        return {**os.environ, **more, **environment(folder)}

    def _ended(self, outcome: Outcome) -> str:
        took = f"{outcome.seconds:.0f} s"
        if outcome.busy:
            return "is run by another process"
        status = RunFolder(outcome.folder).status() or {}
        if outcome.code in _ENDED_EARLY:
            return "stopped before its first step"
        if not outcome.failed:
            result = RunFolder(outcome.folder).result()
            words = outcome_of(result) if result else ""
            return ", ".join(part for part in (str(status.get("state", "ended")), words, took) if part)
        return f"failed: {why(outcome.folder, outcome.code)} ({outcome.folder / LOG})"

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP and self._stopping:
            return
        self._stopping += 1
        self.reason = self.reason or signal.Signals(number).name
        if self._stopping == 1:
            self._acknowledge()
        # Without the lock, which the interrupted thread may hold; the list of a dict is made in one step.
        for process in list(self._running.values()):
            if process.poll() is None and self._stopping == 1:
                self._stop(process, number)
            elif process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)

    def _acknowledge(self) -> None:
        """Announces from the handler what happens next, because a step may take minutes."""
        if self._show.note is not None:
            self._show.note(ACKNOWLEDGED)
            return
        with suppress(OSError, ValueError):  # a closed stderr
            os.write(sys.stderr.fileno(), f"\n{ACKNOWLEDGED}\n".encode())


def command(folder: Path) -> list[str]:
    """Returns the command that starts a frozen run; -P keeps the working folder's code off the path."""
    return [sys.executable, "-P", "-m", "experiments.launching.worker", str(folder.resolve())]


def submission_of(folder: Path) -> dict[str, Any]:
    """Returns submission.json of a frozen run."""
    found = submission(folder)
    assert found is not None  # the pool's caller has frozen it
    return found


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment in which a run imports its own code first, then the user's modules."""
    submitted = submission_of(folder)
    paths = [submitted["code"], *submitted.get("pythonpath", ())]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def why(folder: Path, code: int) -> str:
    """Returns a failed run's reason: its status, else the signal that ended it, else the end of its log."""
    status = RunFolder(folder).status() or {}
    if status.get("state") == "failed":
        return str(status.get("error"))
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}"
    lines = (folder / LOG).read_text(errors="replace", encoding="utf-8")[-LINES:].strip().splitlines()
    return lines[-1] if lines else f"exit code {code}"
