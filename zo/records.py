"""Reads a journal's bytes: its header, and which of its records are whole."""

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

from zo.errors import JournalError

MAGIC = b"zo-journal-1\n"


def step_of(data: bytes, at: int, size: int) -> int | None:
    """Returns the step of the whole record that begins at a byte, or None."""
    record = data[at : at + size]
    if struct.unpack("<I", record[-4:])[0] != zlib.crc32(record[:-4]):
        return None
    return struct.unpack("<I", record[:4])[0]


def whole_behind(data: bytes, size: int, steps: int) -> int:
    """Counts the whole records after the first `steps`, also where bytes that are lost or added have moved them."""
    at, whole = steps * size + 1, 0
    while at + size <= len(data):
        is_whole = step_of(data, at, size) is not None
        whole += is_whole
        at += size if is_whole else 1
    return whole


def read_header(path: Path) -> dict[str, Any]:
    """The header of a journal, `losses` and `with_lr` among it. Raises JournalError for what is no journal."""
    try:
        with open(path, "rb") as file:
            return header_of(file.fileno(), path)[0]
    except OSError as error:
        raise JournalError(f"{path} could not be read: {error.strerror}.") from error


def header_of(file: int, path: Path) -> tuple[dict[str, Any], int]:
    """The header of an open journal, and where its records begin."""
    magic = os.pread(file, len(MAGIC), 0)
    (size,) = struct.unpack("<I", os.pread(file, 4, len(MAGIC)).ljust(4, b"\0"))
    size = min(size, os.fstat(file).st_size)  # a damaged size asks for gigabytes
    data = os.pread(file, size, len(MAGIC) + 4)
    check = os.pread(file, 4, len(MAGIC) + 4 + size)
    if magic != MAGIC or len(check) < 4 or struct.unpack("<I", check)[0] != zlib.crc32(data):
        raise JournalError(
            f"{path} is no journal of zo, or its header is damaged. Put a copy of it back; or start anew, with "
            "--rerun or in another folder: what lies beside it is of the run that is lost."
        )
    return json.loads(data), len(MAGIC) + 8 + size
