"""Reads files of rows: JSON lines, a JSON array, CSV, TSV and parquet. Text is always UTF-8, and may be gzipped.

A split is a file of its name, parts of a parquet file, or a folder of its name with files of one kind.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zo.errors import DataError

LISTED = 10  # problems of a file that one message lists
JSON, TABLES, PARQUET = (".jsonl", ".json"), (".csv", ".tsv"), ".parquet"
TEXTS = tuple(kind + packed for kind in (*JSON, *TABLES) for packed in ("", ".gz"))
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # how UTF-16 begins


@dataclass(frozen=True)
class Table:
    """Rows as dicts, with where each came from: `where`:number. typed: False for CSV and TSV, where all is text."""

    rows: list[dict[str, Any]]
    where: str
    numbers: Sequence[int]
    typed: bool = True

    def place(self, index: int) -> str:
        """The row's place, as messages name it."""
        return f"{self.where}:{self.numbers[index]}"


def listing(problems: list[str]) -> str:
    """The first problems of a file, and how many more there are."""
    more = len(problems) - LISTED
    return "\n".join(problems[:LISTED] + ([f"and {more} more."] if more > 0 else []))


def files_of(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of the folder's first split of these names; the one file where `folder` is a file.

    Raises DataError where there is none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise DataError(f"task.data_dir={folder}: there is no such folder.")
    for split in names:
        for kind in TEXTS:
            if (folder / f"{split}{kind}").is_file():
                return [folder / f"{split}{kind}"]
        parts = sorted([*folder.glob(f"{split}{PARQUET}"), *folder.glob(f"{split}-*{PARQUET}")])
        if parts:
            return parts
        if parts := _within(folder / split):
            return parts
    there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
    wanted = " or ".join(names)
    raise DataError(
        f"task.data_dir={folder} has no {wanted}.jsonl, .json, .csv, .tsv (each also .gz) or .parquet and no folder "
        f"{wanted}; it holds {there}. Rename a file, name the split in task.source.train or task.source.test, or, if "
        f"all rows are in one file, set task.data_dir to it and task.test_share=0.2."
    )


def _within(folder: Path) -> list[Path]:
    """The files of rows in a split's own folder. Raises DataError for files of several kinds."""
    if not folder.is_dir():
        return []
    files = sorted(p for p in folder.iterdir() if p.is_file() and kind_of(p) is not None)
    kinds = {kind_of(path) for path in files}
    if len(kinds) > 1:
        raise DataError(
            f"{folder} holds files of several kinds ({', '.join(p.name for p in files)}); leave those of one."
        )
    return files


def kind_of(path: Path) -> str | None:
    """Returns .jsonl, .json, .csv, .tsv or .parquet; None for any other file name."""
    kind = Path(path.name.removesuffix(".gz")).suffix
    return (
        kind if kind in (*JSON, *TABLES, PARQUET) and not (kind == PARQUET and path.suffix == ".gz") else None
    )


def read_files(paths: Sequence[Path]) -> Table:
    """The rows of a split's files, one after the other. Raises DataError."""
    kind = kind_of(paths[0])
    if kind is None:
        raise DataError(
            f"{paths[0]} is no file of rows: .jsonl, .json, .csv, .tsv (each also .gz) and .parquet are read."
        )
    if kind == PARQUET:
        return _parquet(paths)
    tables = [_table(path) if kind in TABLES else _json(path) for path in paths]
    if len(tables) == 1:
        return tables[0]
    rows = [row for table in tables for row in table.rows]
    return Table(rows, str(paths[0].parent), range(1, len(rows) + 1), tables[0].typed)


def _text(path: Path) -> bytes:
    """The file's bytes, unpacked, without a byte order mark. Raises DataError."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    if content.startswith(_WIDE):
        raise DataError(f"{path} is UTF-16. Save it as UTF-8, as with iconv -f UTF-16 -t UTF-8.")
    return content.removeprefix(b"\xef\xbb\xbf")


def _json(path: Path) -> Table:
    """One object a line, or one array of objects, whose rows are counted from 1."""
    content = _text(path)
    if content.lstrip().startswith(b"[") and not _lines_of_json(content):
        return _array(path, content)
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    problems: list[str] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:  # no UTF-8 is a ValueError too
            problems.append(f"{path}:{number}: this is no JSON ({error}). Each line is one JSON object.")
            continue
        if isinstance(row, dict):
            rows.append(row)
            numbers.append(number)
        else:
            problems.append(f"{path}:{number}: this is no JSON object but a {type(row).__name__}.")
    if problems:
        raise DataError(listing(problems))
    return Table(rows, str(path), numbers)


def _lines_of_json(content: bytes) -> bool:
    """Returns whether an array stands on the first line, and more JSON behind it."""
    first, _, rest = content.lstrip().partition(b"\n")
    try:
        json.loads(first.decode("utf-8"))
    except ValueError:
        return False
    return bool(rest.strip())


def _array(path: Path, content: bytes) -> Table:
    try:
        rows = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path} is neither a JSON array ({error}) nor one JSON object on each line."
        ) from None
    problems = [
        f"{path}: row {number} is no JSON object but a {type(row).__name__}."
        for number, row in enumerate(rows, start=1)
        if not isinstance(row, dict)
    ]
    if problems:
        raise DataError(listing(problems))
    return Table(rows, str(path), range(1, len(rows) + 1))


def _table(path: Path) -> Table:
    """Returns rows named by the first line. Every value is text: NA and 2012 are not converted."""
    try:
        text = _text(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}). Save it as UTF-8.") from None
    header = text.partition("\n")[0]
    # Spreadsheets of many countries write CSV with semicolons.
    mark = "\t" if kind_of(path) == ".tsv" else ";" if ";" in header and "," not in header else ","
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    problems: list[str] = []
    names: list[str] = []
    try:
        names = [name.strip() for name in next(reader, [])]
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                problems.append(
                    f"{path}:{reader.line_num}: {len(row)} values for the {len(names)} columns of the first line. A "
                    f"text that holds {mark!r} needs quotes around it."
                )
                continue
            rows.append(dict(zip(names, row, strict=True)))
            numbers.append(reader.line_num)
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}: {error}.")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        problems.insert(
            0, f"{path}:1: two columns are called {', '.join(doubled)}. The first line names the columns."
        )
    if problems:
        raise DataError(listing(problems))
    return Table(rows, str(path), numbers, typed=False)


def _parquet(paths: Sequence[Path]) -> Table:
    import pyarrow  # late: most folders hold text
    import pyarrow.parquet

    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            rows += pyarrow.parquet.read_table(path).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read as parquet ({str(error).splitlines()[0]}).") from None
    return Table(rows, str(paths[0]), range(len(rows)))
