"""Manages a run's folder: runs/<experiment>/<model>-<task>-<optimizer>-<peft>/<hash8>/seed<k>/.

config.yaml      the resolved configuration       provenance.json  code, machine, versions
journal          zo.journal                       snapshots/       zo.snapshots
metrics.jsonl    one JSON object a line           status.json      what the run is doing
result.json      written last: the run has ended  model/           the selected weights
lock             while a process is at it         submission.json  how a launcher started it
log.txt          what a launched run said         memory.json      experiments.training.oom
answers.json     the reported weights' answer to each test example
"""

import errno
import json
import math
import os
import shutil
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil

from experiments.rundir.json_files import (
    RESULT_DIGEST,
    Row,
    config_text,
    digest_of,
    numbered_rows,
    read_configuration,
    read_json,
    read_result,
    read_rows,
    warnings_of,
)
from experiments.rundir.lock import Lock
from zo.errors import JournalError, RankLost

# What a run writes into its folder; none of them may be a link, which would be written through.
WRITTEN = (
    "config.yaml",
    "journal",
    "lock",
    "log.txt",
    "metrics.jsonl",
    "model",
    "model.unfinished",
    "snapshots",
    "STOP",
)


SECTIONS = ("model", "task", "peft", "optimizer", "schedule")


_LEFTOVERS = (".*.tmp", "journal.*.tmp")  # of writers that were killed


class RunFolder:
    """The files of one run; a failed write raises JournalError and leaves the older file intact.

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
        self.warned: list[str] = []  # sentences of this process, in which it goes on adding some
        self._anew = False  # whether what the files say of warnings is another run's

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
        """Returns the result of a run that has ended, or None; a damaged result counts as none and is rewritten."""
        return read_result(self.path)[0]

    def status(self) -> dict[str, Any] | None:
        """Returns the last status written, or None."""
        return self._read("status.json")

    def memory(self) -> dict[str, Any] | None:
        """Returns the batch sizes that fit into memory, or None (experiments.training.oom)."""
        return self._read("memory.json")

    def stop_asked(self) -> bool:
        """Returns True if a file STOP is in the folder."""
        return (self.path / "STOP").exists()

    def locked(self) -> AbstractContextManager[object]:
        """Holds the folder's lock, so that no other process can run here.

        Raises Locked where one does, and JournalError where a file of the run is a link: what it leads to is not ours.
        """
        for name in WRITTEN if self._writes else ():
            if (path := self.path / name).is_symlink():
                raise JournalError(
                    f"{path} is a link to {os.readlink(path)}. Files of a run are never written through a link: "
                    "remove it, or put there what it leads to."
                )
        return Lock(self.path / "lock") if self._writes else nullcontext()

    def clear(self) -> None:
        """Removes a run's files, so that it starts again."""
        if not self._writes:
            return
        for name in ("status.json", "journal", "STOP"):
            _remove(self.path / name)
        self.clear_beside()

    def clear_beside(self) -> None:
        """Removes the files that belong to a journal: rows, result, snapshots, weights."""
        if not self._writes:
            return
        self._anew = True
        for name in ("result.json", "answers.json", "metrics.jsonl", "memory.json"):
            _remove(self.path / name)
        for folder in (self.snapshots, self.model):
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Removes leftovers of killed writers; this process holds the lock, so no other one is writing."""
        if not self._writes:
            return
        for pattern in _LEFTOVERS:
            for leftover in self.path.glob(pattern):
                _remove(leftover)
        shutil.rmtree(self.path / "model.unfinished", ignore_errors=True)

    def is_tidy(self) -> bool:
        """Returns True if a process killed after writing the result left nothing undone."""
        result = self.result()
        return result is None or (
            not any(leftover for pattern in _LEFTOVERS for leftover in self.path.glob(pattern))
            and not self.snapshots.exists()
            and (self.status() or {}).get("state") == result["status"]
            and read_configuration(self.path)[1] is None
        )

    def tidy(self, config: Mapping[str, Any]) -> None:
        """Cleans up after a process that was killed once it had written the result. The caller holds the lock."""
        result = self.result()
        if result is None or not self._writes:
            return
        self.sweep()
        self.forget_snapshots()
        self._write_ended(result)
        self.write_config(config)

    def forget_stop(self) -> None:
        """Removes the file STOP."""
        if self._writes:
            _remove(self.path / "STOP")

    def forget_snapshots(self) -> None:
        """Removes the snapshots, which a finished run does not need."""
        if self._writes:
            shutil.rmtree(self.snapshots, ignore_errors=True)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.yaml, resolved."""
        self._write("config.yaml", config_text(config))

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file atomically; numbers that are not finite become null."""
        self._write(name, json.dumps(_finite(value), indent=2) + "\n")

    def write_compact(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON file atomically, one line per key."""
        lines = [f"{json.dumps(key)}: {json.dumps(_finite(item))}" for key, item in value.items()]
        self._write(name, "{\n" + ",\n".join(lines) + "\n}\n")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, which ends the run; then the status, which records that and its digest."""
        self.write("result.json", result)
        self._write_ended(result)

    def _write_ended(self, result: Mapping[str, Any]) -> None:
        digest = {RESULT_DIGEST: digest_of(self.path / "result.json")}
        reason = {"reason": result["reason"]} if result.get("reason") else {}
        self.write_status(result["status"], steps=result["steps"], **reason, **digest)

    def write_status(self, state: str, **more: Any) -> None:
        """Writes status.json: running, stopped, finished, diverged or failed, since when, and all warnings so far."""
        self.write("status.json", {"state": state, "time": time.time(), "host": socket.gethostname(),
                                   "pid": os.getpid(), **more, "warnings": self.warnings()})  # fmt: skip

    def warnings(self) -> list[str]:
        """Returns each warning of the run once: those of earlier processes in status.json, and this one's."""
        earlier = [] if self._anew else warnings_of(self.status())
        return list(dict.fromkeys([*earlier, *self.warned]))

    def write_failed(self, error: BaseException, **more: Any) -> None:
        """Writes status.json: failed, and why.

        That another process of the run was lost does not replace a reason that any of them has written since this one
        began.
        """
        status = self.status() or {}
        if (
            isinstance(error, RankLost)
            and status.get("state") == "failed"
            and status["time"] >= psutil.Process().create_time()
        ):
            return
        last = traceback.format_exception_only(error)[-1].strip()
        self.write_status("failed", error=last, **more)

    def metrics(self) -> list[Row]:
        """Returns all complete rows of metrics.jsonl."""
        return read_rows(self.path)[0]

    def rows_before_damage(self) -> tuple[list[Row], int | None]:
        """Returns the rows before the first damaged line of metrics.jsonl, and that line's number or None."""
        rows, bad = numbered_rows(self.path)
        return (rows, None) if not bad else (rows[: bad[0] - 1], bad[0])

    def keep_metrics(self, steps: int) -> None:
        """Drops the rows of steps after `steps`."""
        if self._writes:
            self.replace_metrics([row for row in self.metrics() if row["steps"] <= steps])

    def replace_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rewrites metrics.jsonl with only these rows."""
        text = "".join(json.dumps(_finite(row)) + "\n" for row in rows)
        if (self._metrics.read_bytes() if self._metrics.exists() else b"") != text.encode():
            self._write("metrics.jsonl", text)

    def keep_damaged_metrics(self) -> Path:
        """Copies metrics.jsonl as it is now, before it is repaired."""
        copy = self._metrics.with_name("metrics.jsonl.damaged")
        try:
            shutil.copy2(self._metrics, copy)
        except OSError as error:
            raise _unwritten(copy, error) from error
        return copy

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a row to metrics.jsonl in one write; evaluations, which decide the run, are synced at once."""
        if not self._writes:
            return
        line = json.dumps(_finite(row)).encode() + b"\n"
        try:
            size = self._metrics.stat().st_size if self._metrics.exists() else 0
            file = os.open(self._metrics, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            try:
                if os.write(file, line) < len(line):
                    os.ftruncate(file, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if row["kind"] != "train":
                    os.fsync(file)
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
            temporary.unlink(missing_ok=True)
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
            with open(file, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                # Synced before the rename: otherwise a power cut may leave an empty file under the name.
                os.fsync(file)
            os.replace(temporary, self.path / name)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _unwritten(self.path / name, error) from error


def current_umask() -> int:
    """Returns the permissions that new files of this process do not get."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def follow_umask(folder: Path) -> None:
    """Gives files below a folder the permissions of any new file: some libraries create theirs for the owner only."""
    mask = current_umask()
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def title_of(folder: Path) -> str:
    """Returns a run's folder as a name: model, task and method, hash, seed."""
    return "/".join(folder.absolute().parts[-3:])


def _finite(value: Any) -> Any:
    """Returns the same tree with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"{path} could not be written: {error.strerror}. The journal is intact; free space or mend the "
        "permissions, then run the same command again."
    )
