"""A launched run: python -P -m experiments.launching.worker RUN. All it knows is in the run's folder.

Exit codes: 0 ended or stopped, 1 failed, 2 refused, 3 another process is at this run.
"""

import os
import sys
import traceback
from pathlib import Path

from experiments.config.saved import load_config
from experiments.launching.submission import submission
from experiments.rundir.folder import RunFolder
from experiments.training.run import run
from zo.errors import ConfigError, DataError, Locked

BUSY = 3


def work(path: Path) -> int:
    """Runs what is frozen in the folder. What goes wrong is in its status, and with a traceback on stderr."""
    folder = RunFolder(path.resolve())
    asked = submission(folder.path)
    if asked is None:
        raise ConfigError(f"{path} was not submitted: it has no submission.json.")
    os.chdir(asked["cwd"])
    try:
        return run(load_config(folder.path), submitted=folder.path)
    except Locked as error:
        sys.stderr.write(f"{error}\n")
        return BUSY
    except Exception as error:
        traceback.print_exc()
        folder.write_failed(error)
        return 2 if isinstance(error, ConfigError | DataError) else 1


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))
