"""Starts the command line: `zo <command>`, `python -m experiments <command>`, and launch.py, which is `zo run`."""

import sys
from collections.abc import Sequence

from experiments.display.first_word import first_word_of_command

LACKING = ("hydra", "omegaconf", "pydantic", "rich", "yaml")  # imported before torch and transformers


def main(argv: Sequence[str]) -> int:
    """Performs a command; 0 done, 1 the weights differ or a run failed, 2 wrong input, 130 interrupted."""
    try:
        if argv[:1] in (["run"], ["sweep"]):  # without the modules of the other commands, which take a second
            from experiments.commands import launch

            return launch.main([*(["-m"] if argv[0] == "sweep" else []), *argv[1:]])
        from experiments.commands import command_line

        return command_line.main(argv)
    except ModuleNotFoundError as missing:
        if missing.name not in LACKING:
            raise
        sys.stderr.write(f"{missing}. {_advice()}\n")
        return 2


def start(argv: Sequence[str]) -> int:
    """Performs a command of a process of its own, and says first that it works."""
    first_word_of_command(argv)
    return main(argv)


def command() -> int:
    """Performs what `zo` is given; the entry point of the console script."""
    return start(sys.argv[1:])


def _advice() -> str:
    from experiments.rundir.code_places import install

    if sys.version_info >= (3, 14):
        return "Experiments need Python 3.11 to 3.13, since Hydra 1.3 cannot start on 3.14; the library works here."
    return f"Experiments need more than the library: {install('experiments')}"


if __name__ == "__main__":
    sys.exit(command())
