"""Reads the numbers that papers print: one YAML per paper, read by `published`.

A file has tables. What all cells of a table share stands beside its rows, what the columns differ in is a list in
`columns`, and a row has a value for each column (null: none is printed) and, where printed, a deviation. A row's
printed average is kept to check the values by (tests/conf/test_published.py); where they disagree, its note says so.

    tables:
      - table: "11"
        model: opt-125m
        columns: {task: [sst2, rte]}
        rows:
          - {method: fzoo, values: [84.5, 60.7], deviations: [0.3, 1.1], average: 72.6}

A key with a dot (optimizer.betas: [0.7, 0.99], in a table, a column or a row) is a key of the configuration: the number
is of runs that have this value. A rate is written 1.0e-4, since YAML reads 1e-4 as a text.

Names are those of result.json, which are the options of conf/, but for the methods zeroshot and icl
(optimizer=none, without and with task.demonstrations) and linearprobe (optimizer=linear_probe). Where a table says
nothing of its objective, it is cross-entropy, as conf/task has it; in context means 32 demonstrations.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zo.errors import ConfigError

FOLDER = Path(__file__).parent
POINTS = 2.0  # per cent: tolerance if a paper gives no deviation
# Trained on the right answer's tokens; all other tasks on the options.
ANSWERED = (
    "copa",
    "record",
    "squad",
    "drop",
)
STEPLESS = ("zeroshot", "icl", "linearprobe")  # the objective makes no difference to them
DEMONSTRATIONS = 32  # demonstrations of in-context learning
PER = "example"  # each test example has its own demonstrations


@dataclass(frozen=True)
class Published:
    """A number in a paper's table.

    value, deviation: in per cent, as printed. k: examples a class, or None. objective: task.objective of the training,
    None where no step is taken. demonstrations: before each prompt. settings: keys of the configuration, and the values
    that the number is of, where its table is about them.
    """

    paper: str
    table: str
    model: str
    task: str
    method: str
    peft: str
    k: int | None
    value: float
    deviation: float | None
    note: str = ""
    objective: str | None = None
    demonstrations: int = 0
    settings: tuple[tuple[str, Any], ...] = ()

    def has_settings(self, config: Mapping[str, Any]) -> bool:
        """Returns True if a configuration has all values of `settings`."""
        return all(_frozen(_value_at(config, key)) == value for key, value in self.settings)

    @property
    def settings_text(self) -> str:
        """Returns the settings as a label: "betas [0.7, 0.99]"; empty if there are none."""
        return ", ".join(f"{key.rpartition('.')[2]} {_text(value)}" for key, value in self.settings)

    def fits(self, task: Mapping[str, Any]) -> bool:
        """Returns True if a configuration's section `task` has this number's objective and demonstrations."""
        objective, demonstrations = task.get("objective", "options"), task.get("demonstrations", 0)
        if demonstrations and task.get("demonstrations_per", "run") != PER:
            return False
        return self.objective in (None, objective) and self.demonstrations == demonstrations

    @property
    def tolerance(self) -> float:
        """Returns the points within which the number counts as reproduced: two deviations, or POINTS."""
        return 2 * self.deviation if self.deviation else POINTS


def papers() -> tuple[str, ...]:
    """Returns the names of the papers with numbers."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def published(paper: str | None = None) -> list[Published]:
    """Returns the numbers of a paper, or of all. Raises ConfigError for an unknown paper."""
    if paper is not None and paper not in papers():
        raise ConfigError(
            f"No paper named {paper} has published numbers here. Papers: {', '.join(papers())}."
        )
    return [number for name in papers() if paper in (None, name) for number in _read_paper(name)]


@functools.cache
def _read_paper(paper: str) -> tuple[Published, ...]:
    tables = yaml.safe_load((FOLDER / f"{paper}.yaml").read_text(encoding="utf-8"))["tables"]
    return tuple(number for table in tables for row in table["rows"] for number in _row(paper, table, row))


def _row(paper: str, table: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Published]:
    """Yields the cells of a row; a row's own keys take precedence over its table's."""
    shared = {"peft": "none", "k": None} | {
        key: table[key] for key in table if key not in ("columns", "rows")
    }
    row_keys = {key: row[key] for key in row if key not in ("values", "deviations", "average")}
    note = "; ".join(part["note"] for part in (table, row) if "note" in part)
    columns = [
        dict(zip(table["columns"], column, strict=True))
        for column in zip(*table["columns"].values(), strict=True)
    ]
    deviations = row.get("deviations", [None] * len(columns))
    for column, value, deviation in zip(columns, row["values"], deviations, strict=True):
        if value is not None:
            cell: dict[str, Any] = shared | column | row_keys | {"paper": paper, "note": note}
            cell = _usual(cell["method"], cell["task"]) | cell
            settings = tuple((key, _frozen(cell.pop(key))) for key in list(cell) if "." in key)
            yield Published(**cell, value=float(value), deviation=deviation, settings=settings)


def _usual(method: str, task: str) -> dict[str, Any]:
    """Returns the keys that tables leave out, because nearly all methods agree on them."""
    objective = None if method in STEPLESS else "answer" if task in ANSWERED else "options"
    return {"objective": objective, "demonstrations": DEMONSTRATIONS if method == "icl" else 0}


def _value_at(config: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a dotted key; None if a section is missing."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _frozen(value: Any) -> Any:
    """Turns lists into tuples, so that a number can be a dictionary key."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_text(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
