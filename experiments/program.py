"""Starts the command line of a process of its own: `zo <command>`, and launch.py, which is `zo run`."""

import sys
from collections.abc import Sequence

from experiments.display.first_word import first_word_of_command

LACKING = ("hydra", "omegaconf", "pydantic", "rich", "yaml")  # imported before torch and transformers


def start(argv: Sequence[str]) -> int:
    """Says that it works, and performs a command; the exit code is that of experiments.__main__."""
    first_word_of_command(argv)
    try:
        if argv[:1] in (["run"], ["sweep"]):  # without the modules of the other commands, which take a second
            from experiments.commands import launch

            return launch.command(argv)
        from experiments.__main__ import main

        return main(argv)
    except ModuleNotFoundError as missing:
        if missing.name not in LACKING:
            raise
        sys.stderr.write(f"{missing}. {_advice()}\n")
        return 2


def command() -> int:
    """Performs what `zo` is given; the entry point of the console script."""
    return start(sys.argv[1:])


def _advice() -> str:
    from experiments.rundir.code_places import install

    if sys.version_info >= (3, 14):
        return "Experiments need Python 3.11 to 3.13, since Hydra 1.3 cannot start on 3.14; the library works here."
    return f"Experiments need more than the library: {install('experiments')}"
