"""Records: rows of a table under the task's own names for their columns, every value checked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.choices import TaskChoice
from experiments.tasks.data import Table, listing
from zo.errors import DataError

Path = tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """One row: its number in the table, its fields, its option's number or its accepted answers, its place."""

    index: int
    fields: Mapping[str, str]
    label: int | None
    answers: tuple[str, ...]
    place: str


def records(table: Table, choice: TaskChoice, needed: Collection[str]) -> list[Record]:
    """All rows with the `needed` text fields. Raises DataError that lists what is wrong, row by row."""
    right = "label" if choice.options is not None else "answers"
    paths = _paths(table, choice, [*sorted(needed), right])
    problems: list[str] = []
    made = []
    for index, row in enumerate(table.rows):
        try:
            fields = {name: _text(_at(row, paths[name]), name) for name in needed}
            value = _at(row, paths[right])
            label = _label(value, choice) if right == "label" else None
            answers = _answers(value) if right == "answers" else ()
        except ValueError as error:
            problems.append(f"{table.place(index)}: {error}")
            continue
        made.append(Record(index, fields, label, answers, table.place(index)))
    if problems:
        raise DataError(listing(problems))
    return made


def _paths(table: Table, choice: TaskChoice, names: list[str]) -> dict[str, Path]:
    """Where each of our names is found in a row. A list of columns means the first there is."""
    paths: dict[str, Path] = {}
    missing: list[str] = []
    for name in names:
        spec = choice.columns[name]
        candidates = [spec] if isinstance(spec, str) else list(spec)
        there = [path for path in map(_path, candidates) if _has(table.rows[0], path)]
        if there:
            paths[name] = there[0]
        else:
            missing.append(f"{name} (looked for {' or '.join(candidates)})")
    if missing:
        example = missing[0].split(" ")[0]
        raise DataError(
            f"{table.where} lacks {', '.join(missing)}. Its columns are {', '.join(table.rows[0])}. "
            f"Name the right one: task.columns.{example}=<column>."
        )
    return paths


def _path(column: str) -> Path:
    return tuple(column.split("."))


def _has(row: Any, path: Path) -> bool:
    try:
        _at(row, path)
    except ValueError:
        return False
    return True


def _at(row: Any, path: Path) -> Any:
    """The value at `answers.text`, as the column of that very name or nested."""
    whole = ".".join(path)
    if whole in row:
        return row[whole]
    value = row
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"the column {whole} is missing; set task.columns if it has another name.")
        value = value[part]
    return value


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(
        f"{name} is {'null' if value is None else f'a {type(value).__name__}'}, but must be text."
    )


def _label(value: Any, choice: TaskChoice) -> int:
    options = choice.options or ()
    if choice.labels is not None:
        if value in choice.labels:
            return list(choice.labels).index(value)
        raise ValueError(f"label {value!r}; task.labels has {', '.join(map(repr, choice.labels))}.")
    if isinstance(value, int) and 0 <= value < len(options):
        return int(value)
    listed = ", ".join(f"{number} {option.strip()}" for number, option in enumerate(options))
    raise ValueError(
        f"label {value!r}; allowed are {listed}. Other values are listed in task.labels, in this order."
    )


def _answers(value: Any) -> tuple[str, ...]:
    answers = [value] if isinstance(value, str) else value
    if not isinstance(answers, Sequence) or not answers or not all(isinstance(a, str) for a in answers):
        raise ValueError(f"answers is {value!r}, but must be a text or a list of at least one.")
    return tuple(answers)
