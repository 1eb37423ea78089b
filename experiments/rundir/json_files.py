"""Reads the files of a run's folder: the intact part of each, and a sentence on damage.

They are written by other processes, moved, cut by a full disk and edited by hand. One reader for each file, so that
a damaged run is named wherever it is met and no other run's report stops at it.
"""

import functools
import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import from_json

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, over hundreds of runs
_DIGEST = (
    "# sha256 "  # begins the last line of config.yaml: a file that lost its end is another configuration
)
SECTIONS = ("model", "task", "peft", "optimizer")  # of every run's configuration, whatever version wrote it
_RESULT: Mapping[str, type | tuple[type, ...]] = {  # of every result; what else is there depends on the version
    "status": str, "metric": str, "after": (Real, type(None)), "steps": int,
}  # fmt: skip

_NUMBERS = (int, float)  # as JSON has them; bool is a type of its own
_SCORES = (*_NUMBERS, type(None))
# Where a line of config.yaml begins a key of the outermost level.
_SECTION = re.compile(r"^(?=[^\s\-#])", re.MULTILINE)

RESULT_DIGEST = "result_sha256"  # key of status.json: by it a bit of result.json that has flipped shows

Row = dict[str, Any]


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the content of a JSON file; None if it is missing or incomplete.

    There is no question beforehand whether it is there: it may be gone by the time it is read. Raises PermissionError
    for one that this user may not read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_result(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Returns result.json, or None if there is none; and a sentence on damage, or None."""
    path = folder / "result.json"
    result = read_json(path)
    if result is None:
        return None, f"{path.name} is damaged: it is no JSON object" if path.is_file() else None
    wrong = [name for name, kind in _RESULT.items() if not _is(result.get(name, path), kind)]
    if wrong:
        return None, f"{path.name} is damaged: it has no {', '.join(wrong)}"
    digest = (read_json(folder / "status.json") or {}).get(RESULT_DIGEST)
    if digest is not None and digest != digest_of(path):
        return None, f"{path.name} is not as the run wrote it: it was edited, or is damaged"
    return result, None


def warnings_of(record: Mapping[str, Any] | None) -> list[str]:
    """Returns the warnings that a status.json or result.json holds; runs of earlier versions have none."""
    warnings = (record or {}).get("warnings")
    return [each for each in warnings if isinstance(each, str)] if isinstance(warnings, list) else []


def digest_of(path: Path) -> str | None:
    """Returns the SHA-256 (hex) of a file; None where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def read_rows(folder: Path) -> tuple[list[Row], str | None]:
    """Returns the intact rows of metrics.jsonl, and a sentence on the others, or None.

    A last line without its end is one that is being written, or was when its process died: it is left out.
    """
    rows, bad = numbered_rows(folder)
    if not bad:
        return rows, None
    lines = ", ".join(str(number) for number in bad[:5]) + (", ..." if len(bad) > 5 else "")
    return rows, f"metrics.jsonl is damaged: line{'s' if len(bad) > 1 else ''} {lines} {_are(bad)} left out"


def numbered_rows(folder: Path) -> tuple[list[Row], list[int]]:
    """Returns the whole rows of metrics.jsonl, and the numbers of the lines that are none."""
    try:
        data = (folder / "metrics.jsonl").read_bytes()
    except FileNotFoundError:
        return [], []
    rows: list[Row] = []
    bad: list[int] = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], 1):
        row = row_of(line)
        if row is None:
            bad.append(number)
        else:
            rows.append(row)
    return rows, bad


def row_of(line: bytes) -> Row | None:
    """Returns the row of a line of metrics.jsonl; None if the line is no row."""
    try:
        row = from_json(line)  # a third of json's time, over the many rows of many runs
    except ValueError:
        try:
            row = json.loads(line)  # which reads a lone surrogate, for one
        except ValueError:
            return None
    if type(row) is not dict or type(row.get("kind")) is not str or type(row.get("steps")) is not int:
        return None
    if type(row.get("forward_passes")) not in _NUMBERS or type(row.get("seconds")) not in _NUMBERS:
        return None
    if row["kind"] in ("before", "dev", "after"):
        return row if all(type(row.get(name, row)) in _SCORES for name in ("value", "loss")) else None
    return row


def config_text(config: Mapping[str, Any]) -> str:
    """Returns config.yaml as it is written: its last line is a digest of all others."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    return f"{text}{_DIGEST}{_digest(text)}\n"


def read_configuration(folder: Path) -> tuple[dict[str, Any], str | None]:
    """Returns config.yaml, as far as it can be read, and a sentence on damage, or None.

    One of an older version has no digest; it must have the sections that every version wrote.
    """
    path = folder / "config.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        body, mark, digest = text.rpartition(_DIGEST)
        is_whole = bool(mark) and digest.strip() == _digest(body)
        config = _parsed(body) if is_whole else yaml.load(text, _LOADER)
    except OSError as error:
        return {}, f"{path.name} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return {}, f"{path.name} is damaged: it is no text in UTF-8"
    except yaml.YAMLError as error:
        return {}, f"{path.name} is damaged: {str(error).splitlines()[0]}"
    if not isinstance(config, dict):
        return {}, f"{path.name} is {'empty' if config is None else 'damaged: it is no mapping'}"
    wrong = [name for name in SECTIONS if not isinstance(config.get(name), dict)]
    if wrong:
        kept = {name: value for name, value in config.items() if name not in wrong}
        return kept, f"{path.name} is damaged: it has no section {', '.join(wrong)}"
    if not isinstance(config.get("optimizer", {}).get("_target_"), str):
        return config, f"{path.name} is damaged: it has no optimizer._target_"
    if mark and not is_whole:
        return config, f"{path.name} is not as the run wrote it: it was edited, or is damaged"
    return config, None


def _parsed(text: str) -> Any:
    """Returns what `config_text` was given. Runs of a sweep share most sections, and each is parsed once."""
    if "&id" in text:  # a value that stands in several places
        return yaml.load(text, _LOADER)
    config: dict[str, Any] = {}
    for section in _SECTION.split(text):
        config |= pickle.loads(_section(section))
    return config


@functools.lru_cache(maxsize=4096)
def _section(text: str) -> bytes:
    """Returns a section as bytes, of which every reader gets objects of its own."""
    return pickle.dumps(yaml.load(text, _LOADER) or {})


def began(folder: Path) -> bool:
    """Returns True for a folder that a run has written into, also where its config.yaml was deleted since."""
    return (folder / "status.json").exists() and any(
        (folder / name).exists() for name in ("config.yaml", "journal", "metrics.jsonl", "result.json")
    )


def problem_of_configuration(folder: Path) -> str | None:
    """Returns a sentence on a damaged config.yaml, or None; an unchanged file is not parsed."""
    try:
        body, mark, digest = (folder / "config.yaml").read_bytes().rpartition(_DIGEST.encode())
    except FileNotFoundError:
        return read_configuration(folder)[1] if began(folder) else None
    except OSError:
        return read_configuration(folder)[1]
    if mark and digest.strip().decode(errors="replace") == hashlib.sha256(body).hexdigest():
        return None
    return read_configuration(folder)[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _are(several: list[int]) -> str:
    return "are" if len(several) > 1 else "is"


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Returns True if a JSON value is of a type; true and false are not numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)
