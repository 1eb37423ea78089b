"""Records: rows of a table under the task's own names for their columns, every value checked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.config.row_functions import FUNCTIONS
from experiments.config.task_config import TaskConfig
from experiments.tasks.data import Table, listing
from zo.errors import DataError

Path = tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """Holds one row of a table.

    It has its number in the table, its fields, the numbers of its right options (training aims at the first) or its
    accepted answers, its place, and its options where they are its own.
    """

    index: int
    fields: Mapping[str, str]
    golds: tuple[int, ...]
    answers: tuple[str, ...]
    place: str
    candidates: tuple[str, ...] = ()


def records(table: Table, choice: TaskConfig, needed: Collection[str]) -> list[Record]:
    """All rows with the `needed` text fields, but for those that task.drop names.

    Raises DataError that lists what is wrong, row by row.
    """
    function = FUNCTIONS[choice.function] if choice.function is not None else None
    wanted = {*needed, "answers" if choice.generated else "label"}
    wanted |= {choice.candidates} if choice.candidates is not None else set()
    if function is not None:
        wanted = (wanted - set(function.makes)) | set(function.reads)
    paths = _paths(table, choice, sorted(wanted))
    labels = _labels(choice, paths.get("label"))
    problems: list[str] = []
    unknown: dict[str, list[str]] = {}  # places by the label that is none of the task's
    records = []
    for index, row in enumerate(table.rows):
        place = table.place(index)
        try:
            values = {name: _at(row, path) for name, path in paths.items()}
            if not table.typed and "label" in values and choice.candidates is None:
                values["label"] = _typed(values["label"], labels, choice)
            if choice.drop and values.get("label") in choice.drop:
                continue
            if function is not None:
                values |= function.call(values)
            fields = {name: _text(values[name], name) for name in needed}
            records.append(_record(index, fields, values, choice, labels, place))
        except _UnknownLabel as error:
            unknown.setdefault(str(error), []).append(place)
        except ValueError as error:
            problems.append(f"{place}: {error}")
    problems = [_labelled(places, what) for what, places in unknown.items()] + problems
    if problems:
        raise DataError(listing(problems))
    if not records:
        raise DataError(f"{table.where}: task.drop={list(choice.drop)} leaves no row.")
    return records


class _UnknownLabel(ValueError):
    """A label that is none of the task's. Its text is the same for every row of that label."""


def _labelled(places: list[str], what: str) -> str:
    """A sentence on all rows of one wrong label."""
    return f"{places[0]}: {what}" + (f" In {len(places):,} rows." if len(places) > 1 else "")


def _typed(value: Any, labels: Sequence[Any] | None, choice: TaskConfig) -> Any:
    """A label of a file in which all is text: the value of task.labels or task.drop that is written so, or a number."""
    for known in (*(labels or ()), *choice.drop):
        if value == known or str(known).lower() == str(value).strip().lower():
            return known
    written = str(value).strip()
    return int(written) if labels is None and written.removeprefix("-").isdigit() else value


def _record(
    index: int,
    fields: Mapping[str, str],
    values: Mapping[str, Any],
    choice: TaskConfig,
    labels: Sequence[Any] | None,
    place: str,
) -> Record:
    if choice.generated:
        return Record(index, fields, (), _answers(values["answers"]), place)
    if choice.candidates is None:
        return Record(index, fields, (_label(values["label"], choice, labels),), (), place)
    candidates = _candidates(values[choice.candidates], choice.candidates)
    return Record(index, fields, _right(values["label"], candidates), (), place, candidates)


def _labels(choice: TaskConfig, path: Path | None) -> Sequence[Any] | None:
    """Label values in the order of options, for the column that the label is in."""
    if not isinstance(choice.labels, Mapping):
        return choice.labels
    column = ".".join(path or ())
    if column in choice.labels:
        return choice.labels[column]
    raise DataError(
        f"task.labels has lists for {', '.join(choice.labels)}, but the label is in {column}. Add one for it."
    )


def _paths(table: Table, choice: TaskConfig, names: list[str]) -> dict[str, Path]:
    """Returns the column of each of our names in a row; of a list of columns, the first that exists."""
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
        _check_kind(table)
        example = missing[0].split(" ")[0]
        raise DataError(
            f"{table.where} lacks {', '.join(missing)}. Its columns are {', '.join(table.rows[0])}. "
            f"Name the right one: task.columns.{example}=<column>."
        )
    return paths


def _check_kind(table: Table) -> None:
    """Raises DataError for kinds of data that no task takes, of which the columns speak."""
    columns = set(table.rows[0])
    if {"chosen", "rejected"} <= columns:
        raise DataError(
            f"{table.where} holds preference pairs (chosen, rejected), which are not supported: a task has options to "
            f"choose from, or an answer."
        )
    if columns & {"messages", "conversations"}:
        raise DataError(
            f"{table.where} holds conversations ({', '.join(sorted(columns))}), which are not supported: a task has "
            f"texts in columns. Write prompt and answer into columns of their own."
        )


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
        return _whole(value, name)
    if isinstance(value, bool | int | float) or value is None:
        written = {"None": "null", "True": "true", "False": "false", "nan": "NaN"}.get(str(value), str(value))
        quoted = "" if written in ("null", "NaN") else f' Write "{written}" in quotes if it is one.'
        raise ValueError(f"{name} is {written}, but must be text.{quoted}")
    raise ValueError(f"{name} is a {type(value).__name__}, but must be text.")


def _whole(text: str, name: str) -> str:
    """The text. Raises ValueError for half a character, which JSON can write and no tokenizer reads."""
    half = next((letter for letter in text if "\ud800" <= letter <= "\udfff"), None)
    if half is not None:
        raise ValueError(
            f"{name} holds half a character (a lone surrogate, \\u{ord(half):x}), as of an emoji that was cut in two. "
            f"Write the character whole, or take it out."
        )
    return text


def _label(value: Any, choice: TaskConfig, labels: Sequence[Any] | None) -> int:
    options = choice.options or ()
    if isinstance(value, list):
        raise _UnknownLabel("label is a list. Several labels for a row (multi-label) are not supported.")
    if labels is not None:
        if value in labels:
            return list(labels).index(value)
        hint = _quoted(value, labels)
        raise _UnknownLabel(f"label {value!r}; task.labels has {', '.join(map(repr, labels))}.{hint}")
    if isinstance(value, int) and 0 <= value < len(options):
        return int(value)
    if isinstance(value, float):
        raise _UnknownLabel(
            "label is a number with decimals. A number to predict (regression) is not supported; options are numbered "
            "from 0."
        )
    listed = ", ".join(f"{number} {option.strip()}" for number, option in enumerate(options))
    raise _UnknownLabel(
        f"label {value!r}; allowed are {listed}. Other values are listed in task.labels, in this order."
    )


def _quoted(value: Any, labels: Sequence[Any]) -> str:
    """Returns a hint for labels where YAML has read yes and no as true and false."""
    if (
        isinstance(value, str)
        and value.lower() in ("yes", "no", "on", "off")
        and any(v is True for v in labels)
    ):
        return " YAML reads yes and no without quotes as true and false: quote them in task.labels."
    return ""


def _candidates(value: Any, name: str) -> tuple[str, ...]:
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or not all(isinstance(c, str) for c in value)
    ):
        raise ValueError(f"{name} is {value!r}, but must be a list of texts, this row's options.")
    empty = [str(number) for number, candidate in enumerate(value) if not candidate.strip()]
    for candidate in value:
        _whole(candidate, name)
    if not value or empty:
        which = f"number {', '.join(empty)} of " if empty else ""
        raise ValueError(f"{which}{name} is empty; a row needs options to choose from.")
    return tuple(value)


def _right(value: Any, candidates: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers of the right candidates, from a number or a text, or a list of them."""
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    rights: list[Any] = [candidates.index(v) if isinstance(v, str) and v in candidates else v for v in listed]
    wrong = [v for v in rights if not isinstance(v, int) or not 0 <= v < len(candidates)]
    if wrong or not rights:
        raise ValueError(
            f"label {value!r} is not among the {len(candidates)} candidates, as number or as text."
        )
    return tuple(dict.fromkeys(rights))


def _answers(value: Any) -> tuple[str, ...]:
    answers = [value] if isinstance(value, str) else value
    if not isinstance(answers, Sequence) or not answers or not all(isinstance(a, str) for a in answers):
        raise ValueError(f"answers is {value!r}, but must be a text or a list of at least one.")
    return tuple(_whole(answer, "answers") for answer in answers)
