"""The command line: flags and overrides in, a validated config or one list of everything wrong out.

Nothing on the way to help or to an error imports torch or transformers, so both come in under a second.
"""

from experiments.cli.main import main

__all__ = ["main"]
