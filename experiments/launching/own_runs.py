"""Decides whether a run's folder is the user's own, so that what it names (code, lines for sbatch) may be run.

Own is what lies below paths.runs of this checkout (of the working folder, for an installed zo) and was written by this
user. Any other folder of runs must be named on the command line.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from experiments.config.compose import compose
from experiments.launching.submission import NAME, submission
from experiments.rundir.code_places import FROM_WHEEL, ROOT
from zo.errors import ConfigError


def runs_root() -> Path:
    """The folder of runs of this checkout, or of the working folder if zo was installed: paths.runs of conf/."""
    config = compose([]).config  # None where a file of this checkout is wrong
    above = Path.cwd() if FROM_WHEEL else ROOT
    return (above / ("runs" if config is None else config.paths.runs)).resolve()


def root_of(run: Path, own: Path, trusted: Sequence[Path]) -> Path:
    """Returns the folder of runs that a run lies in, if its code and cluster lines may be run.

    own: of this checkout. trusted: folders of runs that the user named. Raises ConfigError for the folder of somebody
    else, which shows what would be run.
    """
    above = run.resolve().parents
    if (named := next((root for root in trusted if root in above), None)) is not None:
        return named
    if own not in above:
        whose = "this folder" if FROM_WHEEL else "this checkout"
        why = f"lies outside {own}, the runs of {whose} (paths.runs)"
    elif (owner := (run / NAME).stat().st_uid) != os.getuid():
        why = f"was submitted by another user (uid {owner})"
    else:
        return own
    submitted = submission(run) or {}
    lines = [f"code: {submitted.get('code')}"]
    if (submitted.get("launch") or {}).get("name") != "local":
        cluster = submitted.get("cluster") or {}
        lines += [f"cluster.{key}: {value}" for key, value in cluster.items() if value]
    raise ConfigError(
        f"{run} {why}, so nothing that it names is run or given to a scheduler:\n  "
        + "\n  ".join(lines)
        + "\nIf you trust all of that: --trust FOLDER, the folder of runs that it lies in (the one that holds code/)."
    )
