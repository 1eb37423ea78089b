"""Checks the words of `python -m experiments` before argparse reads them, and lists everything that is wrong.

argparse stops at its first complaint, in words of its own. Here each word is compared with what the command declares,
so that a misspelt flag, a number out of range and a missing folder come in one list, as for launch.py. What passes is
put into an order that argparse takes: flags first, then folders.
"""

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from experiments.config.problems import Problem, did_you_mean, one_of, split
from zo.errors import ConfigError
from zo.fields import fits, hint, words


class Parser(argparse.ArgumentParser):
    """An argument parser that keeps its declarations, so that `checked` can read them.

    rules: functions from the names of the flags that are given to what is wrong with them together, or None.
    """

    def __init__(self, *args: Any, **options: Any):
        self.declared: list[argparse.Action] = []
        self.rules: list[Callable[[Collection[str]], Problem | None]] = []
        super().__init__(*args, allow_abbrev=False, **options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Declares a flag or a positional argument, as argparse does."""
        action = super().add_argument(*names, **options)
        self.declared.append(action)
        return action

    def checked(self, argv: Sequence[str]) -> tuple[list[str], list[Problem]]:
        """Returns a command's words in an order that argparse takes, and all that is wrong with them."""
        flags = {name: action for action in self.declared for name in action.option_strings}
        accepted: list[str] = []
        positional: list[str] = []
        problems: list[Problem] = []
        given: set[str] = set()
        rest = list(argv)
        while rest:
            word = rest.pop(0)
            if not _is_flag(word):
                positional.append(word)
                continue
            name, equals, value = word.partition("=")
            action = flags.get(name)
            if action is None:
                if not equals and rest and not _is_flag(rest[0]) and not _may_be_own(rest[0]):
                    word = f"{word} {rest.pop(0)}"  # the value of the flag that does not exist
                near = did_you_mean(name, flags) or f" Flags: {one_of(sorted(flags))}."
                problems.append(Problem(word, f"There is no such flag.{near}"))
                continue
            given.add(action.dest)
            if action.nargs == 0:
                problems += [Problem(word, f"{name} takes no value.")] if equals else []
                accepted.append(name)
                continue
            if not equals and (not rest or _is_flag(rest[0])):
                problems.append(Problem(name, f"It takes a value: {action.help}."))
                continue
            value = value if equals else rest.pop(0)
            problems += _wrong(action, word if equals else f"{word} {value}", value)
            accepted.append(f"{name}={value}")
        problems += [
            Problem(action.option_strings[-1], f"It is needed: {action.help}.")
            for action in self.declared
            if action.required and action.option_strings and action.dest not in given
        ]
        together = [problem for rule in self.rules if (problem := rule(given)) is not None]
        return [*accepted, *positional], [*problems, *together, *self._wrong_positional(positional)]

    def _wrong_positional(self, positional: Sequence[str]) -> list[Problem]:
        action = next((each for each in self.declared if not each.option_strings), None)
        if action is None:
            return [Problem(word, "This command takes flags alone.") for word in positional]
        name = action.dest.upper()
        if not positional and action.nargs not in ("*", "?"):
            return [Problem(name, f"It is missing: {action.help}.")]
        taken = positional if action.nargs in ("*", "+") else positional[:1]
        problems = [problem for word in taken for problem in _wrong(action, word, word)]
        return problems + [
            Problem(word, f"This is one too many: the command takes one {action.dest}.")
            for word in positional[len(taken) :]
        ]


def _is_flag(word: str) -> bool:
    """Returns whether a word is written like a flag; -5 is a number."""
    return word.startswith("-") and len(word) > 1 and not word[1:].replace(".", "").isdigit()


def _may_be_own(word: str) -> bool:
    """Returns whether a word behind an unknown flag is likely one of the command's own: an override or a folder."""
    return "=" in word or Path(word).exists()


def _wrong(action: argparse.Action, where: str, value: str) -> list[Problem]:
    """Returns the problem of one value, by its declaration, or none."""
    if action.choices is not None and value not in action.choices:
        known = list(action.choices)
        return [Problem(where, f"It takes {' or '.join(known)}.{did_you_mean(value, known)}")]
    try:
        if callable(action.type):
            action.type(value)
    except ConfigError as error:
        what = str(error).removeprefix(f"{where}: ")
        return [Problem(where, what[:1].upper() + what[1:])]
    return []


def number_of(kind: Any) -> Callable[[str], float]:
    """Returns the `type` of a flag that takes a number of an annotated type, such as zo.fields.Count."""

    def read(text: str) -> float:
        try:
            value = float(text) if "." in text or not text.lstrip("+-").isdecimal() else int(text)
        except ValueError:
            value = math.nan
        if fits(value, kind):
            return value
        raise ConfigError(f"It takes {words(kind)}.{'' if math.isnan(value) else hint(value, kind)}")

    return read


def run_folder(text: str) -> Path:
    """Returns the folder of a run that was started. Raises ConfigError for any other path."""
    path = runs_folder(text)
    if not (path / "config.yaml").is_file():
        raise ConfigError("It is no run's folder: it has no config.yaml.")
    return path


def runs_folder(text: str) -> Path:
    """Returns a folder that is there. Raises ConfigError for any other path."""
    if not Path(text).is_dir():
        raise ConfigError("There is no such folder. Give a sweep's folder, a run's, or one above runs.")
    return Path(text)


def problems_in(error: Exception) -> list[Problem]:
    """Returns the problems that a refusal lists: one a line, where indented lines belong to the one above."""
    paragraphs: list[str] = []
    for line in str(error).splitlines():
        if paragraphs and (not line or line[0].isspace()):
            paragraphs[-1] += f"\n{line}"
        else:
            paragraphs.append(line)
    problems = []
    for text in paragraphs:
        where, colon, what = text.partition(": ")
        flag = text.startswith("--") and colon
        problems.append(Problem(where, what[:1].upper() + what[1:]) if flag else Problem(*split(text)))
    return problems
