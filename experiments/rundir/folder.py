"""A run's folder: runs/<experiment>/<model>-<task>-<optimizer>-<peft>/<hash8>/seed<k>/.

config.yaml      the resolved configuration       provenance.json  code, machine, versions
journal          zo.journal                       snapshots/       zo.snapshots
metrics.jsonl    one JSON object a line           status.json      what the run is doing
result.json      written once, at the end         model/           the selected weights
lock             while a process is at it         submission.json  how a launcher started it
log.txt          what a launched run said         memory.json      experiments.training.oom
"""

import json
import math
import os
import shutil
import socket
import time
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import yaml

from experiments.rundir.json_files import read_json
from experiments.rundir.lock import Lock
from zo.errors import JournalError, RankLost


class RunFolder:
    """Files of one run; a write that fails raises JournalError and leaves the older file whole.

    writes: False for a process that leaves all writing to another, and whose calls change nothing.
    """

    def __init__(self, path: Path, *, writes: bool = True):
        self.path = path
        self._writes = writes
        if writes:
            self._make()
        self.journal = path / "journal"
        self.snapshots = path / "snapshots"
        self.model = path / "model"
        self._metrics = path / "metrics.jsonl"

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, os.strerror(13))
        except OSError as error:
            raise JournalError(
                f"The run's folder {self.path} cannot be written: {error.strerror}. Choose another with "
                "paths.runs=FOLDER."
            ) from error

    def result(self) -> dict[str, Any] | None:
        """The result of a run that has ended, or None."""
        return self._read("result.json")

    def status(self) -> dict[str, Any] | None:
        """The last status written, or None."""
        return self._read("status.json")

    def memory(self) -> dict[str, Any] | None:
        """What was found to fit into memory, or None (experiments.training.oom)."""
        return self._read("memory.json")

    def stop_asked(self) -> bool:
        """Whether a file STOP lies in the folder."""
        return (self.path / "STOP").exists()

    def locked(self) -> AbstractContextManager[object]:
        """A context in which no other process may run here; raises Locked where one does."""
        return Lock(self.path / "lock") if self._writes else nullcontext()

    def clear(self) -> None:
        """Removes what a run wrote, to run again from nothing."""
        if not self._writes:
            return
        for name in ("result.json", "status.json", "metrics.jsonl", "journal", "memory.json", "STOP"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.snapshots, self.model):
            shutil.rmtree(folder, ignore_errors=True)

    def forget_stop(self) -> None:
        """Removes the file STOP."""
        if self._writes:
            (self.path / "STOP").unlink(missing_ok=True)

    def forget_snapshots(self) -> None:
        """Removes the snapshots, of which a finished run has no need."""
        if self._writes:
            shutil.rmtree(self.snapshots, ignore_errors=True)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """config.yaml, resolved."""
        self._write("config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """A JSON file, atomically; numbers that are not finite become null."""
        self._write(name, json.dumps(_finite(value), indent=2) + "\n")

    def write_status(self, state: str, **more: Any) -> None:
        """status.json: running, stopped, finished, diverged or failed, and since when."""
        self.write("status.json", {"state": state, "time": time.time(), "host": socket.gethostname(),
                                   "pid": os.getpid(), **more})  # fmt: skip

    def write_failed(self, error: BaseException, **more: Any) -> None:
        """status.json: failed, and why. That another process of the run was lost does not replace what any of them has
        said since this one began, which is the reason.
        """
        said = self.status() or {}
        if (
            isinstance(error, RankLost)
            and said.get("state") == "failed"
            and said["time"] >= psutil.Process().create_time()
        ):
            return
        last = traceback.format_exception_only(error)[-1].strip()
        self.write_status("failed", error=last, **more)

    def metrics(self) -> list[dict[str, Any]]:
        """All whole rows of metrics.jsonl; a torn last line is cut from the file."""
        if not self._metrics.exists():
            return []
        data = self._metrics.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self._metrics, len(whole))
        return [json.loads(line) for line in whole.splitlines()]

    def keep_metrics(self, steps: int) -> None:
        """Drops the rows of steps after `steps`."""
        if not self._writes:
            return
        rows = [row for row in self.metrics() if row["steps"] <= steps]
        self._write("metrics.jsonl", "".join(json.dumps(_finite(row)) + "\n" for row in rows))

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a row to metrics.jsonl in one write."""
        if not self._writes:
            return
        line = json.dumps(_finite(row)).encode() + b"\n"
        try:
            size = self._metrics.stat().st_size if self._metrics.exists() else 0
            file = os.open(self._metrics, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                if os.write(file, line) < len(line):
                    os.ftruncate(file, size)
                    raise OSError(28, os.strerror(28))
            finally:
                os.close(file)
        except OSError as error:
            raise _unwritten(self._metrics, error) from error

    def _read(self, name: str) -> dict[str, Any] | None:
        return read_json(self.path / name)

    def _write(self, name: str, text: str) -> None:
        if not self._writes:
            return
        temporary = self.path / f".{name}.{os.getpid()}.tmp"
        try:
            temporary.write_text(text)
            os.replace(temporary, self.path / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _unwritten(self.path / name, error) from error


def current_umask() -> int:
    """The permissions that new files of this process do not get."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def follow_umask(folder: Path) -> None:
    """Gives files below a folder the permissions of any new file: some libraries make theirs for the owner alone."""
    mask = current_umask()
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def title_of(folder: Path) -> str:
    """A run's folder as a name: model, task and method, hash, seed."""
    return "/".join(folder.absolute().parts[-3:])


def _finite(value: Any) -> Any:
    """The same tree with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unwritten(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"{path} could not be written: {error.strerror}. The journal is intact; free space or mend the "
        "permissions, then run the same command again."
    )
