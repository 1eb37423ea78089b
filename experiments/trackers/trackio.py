"""Tracks runs with trackio in a SQLite file per project on this machine; `trackio show` opens its page.

It needs no account. trackio has neither a step metric nor a summary: forward passes are a column of every row, to be
chosen as the x axis, and the result is a last row. An existing run is replaced. Uploading is left to `trackio sync` of
a project: if the environment names a Space or server, runs there could not be replaced.
"""

import importlib
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from experiments.trackers.interface import About


class Trackio:
    """A trackio run. own: this process is the run, not a copy of it, so machine load is logged too."""

    def __init__(self, project: str = "zo", *, own: bool = True):
        self._project = project
        self._load = None if own else False
        self._run: Any = None
        self._next = 0

    def start(self, about: About) -> str:
        """Creates the run. Raises ValueError if the environment redirects trackio to a Space or server."""
        # A plain import would resolve to this module for type checkers.
        trackio = importlib.import_module("trackio")
        redirects = [name for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL") if os.environ.get(name)]
        if redirects:
            raise ValueError(
                f"runs are kept on this machine only: unset {redirects[0]}, and upload a project with trackio sync"
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
