"""Formats the problems of a command line as one list: key, value, allowed values, nearest name."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from experiments.rundir.code_places import typed_command

HELP = "--help shows every group, option and key."


@dataclass(frozen=True)
class Problem:
    """A problem: its place, as the user wrote it, and a sentence that says what would be right."""

    where: str
    what: str


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean x?' with the known name most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    close.sort(key=lambda match: sorted(match) != sorted(name))  # swapped letters are the commonest slip
    return f" Did you mean {close[0]}?" if close else ""


def key_meant(key: str, known: Sequence[str]) -> str:
    """Returns the same for a dotted key: its neighbours first, then the same last part elsewhere, then any."""
    section, _, last = key.rpartition(".")
    neighbours = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    close = difflib.get_close_matches(last, neighbours, n=1, cutoff=0.6) if section else []
    elsewhere = [k for k in known if k.rpartition(".")[2] == last]
    if close:
        return f" Did you mean {neighbours[close[0]]}?"
    if elsewhere:
        nearest = max(elsewhere, key=lambda other: difflib.SequenceMatcher(None, key, other).ratio())
        return f" Did you mean {nearest}?"
    return "" if section and neighbours else did_you_mean(key, known)


def split(line: str) -> tuple[str, str]:
    """A refusal of the program as a place and a sentence; the place is empty where the line names none."""
    where, colon, what = line.partition(": ")
    return (where, what) if colon and "=" in where and " " not in where else ("", line)


def one_of(names: Iterable[str]) -> str:
    """The names as a sentence lists them."""
    return ", ".join(names) or "none"


def listing(
    problems: Sequence[Problem], subject: str = "the configuration; nothing was run", help_line: str = ""
) -> str:
    """Returns one message for all problems. subject: follows "N problems with". help_line: the last line."""
    head = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{head} with {subject}.", ""]
    for problem in problems:
        lines += [
            *([f"  {problem.where}"] if problem.where else []),
            *(f"      {line}" for line in problem.what.splitlines()),
        ]
    return "\n".join([*lines, "", help_line or f"{typed_command('run')} {HELP}"])
