"""Keeps the code a run was submitted with in runs/code/<hash12>/, so that a queued run does not see later edits.

Of a git checkout, every file that git tracks or would add, as it is on disk; elsewhere the packages and conf/, which a
wheel carries inside them. Modules of one file beside launch.py belong to a checkout: an optimizer's `_target_` may name
one.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.rundir.code_places import FROM_WHEEL, RECORD, ROOT
from experiments.rundir.folder import current_umask
from experiments.rundir.provenance import source
from zo.errors import ConfigError

PARTS = ("zo", "experiments", "conf", "launch.py")


def files(root: Path) -> list[Path]:
    """Returns the files of a snapshot, relative to `root`, sorted: those of the parts that a run reads."""
    if FROM_WHEEL and root == ROOT:  # site-packages, which may lie in a repository of somebody else's
        return _below(root, ("zo", "experiments"))
    command = [
        "git",
        "-C",
        str(root),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *PARTS,
        ":(glob)*.py",
    ]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split(
            "\0"
        )
        paths = {Path(name) for name in listed if name}
    except (OSError, subprocess.SubprocessError):
        return _below(root, [*PARTS, *(path.name for path in root.glob("*.py"))])
    return sorted(path for path in paths if (root / path).is_file())


def _below(root: Path, parts: Sequence[str]) -> list[Path]:
    """Returns all files of these folders, and those of the parts that are files."""
    paths = {path for part in parts for path in [root / part, *(root / part).rglob("*")]}
    files = {path.relative_to(root) for path in paths if path.is_file()}
    return sorted(path for path in files if "__pycache__" not in path.parts)


def freeze(runs: Path, root: Path = ROOT) -> Path:
    """Returns the snapshot's folder, created unless the same code is there already."""
    names = files(root)
    target = (runs / "code" / _digest(root, names)).resolve()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    for name in names:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, new / name)
    (new / RECORD).write_text(json.dumps(source(root)), encoding="utf-8")
    new.chmod(0o777 & ~current_umask())  # mkdtemp makes it for its owner alone
    try:
        os.rename(new, target)
    except OSError:  # another process was faster
        shutil.rmtree(new)
    return target


def check_own(code: Path, run: Path, root: Path) -> None:
    """Raises ConfigError unless `code` is a complete snapshot of the folder of runs `root`, as `freeze` makes them.

    A run's folder names its code, and may be another's: what it names is run only if the snapshot stands in code/ of
    `root`, a folder of runs that is the user's own or that the user trusts, and is called by the digest of what it
    holds.
    """
    place = code.resolve()
    if place.parent != root / "code" or not place.is_dir():
        raise ConfigError(
            f"{run} was submitted with the code in {code}, which is no snapshot of these runs, so it is not run. "
            "--new-code takes the code as it is now."
        )
    for cache in [
        *place.rglob("__pycache__")
    ]:  # compiled files are run in place of their sources, and have no digest
        shutil.rmtree(cache, ignore_errors=True)
    names = sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())
    if _digest(place, [name for name in names if name != Path(RECORD)]) != place.name:
        raise ConfigError(
            f"The snapshot {code}, with which {run} was submitted, was changed since: it is not run. --new-code takes "
            "the code as it is now."
        )


def _digest(root: Path, names: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name.as_posix()}\0".encode() + (root / name).read_bytes() + b"\0")
    return total.hexdigest()[:12]
