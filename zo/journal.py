"""Records the losses of a run. Base model, configuration and losses rebuild the weights without a forward pass.

    file    = magic, header (JSON: names, shapes, dtypes, backends, identity of the run), one record a step
    record  = step u32, losses f32 each, learning rate f32 if the clock decided it, CRC-32: 4·losses + 8 or 12 bytes

A record is written in one call before the weights move. So a crash can tear only the last one, which is cut when the
file is opened for writing. A damaged record with whole ones behind it is no torn end: the journal is then refused and
the file left as it is. Readers change nothing. The file is locked while it is open, so two processes cannot write one
run; the lock ends with its process.
"""

import errno
import fcntl
import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zo.errors import JournalError, Locked
from zo.records import MAGIC, header_of, read_header, step_of, whole_behind
from zo.team import Team


@dataclass(frozen=True)
class Record:
    """Holds the input of a step: its losses, and the learning rate if the clock decided it."""

    losses: tuple[float, ...]
    lr: float | None


class Journal:
    """The records of a run, in a file.

    path: the file; it is created with its header if it does not exist. header: identifies the run; on reopening every
    entry must be equal, except those named in `accept`. losses: floats a step. with_lr: True if records hold the rate.
    sync_seconds: the work that is lost at most when the machine (not just the process) goes down.
    read_only: opens an existing file for reading, and never changes it.
    created: True if this call created the file. damage: a reader's sentence about a damaged record with whole ones
    behind it, else None. The records before it can be read.
    Raises JournalError when the header differs, the file is no journal, a record in the middle is damaged and the
    file is opened for writing, or another process holds it.
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
        read_only: bool = False,
    ):
        self.path = Path(path)
        self.header = json.loads(json.dumps({**header, "losses": losses, "with_lr": with_lr}))
        self._struct = struct.Struct(f"<I{losses}f" + ("f" if with_lr else ""))
        self._size = self._struct.size + 4
        self._with_lr = with_lr
        self._sync_seconds = sync_seconds
        self._synced = time.monotonic()
        self._read_only = read_only
        self.created = False
        self.damage: str | None = None
        self._file = self._open()
        try:
            self._lock()
            self._start = self._read_header(set(accept))
            self._prefix = (hashlib.sha256(os.pread(self._file, self._start, 0)), 0)
            self._steps = self._check_records()
            if not read_only:
                self._cut()
        except OSError as error:
            os.close(self._file)
            raise _unwritable(self.path, error) from error
        except BaseException:  # nothing is handled: the file is closed and the exception raised again
            os.close(self._file)
            raise

    def _open(self) -> int:
        """Opens the file, but follows no link: its target would belong to something else."""
        try:
            if self.path.is_symlink():
                raise JournalError(
                    f"{self.path} is a link. A journal is neither read nor written through one: put the file itself "
                    "there."
                )
            if self._read_only:
                return os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
            if not self.path.exists():
                self._create()
            return os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            if self._read_only:
                raise JournalError(f"{self.path} is not there: no step of this run was recorded.") from error
            raise _unwritable(self.path, error) from error
        except OSError as error:
            if self._read_only:
                raise JournalError(f"{self.path} could not be read: {error.strerror}.") from error
            raise _unwritable(self.path, error) from error

    def _create(self) -> None:
        data = json.dumps(self.header, sort_keys=True).encode()
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(MAGIC + struct.pack("<I", len(data)) + data + struct.pack("<I", zlib.crc32(data)))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(
                    temporary, self.path
                )  # unlike a rename, it does not replace another process's journal
                self.created = True
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.rename(temporary, self.path)
                self.created = True
        finally:
            temporary.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if self._read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # a file system without locks
            raise Locked(
                f"Another process is running in {self.path.parent}. Wait for it, or stop it: one run folder "
                "takes one process at a time."
            ) from error

    def _read_header(self, accept: set[str]) -> int:
        stored, start = header_of(self._file, self.path)
        differing = [
            f"  {key}: the journal has {_short(stored.get(key))}, this run has {_short(self.header.get(key))}"
            for key in sorted(stored.keys() | self.header.keys())
            if stored.get(key) != self.header.get(key) and key not in accept
        ]
        if differing:
            raise JournalError(
                f"{self.path} was written by another run:\n"
                + "\n".join(differing)
                + "\nGo back to what it has, or "
                "accept the difference by name (checkpoint.accept=[...]), or start anew in another folder."
            )
        return start

    def _check_records(self) -> int:
        """Returns the number of whole records from the first on.

        Whole records behind a damaged one raise JournalError, or are noted in `damage` for a reader.
        """
        data = os.pread(self._file, os.fstat(self._file).st_size, self._start)
        count = len(data) // self._size
        steps = next((t for t in range(count) if step_of(data, t * self._size, self._size) != t), count)
        behind = whole_behind(data, self._size, steps)
        if behind:
            self.damage = (
                f"Record {steps + 1:,} of {count:,} of {self.path} is damaged; {_records(behind)} behind it "
                f"{'is' if behind == 1 else 'are'} whole, and nothing was changed. Put a copy of the file back. Else "
                f"`zo cut RUN` cuts the journal after the first {_records(steps)} and keeps this file under another "
                "name, and the run's command with --rerun starts anew."
            )
            if not self._read_only:
                raise JournalError(self.damage)
        return steps

    def _cut(self) -> None:
        """Removes a torn last record; a file without one is not touched."""
        if os.fstat(self._file).st_size > self.bytes:
            os.ftruncate(self._file, self.bytes)

    def __len__(self) -> int:
        """Returns the number of recorded steps."""
        return self._steps

    @property
    def bytes(self) -> int:
        """Returns the size of the header and the whole records."""
        return self._start + self._steps * self._size

    def __getitem__(self, t: int) -> Record:
        if not 0 <= t < self._steps:
            raise IndexError(f"step {t} of {self._steps}")
        data = os.pread(self._file, self._struct.size, self._start + t * self._size)
        _, *values = self._struct.unpack(data)
        return Record(tuple(values[:-1]), values[-1]) if self._with_lr else Record(tuple(values), None)

    def digest(self, steps: int) -> str:
        """Returns 16 hexadecimal digits of the header and the first records, which bind other files to them.

        Raises IndexError for more steps than are recorded.
        """
        if not 0 <= steps <= self._steps:
            raise IndexError(f"{steps} of {self._steps} steps")
        total, done = self._prefix
        if steps < done:
            total, done = hashlib.sha256(os.pread(self._file, self._start, 0)), 0
        total.update(os.pread(self._file, (steps - done) * self._size, self._start + done * self._size))
        self._prefix = (total, steps)
        return total.hexdigest()[:16]

    def append(self, losses: Sequence[float], lr: float | None = None) -> None:
        """Writes the record of the next step; fp32 values are read back without change.

        Raises JournalError, and leaves the file as it was, when the disk is full or cannot be written.
        """
        values = [*losses, lr] if self._with_lr else losses
        data = self._struct.pack(self._steps, *values)
        data += struct.pack("<I", zlib.crc32(data))
        end = self.bytes
        try:
            if os.pwrite(self._file, data, end) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if time.monotonic() - self._synced > self._sync_seconds:
                self._sync()
        except OSError as error:
            with suppress(OSError):  # the first error is the one to show; a torn record is cut on opening
                os.ftruncate(self._file, end)
            raise _unwritable(self.path, error) from error
        self._steps += 1

    def truncate(self, steps: int) -> None:
        """Drops all records from `steps` on."""
        self._steps = min(self._steps, steps)
        if self._prefix[1] > self._steps:
            self._prefix = (hashlib.sha256(os.pread(self._file, self._start, 0)), 0)
        try:
            self._cut()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def sync(self) -> None:
        """Forces the records to the disk. Raises JournalError when that fails."""
        try:
            self._sync()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _sync(self) -> None:
        if not self._read_only:
            os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Syncs and releases the lock."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            return self.close()
        with suppress(JournalError):  # the error that ended the block is the one to show
            self.close()
        return None


class Copy:
    """The journal of a rank that writes no files: a copy of rank 0's in memory.

    header: identifies the run. records: those that rank 0 read from its file.
    """

    def __init__(self, header: dict[str, Any], records: Sequence[Record]):
        self.header = header
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, t: int) -> Record:
        return self._records[t]

    def digest(self, steps: int) -> str:
        """Returns an empty digest, because this rank writes no file that could be bound to the journal."""
        return ""

    def append(self, losses: Sequence[float], lr: float | None = None) -> None:
        """Adds the record of the next step."""
        self._records.append(Record(tuple(losses), lr))

    def truncate(self, steps: int) -> None:
        """Drops all records from `steps` on."""
        del self._records[steps:]

    def close(self) -> None:
        """Does nothing, because no file is open."""

    def __enter__(self) -> "Copy":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def open_unchecked(path: Path) -> Journal:
    """Returns the journal of any run for reading, described by its own header."""
    header = read_header(path)
    return Journal(path, header, header["losses"], with_lr=header["with_lr"], read_only=True)


def opened(team: Team, open_file: Callable[[], Journal]) -> Journal | Copy:
    """Returns the journal of a team: rank 0 opens the file, the others get a copy of its records."""
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


def _records(count: int) -> str:
    return f"{count:,} record{'' if count == 1 else 's'}"


def _unwritable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"{path} could not be written: {error.strerror}. What was written before is intact; free space or "
        "mend the permissions, then run the same command again."
    )
