"""Executes a launched run from its folder alone: python -P -m experiments.launching.worker RUN.

Exit codes: 0 ended or stopped, 1 failed, 2 refused, 3 another process is at this run.
"""

import os
import signal
import sys
import traceback
from pathlib import Path

from experiments.config.saved import load_config
from experiments.display.warned import spoken_warnings
from experiments.launching.job import BUSY
from experiments.launching.submission import submission
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import steady_holder_of
from zo.errors import ConfigError, DataError, Locked
from zo.rank_env import rank_info


def work(path: Path) -> int:
    """Executes the frozen run of a folder; writes a failure to its status, and a traceback to stderr."""
    folder = RunFolder(path.resolve())
    submitted = submission(folder.path)
    if submitted is None:
        raise ConfigError(f"{path} was not submitted: it has no submission.json.")
    leads = rank_info(os.environ).rank == 0  # of several processes the first holds the lock for all
    # Before the seconds that a model takes to load:
    if leads and (holder := steady_holder_of(folder.path / "lock")) is not None:
        sys.stderr.write(
            f"Process {holder['pid']} on {holder['host']} is at this run, so this one ends: {folder.path}\n"
        )
        return BUSY
    os.chdir(submitted["cwd"])
    with spoken_warnings(aloud=leads):  # of imports too
        return _run(folder)


def _run(folder: RunFolder) -> int:
    from experiments.training.run import run  # late: it imports torch, and a signal may come before

    try:
        return run(load_config(folder.path), submitted=folder.path)
    except Locked as error:
        sys.stderr.write(f"{error}\n")
        return BUSY
    except Exception as error:  # also a bug: the run's status says why it failed
        traceback.print_exc()
        folder.write_failed(error)
        return 2 if isinstance(error, ConfigError | DataError) else 1


if __name__ == "__main__":
    # Until the run has handlers of its own, Ctrl-C ends the process as SIGTERM does, without a traceback in its log.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(work(Path(sys.argv[1])))
