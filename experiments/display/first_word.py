"""Prints the first line of launch.py before slow imports: torch and transformers need seconds.

It goes to stderr, for it is no answer, and only where a person sits: not for --help and its kin, and not where output
is piped.
"""

import os
import sys
from collections.abc import Sequence

ANSWERS = ("--help", "-h", "--version", "--cfg", "-c")  # flags whose answer comes at once
WORDS = "Checking the configuration, then loading torch, the data and the model: some seconds.\n"


def first_word(arguments: Sequence[str]) -> None:
    """Announces that the program works, unless the answer comes at once or nobody reads it."""
    if any(word.partition("=")[0] in ANSWERS for word in arguments) or os.environ.get("RANK", "0") != "0":
        return
    streams = (sys.stdout, sys.stderr)
    if all(stream is not None and stream.isatty() for stream in streams):
        sys.stderr.write(WORDS)
        sys.stderr.flush()
