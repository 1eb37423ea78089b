"""Templates: text with {field}, or {field:filter,filter}, checked against the fields that a task has."""

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from string import Formatter

from zo.errors import ConfigError

FILTERS: dict[str, Callable[[str], str]] = {
    "strip": str.strip,
    "lower": str.lower,
    "upper_first": lambda text: text[:1].upper() + text[1:],
    "asked": lambda text: text if text.endswith("?") else text + "?",
    "lower_first": lambda text: text[:1].lower() + text[1:],
    "chop": lambda text: text[:-1],  # LM-BFF drops a sentence's last character, its full stop
}


@dataclass(frozen=True)
class Template:
    """A text with named gaps. `where` is its key in the configuration, for messages."""

    text: str
    where: str

    def __post_init__(self) -> None:
        try:
            unknown = {f for _, _, filters in self._parts() for f in filters} - set(FILTERS)
        except ValueError as error:
            raise ConfigError(f"{self.where}: {error}. Braces of the text itself are doubled.") from None
        if unknown:
            raise ConfigError(
                f"{self.where}: there is no filter {', '.join(sorted(unknown))}. Known: {', '.join(FILTERS)}."
            )

    @property
    def fields(self) -> set[str]:
        """The names in its gaps."""
        return {name for _, name, _ in self._parts() if name is not None}

    def check(self, known: Collection[str]) -> list[str]:
        """A sentence for each field that the task does not have."""
        problems = []
        for name in sorted(self.fields - set(known)):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {{{close[0]}}}?" if close else ""
            problems.append(
                f"{self.where} names {{{name}}}; the task has {', '.join(sorted(known))} "
                f"(fields come from task.columns).{hint}"
            )
        return problems

    def fill(self, values: Mapping[str, str], last: Callable[[str, str], str] | None = None) -> str:
        """Returns the text with its gaps filled. `last` maps a field's name and filtered text to the final text."""
        return "".join(
            text if name is None or last is None else last(name, text) for name, text in self.pieces(values)
        )

    def pieces(self, values: Mapping[str, str]) -> list[tuple[str | None, str]]:
        """The literals (no name) and the filtered texts of the gaps (their names), in order."""
        pieces: list[tuple[str | None, str]] = []
        for literal, name, filters in self._parts():
            if literal:
                pieces.append((None, literal))
            if name is not None:
                value = values[name]
                for step in filters:
                    value = FILTERS[step](value)
                pieces.append((name, value))
        return pieces

    def _parts(self) -> list[tuple[str, str | None, list[str]]]:
        return [
            (literal, name, [f for f in (spec or "").split(",") if f])
            for literal, name, spec, _ in Formatter().parse(self.text)
        ]
