"""Makes the n-th file operation of a process fail, or be its last one.

A process that only forks imports once what takes seconds; each try is a child of it. An operation counts if it changes
something below the run's folder: every write, rename, link, removal, truncation and sync, and every file opened for
writing there.
"""

import errno
import functools
import io
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

# The process dies before the operation, in the middle of it, or behind it.
CRASHES = (
    "before",
    "torn",
    "behind",
)
ERRORS = ("ENOSPC", "EIO")
DESCRIPTORS = ("pwrite", "write", "fsync", "ftruncate")
PATHS = ("replace", "rename", "link", "unlink", "truncate", "mkdir", "rmdir")
TRACEBACK = 70  # exit code of a child that ended by an exception


@dataclass(frozen=True)
class Outcome:
    """A child's end: its exit code (minus the signal), its output on stdout and stderr, its seconds."""

    code: int
    text: str
    seconds: float = 0.0


class Faults:
    """Counts the operations below a folder; the n-th fails as `kind` says. n = 0 only counts."""

    def __init__(self, folder: Path, n: int = 0, kind: str = "before"):
        self.folder = str(folder.resolve())
        self.n = n
        self.kind = kind
        self.count = 0

    def install(self) -> None:
        """Intercepts this process's operations from now on; it cannot be undone, so use it in children only."""
        for name in DESCRIPTORS:
            self._patch(os, name, self._of_descriptor)
        for name in PATHS:
            self._patch(os, name, self._of_path)
        self._patch(torch, "save", lambda args: self._is_below(args[1]))
        self._patch(safetensors.torch, "save_file", lambda args: self._is_below(args[1]))
        self._patch(shutil, "copyfile", lambda args: self._is_below(args[1]))
        self._patch(
            io,
            "open",
            lambda args: len(args) > 1 and set("wa+") & set(str(args[1])) and self._is_below(args[0]),
        )

    def _patch(self, module: Any, name: str, counts: Callable[[tuple[Any, ...]], object]) -> None:
        real = getattr(module, name)

        @functools.wraps(real)
        def operation(*args: Any, **more: Any) -> Any:
            if not counts(args):
                return real(*args, **more)
            self.count += 1
            if self.count != self.n:
                return real(*args, **more)
            return self._fail(name, real, args, more)

        setattr(module, name, operation)

    def _fail(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        if self.kind in ERRORS:
            code = getattr(errno, self.kind)
            raise OSError(code, os.strerror(code), str(args[0]))
        if self.kind == "torn" and name in ("pwrite", "write"):
            real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
        elif self.kind == "behind":
            with suppress(OSError):  # an operation that fails by itself is over too
                real(*args, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    def _of_descriptor(self, args: tuple[Any, ...]) -> bool:
        try:
            return os.readlink(f"/proc/self/fd/{args[0]}").startswith(self.folder)
        except OSError:
            return False

    def _of_path(self, args: tuple[Any, ...]) -> bool:
        return self._is_below(args[0])

    def _is_below(self, path: object) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(os.fspath(path)).startswith(
            self.folder
        )


def child(task: Callable[[], int | None], seconds: float = 120.0) -> Outcome:
    """Runs a task in a child and returns its outcome; after `seconds` the child is killed as hanging."""
    out = os.memfd_create("out")
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _run(task, out)
    code: int | None = None
    while code is None:
        ended_pid, status = os.waitpid(pid, os.WNOHANG)
        if ended_pid:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() - began > seconds:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            code = -signal.SIGALRM
        else:
            time.sleep(0.002)
    with open(out, "rb") as file:
        file.seek(0)
        return Outcome(code, file.read().decode(errors="replace"), time.monotonic() - began)


def start(task: Callable[[], int | None]) -> int:
    """Runs a task in a child without waiting for it; returns its process id."""
    pid = os.fork()
    if pid == 0:
        _run(task, os.open(os.devnull, os.O_WRONLY))
    return pid


def _run(task: Callable[[], int | None], out: int) -> None:
    """Runs the child's task; never returns."""
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # for the child's whole life
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    code = TRACEBACK
    try:
        code = task() or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # the parent reports it as what it is, a traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
