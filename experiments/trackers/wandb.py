"""Tracks each run as one W&B run (wandb 0.31), with forward passes as the x axis.

Without a key, or if the server does not answer in time, an online run is tracked offline and says so. W&B's files are
in the run's folder below wandb/. They are a copy that each process writes anew, so there is one offline fragment
however often a run was resumed (W&B would begin each at step 0). Online, a resumed run continues after the last row
that the server has; a fresh start (first process, --rerun, sync) replaces the server's run.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.rundir.code_places import typed_command
from experiments.rundir.metric_rows import AXES
from experiments.trackers.interface import LOSSES, SCORES, About

Mode = Literal["online", "offline", "disabled"]


def has_key() -> bool:
    """Returns True if W&B finds credentials: a key in the environment, in netrc, or of wandb login.

    Never prompts.
    """
    import wandb
    from wandb.errors import AuthenticationError

    wandb.setup(wandb.Settings(silent=True))
    try:
        return wandb.login(prompt=False, verify=False)
    except AuthenticationError:  # malformed key
        return False


class Wandb:
    """A W&B run. resumed: earlier processes tracked it. own: this process is the run, not a copy of it.

    timeout_seconds: how long to wait for the server at the start. finish_seconds: how long W&B may upload at the end,
    also while the program exits. strict: raise instead of going offline.
    """

    def __init__(
        self,
        mode: Mode = "online",
        project: str = "zo",
        entity: str | None = None,
        timeout_seconds: float = 10.0,
        *,
        finish_seconds: float = 40.0,
        resumed: bool = False,
        own: bool = True,
        strict: bool = False,
    ):
        self.mode: Mode = mode
        self._project = project
        self._entity = entity
        self._timeout = timeout_seconds
        self._finish = finish_seconds
        self._resumed = resumed
        self._own = own
        self._strict = strict
        self._run: Any = None

    def start(self, about: About) -> str:
        """Starts tracking. Raises wandb's errors; with strict also if the key or the server is missing."""
        notice = self._choose_mode()
        try:
            self._run = self._init(about)
        except Exception as error:  # wandb wraps none of what its service process and its network raise
            if self.mode != "online" or self._strict:
                raise
            notice = f"W&B's server cannot be reached ({str(error).splitlines()[0]}), so the run is tracked offline. "
            self._forget()
            self.mode = "offline"
            self._run = self._init(about)
        self._define()
        return notice + self._location(about.folder)

    def _choose_mode(self) -> str:
        """Goes offline if the environment says so or there is no key; returns the sentence to print."""
        env_mode = os.environ.get("WANDB_MODE")
        if self.mode == "online" and env_mode in ("offline", "disabled"):
            self.mode = "offline" if env_mode == "offline" else "disabled"
        if self.mode != "online" or has_key():
            return ""
        if self._strict:
            raise PermissionError("no valid W&B key: set WANDB_API_KEY, or run wandb login")
        self.mode = "offline"
        return "No valid W&B key was found (WANDB_API_KEY, or wandb login), so the run is tracked offline. "

    def _init(self, about: About) -> Any:
        import wandb

        older = list((about.folder / "wandb").glob("*run-*"))
        run = wandb.init(
            project=self._project,
            entity=self._entity,
            id=about.id,
            name=about.name,
            group=about.group,
            job_type=about.job_type,
            tags=about.tags,
            config=about.config,
            dir=about.folder,
            mode=self.mode,
            resume="allow" if self._resumed and self.mode == "online" else None,
            reinit="create_new",  # a surrounding program may have its own W&B run
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=self._timeout,
                finish_timeout=self._finish,
                finish_timeout_raises=True,
                stop_fn=(about.folder / "STOP").touch,  # W&B's button Stop run ends the run after a step
                x_disable_meta=not self._own,
                x_disable_stats=not self._own,
                x_disable_machine_info=not self._own,
                disable_git=not self._own,
            ),
        )
        for path in older:
            if path != Path(run.dir).parent:
                shutil.rmtree(path, ignore_errors=True)
        return run

    def _forget(self) -> None:
        """Ends W&B's service process: after a failed attempt it still holds the run's id."""
        import wandb

        wandb.teardown()

    def _define(self) -> None:
        """Plots train/* and eval/* over forward passes; summarises scores and losses by last and best."""
        for axis in AXES:
            self._run.define_metric(axis, hidden=True)
        for names, best in ((SCORES, "max"), (LOSSES, "min")):
            for name in names:
                self._run.define_metric(name, step_metric="forward_passes", summary=f"{best},last")
        for group in ("train/*", "eval/*"):
            self._run.define_metric(group, step_metric="forward_passes")

    def _location(self, folder: Path) -> str:
        if self.mode == "disabled":
            return "W&B is disabled."
        if self.mode == "online":
            return f"W&B shows this run at {self._run.url}"
        return f"W&B's offline files are in {folder / 'wandb'}; {typed_command('sync')} {folder} uploads the run."

    def log(self, number: int, metrics: Mapping[str, float]) -> None:
        """Logs row `number` as W&B's step of that number; rows that the server has already are skipped."""
        if number >= self._run.step or self.mode != "online":
            self._run.log(dict(metrics), step=number)

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Ends the run; a stopped one is marked as preempted, a failed one as failed."""
        self._run.summary.update(dict(summary))
        if status == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=int(status in ("stopped", "failed")))
