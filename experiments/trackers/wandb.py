"""Weights & Biases (wandb 0.31): one W&B run for each run, with its x axis in forward passes.

Online without a key, or where the server does not answer in time, the run is tracked offline, which is said. W&B's
own files stand in the run's folder below wandb/; they are a copy and are written anew by each process, so there is
one offline fragment however often a run was resumed (W&B would begin each at step 0). Online a resumed run goes on
after the last row that the server has; from nothing (the first process, --rerun, sync) it replaces what is there.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.rundir.metric_rows import AXES
from experiments.trackers.interface import LOSSES, SCORES, About

Mode = Literal["online", "offline", "disabled"]


def has_key() -> bool:
    """Whether W&B finds credentials here: a key in the environment, in netrc, or of wandb login. Asks nobody."""
    import wandb
    from wandb.errors import AuthenticationError

    wandb.setup(wandb.Settings(silent=True))
    try:
        return wandb.login(prompt=False, verify=False)
    except AuthenticationError:  # of a form that no key has
        return False


class Wandb:
    """A run of W&B. resumed: earlier processes have tracked it. own: this process is the run, not a copy of it.

    timeout_seconds: that the server is waited for at the start. finish_seconds: that W&B may go on uploading at the
    end, also when the program exits. strict: raise instead of going offline.
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
        """Raises wandb's errors, where strict also for want of a key or the server."""
        why = self._choose_mode()
        try:
            self._run = self._init(about)
        except Exception as error:  # wandb wraps none of what its service process and its network raise
            if self.mode != "online" or self._strict:
                raise
            why = (
                f"W&B's server cannot be had ({str(error).splitlines()[0]}), so the run is tracked offline. "
            )
            self._forget()
            self.mode = "offline"
            self._run = self._init(about)
        self._define()
        return why + self._where(about.folder)

    def _choose_mode(self) -> str:
        """The environment may say less than the configuration, and no key says offline; returns what is to be told."""
        said = os.environ.get("WANDB_MODE")
        if self.mode == "online" and said in ("offline", "disabled"):
            self.mode = "offline" if said == "offline" else "disabled"
        if self.mode != "online" or has_key():
            return ""
        if self._strict:
            raise PermissionError(
                "there is no valid W&B key here: set WANDB_API_KEY, or log in with wandb login"
            )
        self.mode = "offline"
        return (
            "There is no valid W&B key here (WANDB_API_KEY, or wandb login), so the run is tracked offline. "
        )

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
            reinit="create_new",  # a program around this one may have a run of its own
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=self._timeout,
                finish_timeout=self._finish,
                finish_timeout_raises=True,
                stop_fn=(about.folder / "STOP").touch,  # W&B's button Stop run: at the end of a step
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
        """Ends W&B's process, in which an attempt that failed still holds the id."""
        import wandb

        wandb.teardown()

    def _define(self) -> None:
        """Forward passes under train/* and eval/*; of scores and losses the last and the best."""
        for axis in AXES:
            self._run.define_metric(axis, hidden=True)
        for names, best in ((SCORES, "max"), (LOSSES, "min")):
            for name in names:
                self._run.define_metric(name, step_metric="forward_passes", summary=f"{best},last")
        for group in ("train/*", "eval/*"):
            self._run.define_metric(group, step_metric="forward_passes")

    def _where(self, folder: Path) -> str:
        if self.mode == "disabled":
            return "W&B is disabled."
        if self.mode == "online":
            return f"W&B shows this run at {self._run.url}"
        return f"W&B's offline files are in {folder / 'wandb'}; python -m experiments sync {folder} uploads the run."

    def log(self, number: int, metrics: Mapping[str, float]) -> None:
        """Row `number` is W&B's step of that number; what the server has already is passed over."""
        if number >= self._run.step or self.mode != "online":
            self._run.log(dict(metrics), step=number)

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """A stopped run is shown as preempted, a failed one as failed."""
        self._run.summary.update(dict(summary))
        if status == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=int(status in ("stopped", "failed")))
