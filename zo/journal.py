"""A run is its journal: base model, config and the told losses rebuild the weights without a forward pass.

    file    = magic, header (JSON: names, shapes, dtypes, backends, what the run is), one record a step
    record  = step u32, losses f32 each, learning rate f32 if the clock decided it, CRC-32: 4·losses + 8 or 12 bytes

A record is written in one call before the weights move. A torn or damaged tail is cut when the file is
opened. The file is locked while open, so two processes cannot write one run; the lock dies with its process.
"""

import errno
import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zo.errors import JournalError, Locked
from zo.team import Team

MAGIC = b"zo-journal-1\n"


@dataclass(frozen=True)
class Record:
    """What step t consumed: its losses as told, and the learning rate if the clock decided it."""

    losses: tuple[float, ...]
    lr: float | None


class Journal:
    """The records of a run, on disk.

    path: made with its header if it is not there. header: what the run is; on reopening every entry must be
    equal, except those named in `accept`. losses: floats a step. with_lr: whether records hold the rate.
    sync_seconds: at most so much work is lost when the machine (not just the process) goes down.
    Raises JournalError when the header differs, the file is no journal, or another process holds it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: dict[str, Any],
        losses: int,
        *,
        with_lr: bool = False,
        accept: Iterable[str] = (),
        sync_seconds: float = 5.0,
    ):
        self.path = Path(path)
        self.header = json.loads(json.dumps({**header, "losses": losses, "with_lr": with_lr}))
        self._struct = struct.Struct(f"<I{losses}f" + ("f" if with_lr else ""))
        self._size = self._struct.size + 4
        self._with_lr = with_lr
        self._sync_seconds = sync_seconds
        self._synced = time.monotonic()
        try:
            if not self.path.exists():
                self._create()
            self._file = os.open(self.path, os.O_RDWR)
        except OSError as error:
            raise _full(self.path, error) from error
        try:
            self._lock()
            self._start = self._read_header(set(accept))
            self._steps = self._whole_records()
            os.ftruncate(self._file, self._start + self._steps * self._size)
        except BaseException:
            os.close(self._file)
            raise

    def _create(self) -> None:
        data = json.dumps(self.header, sort_keys=True).encode()
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(MAGIC + struct.pack("<I", len(data)) + data + struct.pack("<I", zlib.crc32(data)))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, self.path)  # unlike a rename it leaves a journal that another process made
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.rename(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # a file system without locks
            raise Locked(
                f"Another process is running in {self.path.parent}. Wait for it, or stop it: one run folder "
                "takes one process at a time."
            ) from error

    def _read_header(self, accept: set[str]) -> int:
        magic = os.pread(self._file, len(MAGIC), 0)
        (size,) = struct.unpack("<I", os.pread(self._file, 4, len(MAGIC)).ljust(4, b"\0"))
        size = min(size, os.fstat(self._file).st_size)  # a damaged size asks for gigabytes
        data = os.pread(self._file, size, len(MAGIC) + 4)
        check = os.pread(self._file, 4, len(MAGIC) + 4 + size)
        if magic != MAGIC or len(check) < 4 or struct.unpack("<I", check)[0] != zlib.crc32(data):
            raise JournalError(
                f"{self.path} is no journal of zo, or its header is damaged. Move it away to start anew."
            )
        theirs = json.loads(data)
        differing = [
            f"  {key}: the journal has {_short(theirs.get(key))}, this run has {_short(self.header.get(key))}"
            for key in sorted(theirs.keys() | self.header.keys())
            if theirs.get(key) != self.header.get(key) and key not in accept
        ]
        if differing:
            raise JournalError(
                f"{self.path} was written by another run:\n"
                + "\n".join(differing)
                + "\nGo back to what it has, or "
                "accept the difference by name (checkpoint.accept=[...]), or start anew in another folder."
            )
        return len(MAGIC) + 8 + size

    def _whole_records(self) -> int:
        data = os.pread(self._file, os.fstat(self._file).st_size, self._start)
        for t in range(len(data) // self._size):
            record = data[t * self._size : (t + 1) * self._size]
            if struct.unpack("<I", record[-4:])[0] != zlib.crc32(record[:-4]) or record[:4] != struct.pack(
                "<I", t
            ):
                return t
        return len(data) // self._size

    def __len__(self) -> int:
        """Steps recorded."""
        return self._steps

    def __getitem__(self, t: int) -> Record:
        if not 0 <= t < self._steps:
            raise IndexError(f"step {t} of {self._steps}")
        data = os.pread(self._file, self._struct.size, self._start + t * self._size)
        _, *values = self._struct.unpack(data)
        return Record(tuple(values[:-1]), values[-1]) if self._with_lr else Record(tuple(values), None)

    def append(self, losses: Sequence[float], lr: float | None = None) -> None:
        """Writes the record of the next step; fp32 values come back as they are.

        Raises JournalError, with the file as it was, when the disk is full or cannot be written.
        """
        values = [*losses, lr] if self._with_lr else losses
        data = self._struct.pack(self._steps, *values)
        data += struct.pack("<I", zlib.crc32(data))
        place = self._start + self._steps * self._size
        try:
            if os.pwrite(self._file, data, place) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if time.monotonic() - self._synced > self._sync_seconds:
                self.sync()
        except OSError as error:
            os.ftruncate(self._file, place)
            raise _full(self.path, error) from error
        self._steps += 1

    def truncate(self, steps: int) -> None:
        """Forgets all records from `steps` on."""
        self._steps = min(self._steps, steps)
        os.ftruncate(self._file, self._start + self._steps * self._size)

    def sync(self) -> None:
        """Forces the records to the disk."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Syncs and releases the lock."""
        self.sync()
        os.close(self._file)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Copy:
    """The journal of a rank that writes no files: what rank 0's holds, kept in memory.

    header: what the run is. records: those that rank 0 read from its file.
    """

    def __init__(self, header: dict[str, Any], records: Sequence[Record]):
        self.header = header
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, t: int) -> Record:
        return self._records[t]

    def append(self, losses: Sequence[float], lr: float | None = None) -> None:
        """Adds the record of the next step."""
        self._records.append(Record(tuple(losses), lr))

    def truncate(self, steps: int) -> None:
        """Forgets all records from `steps` on."""
        del self._records[steps:]

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> "Copy":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def opened(team: Team, open_file: Callable[[], Journal]) -> Journal | Copy:
    """The journal of a team: rank 0 opens the file, the others copy what it holds."""
    journal: Journal | None = None

    def read() -> tuple[dict[str, Any], list[Record]]:
        nonlocal journal
        journal = open_file()
        return journal.header, [journal[t] for t in range(len(journal))] if team.size > 1 else []

    header, records = team.first(read)
    return Copy(header, records) if journal is None else journal


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _full(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"{path} could not be written: {error.strerror}. What was written before is intact; free space or "
        "mend the permissions, then run the same command again."
    )
