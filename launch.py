"""Fine-tune a language model: python launch.py model=tiny-clm task=sentiment optimizer=fzoo (see --help)."""

import sys

from experiments.display.first_word import first_word

if __name__ == "__main__":
    first_word(sys.argv[1:])

try:
    from experiments.commands.launch import main
except ModuleNotFoundError as missing:
    if missing.name not in ("hydra", "omegaconf", "pydantic"):
        raise
    sys.exit(
        f"{missing}. Experiments need more than the library: make demo, or pip install -e '.[experiments]'"
    )

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
