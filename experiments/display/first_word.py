"""Prints the first line of the commands before slow imports: torch and transformers need seconds.

It goes to stderr, for it is no answer, and only where a person sits: not for --help and its kin, and not where output
is piped.
"""

import os
import sys
from collections.abc import Sequence

ANSWERS = ("--help", "-h", "--version", "--cfg", "-c", "--info")  # flags whose answer comes at once
WORDS = "Checking the configuration, then loading torch, the data and the model: some seconds.\n"
READS = "Reading the runs' files.\n"  # of `zo`; the commands that need more say so:
AT_ONCE = ("complete", "completion", "doctor")
LOADS = {
    "run": WORDS,
    "sweep": WORDS,
    "replay": "Loading torch and the run's model: some seconds.\n",
    "export": "Loading torch and the run's model: some seconds.\n",
    "cut": "Loading torch, then reading the journal: some seconds.\n",
    "estimate": "Checking the configurations, then loading torch: some seconds.\n",
    "prefetch": "Checking the configurations, then asking the hub.\n",
    "expected": "Reading the papers' numbers.\n",
}


def first_word_of_command(arguments: Sequence[str]) -> None:
    """Does the same for `zo <command>`, which without a command only prints its usage."""
    if arguments and arguments[0] not in AT_ONCE:
        first_word(arguments, LOADS.get(arguments[0], READS))


def first_word(arguments: Sequence[str], words: str = WORDS) -> None:
    """Prints that the program is working, unless the answer is immediate or output is piped."""
    if any(word.partition("=")[0] in ANSWERS for word in arguments) or os.environ.get("RANK", "0") != "0":
        return
    streams = (sys.stdout, sys.stderr)
    if all(stream is not None and stream.isatty() for stream in streams):
        sys.stderr.write(words)
        sys.stderr.flush()
