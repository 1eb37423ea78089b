"""Rows of a split: from the built-in world, from the files of a folder, or from the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.task_config import TaskConfig
from experiments.models.hub import unreachable
from experiments.tasks.rowfiles import LISTED, Table, files_of, listing, read_files
from zo.errors import DataError

__all__ = ["LISTED", "Table", "files_of", "listing", "read_split", "split_files", "world_split"]


def read_split(choice: TaskConfig, names: Sequence[str]) -> Table:
    """All rows of a folder's first split of these names, or of the hub data set's split of the first name.

    Raises DataError.
    """
    if choice.data_dir is not None:
        table = read_files(split_files(choice, names))
    else:
        table = _from_hub(choice, names[0])
    if not table.rows:
        raise DataError(f"{table.where} is empty. Task {choice.name} needs examples there.")
    return table


def split_files(choice: TaskConfig, names: Sequence[str]) -> list[Path]:
    """The files of task.data_dir's first split of these names.

    Raises DataError where there is none, and for one file that is to be both train and test without being shared out.
    """
    assert choice.data_dir is not None
    place = Path(choice.data_dir).expanduser()
    if place.is_file() and choice.test_share is None:
        raise DataError(
            f"task.data_dir={place} is one file, from which test examples have to be taken too. Set "
            f"task.test_share=0.2 to keep a fifth of its rows for them, or give a folder with a file for each split."
        )
    return files_of(place, names)


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
