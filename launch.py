"""Fine-tune a language model: python launch.py model=tiny-clm task=sentiment optimizer=fzoo (see --help)."""

import sys

from experiments.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
