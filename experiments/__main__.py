"""What is done with finished runs: python -m experiments <command> RUN.

replay RUN            rebuild the weights from the journal, without a forward pass, and compare digests
export RUN --out DIR  the same, and write them as a Hugging Face or PEFT folder
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """0 done, 1 the weights differ, 2 wrong input."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description="What is done with runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    replay = commands.add_parser("replay", help="rebuild the weights from the journal and compare digests")
    export = commands.add_parser("export", help="rebuild the weights from the journal and write them")
    for command in (replay, export):
        command.add_argument("run", type=Path, help="a run's folder, the one with the file journal")
        command.add_argument(
            "--steps", type=int, help="weights after so many steps; default: the reported ones"
        )
    replay.add_argument(
        "--lengths", type=Path, help="JSON file to write with the length of every step (optimizer.record)"
    )
    export.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    request = parser.parse_args(argv)

    from experiments import replaying  # late: torch and transformers take seconds
    from zo.errors import ConfigError, DataError, ZOError

    try:
        if request.command == "replay":
            return replaying.replay(request.run, request.steps, request.lengths)
        return replaying.export(request.run, request.steps, request.out)
    except ZOError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, ConfigError | DataError) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
