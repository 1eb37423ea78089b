"""Rows of a split: from the built-in world, from a folder of jsonl or parquet files, or from the hub."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.task_config import TaskConfig
from experiments.models.hub import unreachable
from zo.errors import DataError

LISTED = 10  # problems of a file that are told at once


@dataclass(frozen=True)
class Table:
    """Rows as dicts, with where each came from: `where`:number."""

    rows: list[dict[str, Any]]
    where: str
    numbers: Sequence[int]

    def place(self, index: int) -> str:
        """The row's place, as messages name it."""
        return f"{self.where}:{self.numbers[index]}"


def read_split(choice: TaskConfig, names: Sequence[str]) -> Table:
    """All rows of a folder's first split of these names, or of the hub data set's split of the first name.

    Raises DataError.
    """
    if choice.data_dir is not None:
        table = _from_folder(Path(choice.data_dir).expanduser(), names)
    else:
        table = _from_hub(choice, names[0])
    if not table.rows:
        raise DataError(f"{table.where} is empty. Task {choice.name} needs examples there.")
    return table


def world_split(choice: TaskConfig, split: str, n: int, seed: int) -> Table:
    """n rows of the built-in world's train, dev or test."""
    from experiments.world.grammar import examples  # late: real data do not need it

    task = choice.source.world
    try:
        rows = examples(task, split, n, seed)  # type: ignore[arg-type]
    except KeyError:
        raise DataError(
            f"task.source.world={task}: the built-in tasks are sentiment, entailment and question."
        ) from None
    except ValueError as error:
        raise DataError(f"task.{split}={n}: {error}") from None
    return Table(rows, f"world/{task}/{split}", range(len(rows)))


def listing(problems: list[str]) -> str:
    """The first problems of a file, and how many more there are."""
    more = len(problems) - LISTED
    return "\n".join(problems[:LISTED] + ([f"and {more} more."] if more > 0 else []))


def _from_folder(folder: Path, names: Sequence[str]) -> Table:
    found = files_of(folder, names)
    return _read_parquet(found) if found[0].suffix == ".parquet" else _read_jsonl(found[0])


def files_of(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of the folder's first split of these names. Raises DataError where there is none."""
    if not folder.is_dir():
        raise DataError(f"task.data_dir={folder}: there is no such folder.")
    for split in names:
        for name in (f"{split}.jsonl", f"{split}.json"):
            if (folder / name).is_file():
                return [folder / name]
        parts = sorted([*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*.parquet")])
        if parts:
            return parts
    there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
    wanted = " or ".join(names)
    raise DataError(
        f"task.data_dir={folder} has no {wanted}.jsonl and no {wanted}.parquet; it holds {there}. "
        f"Rename a file, or name the split in task.source.train or task.source.test."
    )


def _read_jsonl(path: Path) -> Table:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    problems: list[str] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    for number, line in enumerate(lines, start=1):
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


def _read_parquet(paths: list[Path]) -> Table:
    import pyarrow  # late: most folders hold jsonl
    import pyarrow.parquet

    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            rows += pyarrow.parquet.read_table(path).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read as parquet ({str(error).splitlines()[0]}).") from None
    return Table(rows, str(paths[0]), range(len(rows)))


def _from_hub(choice: TaskConfig, split: str) -> Table:
    import datasets.config  # late: it takes seconds to import

    source = choice.source
    assert source.hub is not None
    name = f"{source.hub}{f' ({source.subset})' if source.subset else ''}"
    why = unreachable()
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline or why is not None  # else it retries for half a minute
    try:
        data = datasets.load_dataset(source.hub, source.subset, split=split, revision=source.revision)
    except Exception as error:  # datasets raises many kinds, some of them its own and private
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"The data set {name}, split {split}, cannot be loaded: {f'{why}; ' if why else ''}{first} "
            f"Give a folder (task.data_dir) with {split}.jsonl or {split}.parquet, or run with a network."
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    rows: list[dict[str, Any]] = data.to_list()  # type: ignore[union-attr]
    return Table(rows, f"{name}/{split}", range(len(rows)))
