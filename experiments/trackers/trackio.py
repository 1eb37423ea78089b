"""trackio: runs in a SQLite file on this machine, one file a project; no account. `trackio show` opens its page.

trackio has neither a step metric nor a summary: forward passes are a column of every row, to be chosen as the x
axis, and the result is a last row. A run that is there already is replaced. Uploading is trackio's own matter
(`trackio sync` of a project): where the environment names a Space or server, runs of it could not be replaced.
"""

import importlib
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from experiments.trackers.interface import About


class Trackio:
    """A run of trackio. own: this process is the run, not a copy of it, so the machine's load is of interest."""

    def __init__(self, project: str = "zo", *, own: bool = True):
        self._project = project
        self._load = None if own else False
        self._run: Any = None
        self._next = 0

    def start(self, about: About) -> str:
        """Raises ValueError where the environment sends trackio elsewhere."""
        trackio = importlib.import_module("trackio")  # not this module, for whoever reads the types
        away = [name for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL") if os.environ.get(name)]
        if away:
            raise ValueError(
                f"it is used on this machine alone, so unset {away[0]}; trackio sync uploads a project"
            )
        with suppress(ValueError):  # a project that does not exist has no runs
            for run in trackio.Api().runs(self._project):
                if run.name == about.name:
                    run.delete()
        described = {"id": about.id, "job_type": about.job_type, "tags": list(about.tags)}
        self._run = trackio.init(
            self._project,
            about.name,
            about.group,
            config={**about.config, **described},
            embed=False,
            auto_log_cpu=self._load,
            auto_log_gpu=self._load,
        )
        return f"trackio shows this run with: trackio show --project {self._project}"

    def log(self, number: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=number)
        self._next = number + 1

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        self._run.log(dict(summary), step=self._next)
        self._run.finish()
