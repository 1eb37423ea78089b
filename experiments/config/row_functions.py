"""Fields that templates cannot make: a task's `function` reads a row's values and makes more of them.

Both follow the templates of MeZO's large_models (Malladi et al. 2023).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
GAP = "@placeholder"
HIGHLIGHT = "@highlight\n"
CONJUNCTIONS = {"effect": "so", "cause": "because"}


@dataclass(frozen=True)
class Function:
    """A function of a row: `call` takes its values under the task's names and returns `makes`, or raises ValueError."""

    call: Callable[[Values], dict[str, Any]]
    reads: tuple[str, ...]
    makes: tuple[str, ...]


def copa(values: Values) -> dict[str, Any]:
    """Returns the premise without its full stop, the conjunction, and both choices as clauses."""
    question = values["question"]
    if question not in CONJUNCTIONS:
        raise ValueError(f"question is {question!r}, but must be effect or cause.")
    return {
        "start": _text(values, "premise").rstrip().removesuffix("."),
        "conjunction": CONJUNCTIONS[question],
        "first": _clause(_text(values, "choice1")),
        "second": _clause(_text(values, "choice2")),
    }


def _clause(sentence: str) -> str:
    """The first word in lower case, unless it is "I"."""
    first, *rest = sentence.split(" ")
    return " ".join([first if first == "I" else first.lower(), *rest])


def record(values: Values) -> dict[str, Any]:
    """The passage with dashes for highlights, the query with each entity in its gap, which of them are right.

    The first right one is the first of the row's answers, which training aims at.
    """
    entities, query = _texts(values, "entities"), _text(values, "query")
    if GAP not in query:
        raise ValueError(f"query {query[:60]!r} has no {GAP}, so its candidates would all be the same.")
    answers = dict.fromkeys(_texts(values, "answers"))
    right = [entities.index(answer) for answer in answers if answer in entities]
    if entities and not right:
        raise ValueError(f"none of answers ({', '.join(answers)}) is among entities ({', '.join(entities)}).")
    return {
        "text": _text(values, "passage").replace(HIGHLIGHT, "- "),
        "lines": [query.replace(GAP, entity) for entity in entities],
        "label": right,
    }


def _text(values: Values, name: str) -> str:
    if not isinstance(values[name], str):
        raise ValueError(f"{name} is {values[name]!r}, but must be text.")
    return values[name]


def _texts(values: Values, name: str) -> list[str]:
    value = values[name]
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or not all(isinstance(t, str) for t in value)
    ):
        raise ValueError(f"{name} is {value!r}, but must be a list of texts.")
    return list(value)


FUNCTIONS = {
    "copa": Function(
        copa,
        reads=("premise", "choice1", "choice2", "question"),
        makes=("start", "conjunction", "first", "second"),
    ),
    "record": Function(
        record, reads=("passage", "query", "entities", "answers"), makes=("text", "lines", "label")
    ),
}
