"""Allows one process per run folder. The kernel holds the lock, so it always ends with its process.

The file says who holds it. Where a file system has no locks, that is all there is: a holder of this machine is
looked up among the processes, one of another machine is believed.
"""

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from experiments.rundir.json_files import read_json
from zo.errors import JournalError, Locked

_SAYS = {"host": str, "pid": int, "began": (int, float)}
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class Lock:
    """Locks a folder; raises Locked, naming the holder, if another process holds it. A stale lock is taken over."""

    def __init__(self, path: Path):
        self.path = path
        self._file = -1

    def __enter__(self) -> "Lock":
        while self._file < 0:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            except OSError as error:
                raise JournalError(
                    f"{self.path} could not be written: {error.strerror}. Free space or mend the permissions, then run "
                    "the same command again."
                ) from error
            try:
                self._take(file)
            except BaseException:  # nothing is handled: the file is closed, and what was raised goes on
                os.close(file)
                raise
            if _is(file, self.path):
                self._file = file
            else:  # its last holder has removed it between our opening and our locking
                os.close(file)
        with suppress(OSError):  # on a full disk the lock holds all the same, and does not say whose it is
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(_me()).encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a file that stays is taken over by the next process
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def _take(self, file: int) -> None:
        try:
            _flock(file)
        except OSError as error:
            holder = _holder(self.path)
            if error.errno in _HELD or (holder and _alive(holder)):
                who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
                raise Locked(
                    f"In {self.path.parent} {who} is running. Wait for it, or stop it: one run folder takes one "
                    f"process at a time. If that process is gone, remove {self.path}."
                ) from error


def holder_of(path: Path) -> dict[str, Any] | None:
    """Returns the lock's holder: host, pid, began; None if it is free or stale."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _holder(path)
        held = error.errno in _HELD or (holder is not None and _alive(holder))
        return (holder or {"host": "?", "pid": 0}) if held else None
    finally:
        os.close(file)
    return None


def steady_holder_of(path: Path) -> dict[str, Any] | None:
    """Returns the holder, or None if the lock is soon free: another process may only have tested it."""
    for pause in (0.05, 0.05, 0.0):
        holder = holder_of(path)
        if holder is None:
            return None
        time.sleep(pause)
    return holder


def this_process() -> dict[str, Any]:
    """Returns the holder recorded in a lock file: host, pid, began."""
    return _me()


def may_run(process: dict[str, Any]) -> bool:
    """Returns True if the process that `this_process` described may still run; on another machine it may."""
    return _alive(process)


def _flock(file: int) -> None:
    """Locks the file, retrying briefly, because `holder_of` takes the lock while it tests."""
    for again in (True, True, False):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD or not again:
                raise
            time.sleep(0.05)
    return None


def _is(file: int, path: Path) -> bool:
    """Returns True if the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def _holder(path: Path) -> dict[str, Any] | None:
    """Returns the file's content if it is what a holder writes, else None."""
    holder = read_json(path)
    if holder is None or not all(isinstance(holder.get(key), kind) for key, kind in _SAYS.items()):
        return None
    return holder


def _alive(holder: dict[str, Any]) -> bool:
    """Returns True if the writing process may still run; pids are reused, so its start time must match."""
    if holder["host"] != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(holder["pid"]).create_time() - holder["began"]) < 1
    except psutil.Error:
        return False
