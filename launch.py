"""Fine-tune a language model: python launch.py model=tiny-clm task=sentiment optimizer=fzoo (see --help)."""

import sys

from experiments.program import start

if __name__ == "__main__":
    sys.exit(start(["run", *sys.argv[1:]]))
