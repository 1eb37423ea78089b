"""Starts, signals and waits for runs that are forks of one warm process (launching.fork_server), for the pool."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from experiments.rundir.folder import RunFolder

_POLL = 0.1  # seconds between looks whether a start is still wanted


def can_fork() -> bool:
    """Returns True where a process may fork after its imports and be told of ends by the kernel: on Linux."""
    return sys.platform == "linux"


class Forked:
    """A run that the server has forked; it has of Popen what a pool uses."""

    def __init__(self, pid: int, folder: Path, forget: Callable[[int], None]):
        self.pid = pid
        self.returncode: int | None = None
        self._folder = folder
        self._forget = forget
        self._over = threading.Event()
        self._lost = False
        self._process: psutil.Process | None = None
        with suppress(psutil.Error):
            self._process = psutil.Process(pid)

    def poll(self) -> int | None:
        """Returns the exit code, or None while the run goes on."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the run has ended."""
        if self.returncode is None and self._process is not None:
            with suppress(psutil.Error):
                self._process.send_signal(number)

    def wait(self) -> int:
        """Returns the exit code when the run has ended; negative: the signal that ended it."""
        self._over.wait()
        if self._lost:
            self.returncode = self._code_by_files()
        else:
            self._forget(self.pid)
        assert self.returncode is not None
        return self.returncode

    def end(self, code: int | None) -> None:
        """Notes how the run ended; None: the server is gone, and the run goes on without it."""
        self.returncode, self._lost = code, code is None
        self._over.set()

    def _code_by_files(self) -> int:
        """Waits for a run whose server is gone; what it has written says how it ended."""
        if self._process is not None:
            self._process.wait()
        state = (RunFolder(self._folder).status() or {}).get("state")
        return 0 if state in ("finished", "diverged", "stopped") else 1


class ForkServer:
    """The warm process of one snapshot of code, as the pool sees it.

    environment: of every run that it starts. If the process cannot run, for lack of memory or because an older
    snapshot has no such module, `start` returns None.
    """

    def __init__(self, code: str, environment: Mapping[str, str]):
        self.code = code
        command = [sys.executable, "-P", "-m", "experiments.launching.fork_server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, start_new_session=True,
                                         env=environment)  # fmt: skip
        self._is_ready = threading.Event()  # also once it is gone
        self._answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._folders: queue.SimpleQueue[Path] = queue.SimpleQueue()  # of starts without an answer
        self._runs: dict[int, Forked] = {}
        self._writing = threading.Lock()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def wait_until_ready(self, unwanted: Callable[[], object]) -> None:
        """Returns after the server's imports, or soon after `unwanted` becomes true."""
        while not self._is_ready.wait(_POLL) and not unwanted():
            pass

    def start(self, folder: Path) -> Forked | None:
        """Starts a run; None if it could not be forked. One start at a time."""
        self._folders.put(folder)
        if not self._ask({"start": str(folder.resolve())}):
            return None
        pid = self._answers.get()
        return None if pid is None else self._runs[pid]

    def close(self) -> None:
        """Ends the server; runs that go on are none of its concern."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        if not self._is_ready.is_set():  # it would import to the end
            self._process.kill()
        self._process.wait()
        self._listener.join()
        self._process.stdout.close()

    def _ask(self, request: Mapping[str, Any]) -> bool:
        with self._writing:
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            except (OSError, ValueError):  # it is gone, or closed
                return False
        return True

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "started" in message:
                pid = message["started"]
                self._runs[pid] = Forked(pid, self._folders.get(), self._forget)
                self._answers.put(pid)
            elif "ended" in message:
                self._runs[message["ended"]].end(message["code"])
            elif "refused" in message:
                self._folders.get()
                self._answers.put(None)
            self._is_ready.set()
        for run in list(self._runs.values()):
            if run.returncode is None:
                run.end(None)
        self._answers.put(None)
        self._is_ready.set()

    def _forget(self, pid: int) -> None:
        del self._runs[pid]
        self._ask({"forget": pid})
