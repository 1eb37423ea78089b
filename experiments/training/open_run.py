"""Opens a run: claims its folder and journal, and holds what the run needs until it ends."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.baselines.no_training import NoTraining
from experiments.config.run_id import folder_of
from experiments.display.progress import View, show_ended, view
from experiments.display.track import goal_of
from experiments.rundir.folder import RunFolder
from experiments.tasks.draws import Draw
from experiments.training import peak_memory
from experiments.training.oom import MemoryBudget
from experiments.training.recorder import Recorder
from experiments.training.resume import Earlier, open_journal, settle
from experiments.training.session import Session
from experiments.training.stop import StopFlag
from experiments.training.warning_record import WarningRecord
from zo.errors import ConfigError, JournalError, RanksDiverged
from zo.journal import Copy, Journal
from zo.snapshots import Snapshots
from zo.team import Team
from zo.training import Loop, Step, snapshot


@dataclass
class OpenRun:
    """The parts of a run that has not ended yet.

    session: the model and all that belongs to it; replaced by another when earlier weights are selected.
    earlier: rows and notes of the run's earlier processes. budget: the batch sizes that fit into memory.
    draw: which examples and seeds the run uses. idle_noted: True once a step without a move was noted on screen.
    """

    session: Session
    folder: RunFolder
    journal: Journal | Copy
    snapshots: Snapshots
    stop: StopFlag
    team: Team
    console: Console
    earlier: Earlier
    recorder: Recorder
    view: View
    budget: MemoryBudget
    warnings: WarningRecord
    draw: Draw
    idle_noted: bool = False

    @property
    def keeps_best(self) -> bool:
        """Returns True if a snapshot keeps the best weights, because losses cannot rebuild them."""
        return self.session.optimizer.replays_from != "losses" and self.session.config.select == "best"

    @property
    def is_out_of_time(self) -> bool:
        """Returns True if a budget of minutes is used up."""
        minutes = self.session.config.budget.minutes
        return minutes is not None and self.team.seconds >= 60 * minutes

    def say(self, text: str) -> None:
        """Prints a line."""
        _say(self.console, text)

    @contextmanager
    def on_screen(self) -> Iterator[None]:
        """A context in which the run is shown while it goes; Ctrl-C then leaves the terminal as it was."""
        with self.view as self.recorder.view:
            self.stop.farewell, self.stop.say = self.view.farewell, self.view.say
            self.view.recall(self.earlier.rows)
            yield
        self.stop.farewell, self.stop.say, self.recorder.view = b"", None, None

    def steps(self) -> Iterable[Step]:
        """Returns the training loop; it resumes from the newest snapshot and replays the journal's steps.

        A baseline takes no steps.
        """
        session, config, minutes = self.session, self.session.config, self.session.config.budget.minutes
        if isinstance(session.optimizer, NoTraining):
            return ()

        def rate(t: int) -> float:
            assert minutes is not None  # the only budget with a rate of its own
            return config.optimizer.lr * session.schedule(self.team.seconds / (60 * minutes))

        return Loop(
            session.optimizer,
            session.look,
            session.batch,
            self._last_step(),
            journal=self.journal,
            snapshots=self.snapshots,
            max_replay_seconds=60 * config.checkpoint.max_replay_minutes,
            rate=None if minutes is None else rate,
            team=self.team,
        )

    def _last_step(self) -> int:
        """Returns the steps of the budget, or those of the journal if its last evaluation has ended the training."""
        minutes, recorder, steps = self.session.config.budget.minutes, self.recorder, len(self.journal)
        late = minutes is not None and recorder.recorded_seconds >= 60 * minutes
        evaluated = recorder.dev_step > 0 and recorder.dev_step == steps
        return steps if evaluated and (recorder.out_of_patience or late) else self.session.steps

    def save_snapshot(self, steps: int) -> None:
        """Saves the state after `steps` steps; only the first process writes."""
        if self.team.leads:
            snapshot(self.session.optimizer, self.snapshots, steps, self.journal)

    def end_tracking(self, status: str, result: dict[str, Any] | None = None) -> None:
        """Lets the tracker finish, now that all files are written."""
        if self.recorder.sink is not None:
            self.recorder.sink.close(status, result)


@contextmanager
def open_run(
    session: Session, team: Team, console: Console, warned: list[str], *, rerun: bool, submitted: Path | None
) -> Iterator[OpenRun | None]:
    """Yields the run in its folder, or None if it has ended before; its result is printed then.

    warned: a list that all warnings are added to. rerun, submitted: as in `run`.
    An exception of the block, Ctrl-C too, is written into status.json.
    """
    path = folder_of(session.config, session.name, session.hash)
    if submitted is not None and path.resolve() != submitted.resolve():
        raise ConfigError(
            f"This run was submitted as {submitted}, but its model and data now make it {path}: one of them, or "
            "the code, has changed since. Put it back, or submit the run again."
        )
    folder = RunFolder(path, writes=team.leads)
    folder.warned = warned
    with folder.locked():
        folder.sweep()
        if rerun:
            folder.clear()
        if submitted is None:  # a launched run must obey a STOP file written while it was queued
            folder.forget_stop()
        if (result := team.first(folder.result)) is not None:
            show_ended(console, result, folder.path)
            if not folder.is_tidy():
                folder.tidy(session.config.recorded())
            yield None
            return
        with open_journal(session, folder, team) as journal, StopFlag(folder, team) as stop:
            run: OpenRun | None = None
            try:
                run = _assemble(session, folder, journal, stop, team, console)
                # The run replaces its session by another one; this frame must not keep two models in memory.
                del session
                yield run
            # Ctrl-C too: status.json says why the run ended; raised again below.
            except BaseException as error:
                # With a full disk this fails too; the first error is the one to show.
                with suppress(JournalError):
                    if isinstance(error, RanksDiverged):
                        folder.keep_metrics(len(journal))
                    folder.write_failed(error, steps=len(journal))
                if run is not None:
                    run.end_tracking("failed")
                raise


def _assemble(
    session: Session, folder: RunFolder, journal: Journal | Copy, stop: StopFlag, team: Team, console: Console
) -> OpenRun:
    """Returns the run with what its earlier processes left in the folder."""
    config, snapshots = session.config, Snapshots(folder.snapshots)
    earlier = settle(session, folder, journal, snapshots, team)
    gpus = team.size * peak_memory.gpus_of(session.loaded.model)
    recorder = Recorder(session, folder, earlier.rows, gpus, journal.digest)
    team.report = lambda: (stop.code(), recorder.seconds())
    run = OpenRun(
        session,
        folder,
        journal,
        snapshots,
        stop,
        team,
        console,
        earlier,
        recorder,
        view(console, f"{session.name} seed {config.seed}", goal_of(config)),
        MemoryBudget(folder, session.look, config.evaluate.batch, partial(_say, console)),
        WarningRecord(folder, team, session.loaded.attention),
        session.draw(journal.header["start"]),
    )
    if run.keeps_best:
        snapshots.pinned = recorder.best_step
    return run


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
