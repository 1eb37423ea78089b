"""What is wrong with a command line, as one list: key, value, what is allowed, nearest name."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HELP = "python launch.py --help shows every group, option and key."


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (as the user wrote it) and a sentence that says what would be right."""

    where: str
    what: str


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing is like it; a key is also found by its last part."""
    known = list(known)
    tails = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    if tails:
        return max(tails, key=lambda k: difflib.SequenceMatcher(None, name, k).ratio())
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean x?', or nothing when no known name is like `name`."""
    match = nearest(name, known)
    return f" Did you mean {match}?" if match else ""


def one_of(names: Iterable[str]) -> str:
    """The names as a sentence lists them."""
    return ", ".join(names) or "none"


def listing(problems: Sequence[Problem]) -> str:
    """The message for all problems at once."""
    head = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{head} with the configuration; nothing was run.", ""]
    for problem in problems:
        lines += [f"  {problem.where}", f"      {problem.what}"]
    return "\n".join([*lines, "", HELP])
