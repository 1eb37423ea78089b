"""Finds the files that belong to the code: conf/, sweeps/, and the record of its commit.

In a checkout they lie at its root. A wheel carries them inside this package. An editable installation is a checkout.
"""

import sys
from pathlib import Path

from zo.version import DISTRIBUTION

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # of a checkout or a snapshot; site-packages for an installed wheel
RECORD = "CODE.json"  # commit, dirty and diff where git cannot be asked: in snapshots, sdists and wheels
FROM_WHEEL = (PACKAGE / "conf").is_dir()


def shipped(name: str) -> Path:
    """Returns the folder conf or sweeps of this code."""
    return (PACKAGE if FROM_WHEEL else ROOT) / name


def typed_command(name: str = "") -> str:
    """Returns the words that start a command: `zo NAME`, or those of a checkout if its user types them."""
    if FROM_WHEEL or typed_zo():
        return f"zo {name}".strip()
    return "python launch.py" if name == "run" else f"python -m experiments {name}".strip()


def typed_words() -> list[str]:
    """Returns the command that started this process, to be typed again."""
    if typed_zo():
        return ["zo", *sys.argv[1:]]
    as_module = Path(sys.argv[0]).name == "__main__.py"
    return ["python", *(["-m", "experiments", *sys.argv[1:]] if as_module else sys.argv)]


def typed_zo() -> bool:
    """Returns whether this process is the console script."""
    return Path(sys.argv[0]).name == "zo"


def install(extra: str) -> str:
    """Returns the command that installs the packages of an extra of pyproject.toml."""
    return f"pip install '{DISTRIBUTION}[{extra}]'" if FROM_WHEEL else f"pip install -e '.[{extra}]'"
