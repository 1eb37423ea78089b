"""The processes of a run that was started several times over: torchrun, or the tasks of srun.

Rank 0 writes all files and prints; what the others have to say (warnings, errors, tracebacks) goes to stderr
with the rank before every line.
"""

import io
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console

from experiments.display.console import new_console
from zo.rank_env import rank_info
from zo.team import Solo, Team


class Named(io.TextIOBase):
    """A stream whose lines begin with a name."""

    def __init__(self, stream: TextIO, name: str):
        self._stream = stream
        self._name = name
        self._fresh = True  # at the beginning of a line

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self._stream.write(f"{self._name}: {line}" if self._fresh else line)
            self._fresh = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return False


def name_stderr() -> None:
    """From now on every line of this process's stderr says which rank wrote it, unless it is the first."""
    rank = rank_info(os.environ).rank
    if rank and not isinstance(sys.stderr, Named):
        sys.stderr = Named(sys.stderr, f"rank {rank}")


def team_of(config: Mapping[str, Any]) -> Team:
    """The team that the environment and `ranks` make; a context, which joins the processes."""
    here, ranks = rank_info(os.environ), config["ranks"]
    if here.size == 1 or ranks["share"] is None:
        return Solo()
    from zo.distributed import Ranks

    name_stderr()
    return Ranks(
        here,
        share=ranks["share"],
        check_every=ranks["check_every"],
        backend=ranks["backend"],
        timeout=ranks["timeout_seconds"],
    )


def console_of(team: Team) -> Console:
    """Rank 0's prints; the others' is silent."""
    return new_console(quiet=not team.leads)
