"""One run, from a checked configuration to result.json; the same call again goes on where it stopped."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.baselines.no_training import NoTraining
from experiments.config.run_config import RunConfig
from experiments.config.run_id import folder_of
from experiments.config.tracker_config import need
from experiments.display.console import outliving_output
from experiments.display.progress import closing_table, show_ended, view
from experiments.display.track import goal_of
from experiments.display.warned import spoken_warnings
from experiments.evaluation import Evaluation, evaluate
from experiments.models.attention import note_of
from experiments.rundir.folder import RunFolder
from experiments.tasks.draws import answers_digest
from experiments.tasks.prompts import Example
from experiments.trackers.opening import sink_of
from experiments.training import peak_memory, saving
from experiments.training.oom import MemoryBudget, release
from experiments.training.ranks import console_of, team_of
from experiments.training.recorder import Recorder
from experiments.training.result_record import Ending, result_record
from experiments.training.resume import open_journal, replayed, settle
from experiments.training.session import Session, build
from experiments.training.stop import StopFlag
from experiments.training.warning_record import WarningRecord
from zo.errors import ConfigError, Diverged, JournalError, RanksDiverged
from zo.journal import Copy, Journal
from zo.rank_env import rank_info
from zo.snapshots import Snapshots
from zo.team import Team
from zo.training import snapshot, train


def run(
    config: RunConfig, *, rerun: bool = False, console: Console | None = None, submitted: Path | None = None
) -> int:
    """Trains, evaluates, saves; returns the exit code (0 also for a diverged run, 130 after Ctrl-C).

    rerun: forget what the run's folder holds. submitted: the folder a launcher chose, where the run must belong.
    Several processes that were started for it (experiments.training.ranks) share the run.
    Raises ConfigError and DataError before anything is written, JournalError when the folder cannot be.
    """
    leads = rank_info(os.environ).rank == 0
    with outliving_output(), spoken_warnings(aloud=leads) as warned, team_of(config) as team:
        return _shared(config, team, rerun, console or console_of(team), submitted, warned)


def _shared(
    config: RunConfig, team: Team, rerun: bool, console: Console, submitted: Path | None, warned: list[str]
) -> int:
    """Does the work of `run` once its processes have met. warned: a list that all warnings are added to."""
    need(config.tracker.name)  # refuses a tracker whose package is missing before anything is loaded
    session = build(config, team)
    path = folder_of(config, session.name, session.hash)
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
        if submitted is None:  # the same command goes on; to a launched run a file STOP is news
            folder.forget_stop()
        if (result := team.first(folder.result)) is not None:
            show_ended(console, result, folder.path)
            if not folder.is_tidy():
                folder.tidy(config.recorded())
            return 0
        with open_journal(session, folder, team) as journal, StopFlag(folder, team) as stop:
            running: _Run | None = None
            try:
                running = _Run(session, folder, journal, stop, console, team)
                del session  # the run has it, and will let it go
                return running.go()
            except BaseException as error:  # Ctrl-C too: status.json says why the run ended; raised below
                # With a full disk this fails too; the first error is the one to show, and it is raised.
                with suppress(JournalError):
                    if isinstance(error, RanksDiverged):
                        folder.keep_metrics(len(journal))
                    folder.write_failed(error, steps=len(journal))
                if running is not None:
                    running.end_tracking("failed")
                raise


class _Run:
    """The parts of `run` that share a session, a folder and a journal."""

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        journal: Journal | Copy,
        stop: StopFlag,
        console: Console,
        team: Team,
    ):
        self.session = session
        self.config = session.config
        self.folder = folder
        self.journal = journal
        self.stop = stop
        self.console = console
        self.snapshots = Snapshots(folder.snapshots)
        self.team = team
        self._earlier = settle(session, folder, journal, self.snapshots, team)
        gpus = team.size * peak_memory.gpus_of(session.loaded.model)
        self.recorder = Recorder(session, folder, self._earlier.rows, gpus, journal.digest)
        # Losses cannot rebuild them, so a snapshot keeps the best weights:
        self._keeps_best = session.optimizer.replays_from != "losses" and self.config.select == "best"
        if self._keeps_best:
            self.snapshots.pinned = self.recorder.best_step
        self.shown = view(console, f"{session.name} seed {self.config.seed}", goal_of(self.config))
        team.report = lambda: (stop.code(), self.recorder.seconds())
        self.fit = MemoryBudget(folder, session.look, self.config.evaluate.batch, self._say)
        self._warned = False
        self.warnings = WarningRecord(folder, team, session.loaded.attention)
        self._reason: str | None = None  # why it diverged
        self._before: Evaluation | None = None  # of this process
        self._draw = session.draw(journal.header["start"])
        self._fitted = 0  # forward passes of a way that takes no steps
        self._checks = 0  # forward passes of the look that trained, once another took its place

    def _say(self, words: str) -> None:
        self.console.print(words, highlight=False, soft_wrap=True, markup=False)

    def end_tracking(self, status: str, result: dict[str, Any] | None = None) -> None:
        """Lets the tracker finish, now that all files are written."""
        if self.recorder.sink is not None:
            self.recorder.sink.close(status, result)

    def go(self) -> int:
        """Evaluates, trains, evaluates again and writes the result; returns the exit code."""
        for note in self._earlier.notes:
            self._say(note)
        self.folder.write_config(self.config.recorded())
        if note := note_of(self.session.loaded.model, self.config.model.attention):
            self._say(f"Note: {note}")
        # Writes provenance.json, which the tracker takes its commit and command from.
        self.warnings.begin(self.session.optimizer.weights, len(self.journal))
        if self.team.leads:
            self.recorder.sink = sink_of(self.config, self.folder.path, self._earlier.rows, self._say)
        summary = self.session.task.summary
        for words in (summary.line(), *(f"Note: {warning}" for warning in summary.warnings)):
            self._say(words)
        peak_memory.reset_peak(self.session.loaded.device)
        status = "finished"
        with self.shown as self.recorder.shown:
            self.stop.farewell, self.stop.say = self.shown.farewell, self.shown.say
            self.shown.recall(self._earlier.rows)
            try:
                if self.recorder.before is None:
                    self._before = self._test()
                    self.recorder.note_before(self._before)
                    _check_scores(self._before, "test")
                done = self._train()
            except Diverged as error:
                status, done = "diverged", len(self.journal)
                self._reason = str(error)
                self.console.print(str(error), highlight=False)
        self.stop.farewell, self.stop.say, self.recorder.shown = b"", None, None
        if self.stop.asked():
            return self._stopped(done)
        return self._finish(status, done)

    def _train(self) -> int:
        if isinstance(way := self.session.optimizer, NoTraining):
            self._fitted = way.fit(self.session.loaded, self.session.task, self.config.evaluate.batch)
            return 0
        session, recorder = self.session, self.recorder
        minutes = self.config.budget.minutes

        def rate(t: int) -> float:
            assert minutes is not None  # the only budget with a rate of its own
            return self.config.optimizer.lr * session.schedule(self.team.seconds / (60 * minutes))

        def over() -> bool:
            return minutes is not None and self.team.seconds >= 60 * minutes

        def on_step(t: int, seen: dict[str, float], replayed: bool) -> bool:
            self._warn_of_idle_steps(t)
            self.warnings.look(session.optimizer.weights, t + 1)
            last = over() and not replayed
            recorder.note_step(t, seen, replayed)
            if recorder.is_dev_due(t + 1, last):
                recorder.note_dev(t + 1, self._dev())
            self._keep_best(t + 1)
            late = recorder.looked == t + 1 and over()  # evaluating may have taken the rest of the time
            ended = recorder.is_early_stop(t + 1)
            return ended or last or (not replayed and (late or self.stop.asked()))

        return train(
            session.optimizer,
            session.look,
            session.batch,
            self._last_step(),
            journal=self.journal,
            snapshots=self.snapshots,
            max_replay_seconds=60 * self.config.checkpoint.max_replay_minutes,
            rate=None if minutes is None else rate,
            on_step=on_step,
            team=self.team,
        )

    def _warn_of_idle_steps(self, t: int) -> None:
        """Says once that a step made no move; the closing table counts them."""
        optimizer = self.session.optimizer
        if (optimizer.idle or optimizer.skipped) and not self._warned:
            self._warned = True
            why = "its losses are too close to each other" if optimizer.idle else optimizer.skipped_because()
            self.console.print(f"Step {t}: no move, because {why}.", highlight=False)

    def _last_step(self) -> int:
        """Steps after which training ends: the budget's, or those there are if the last look has ended it already."""
        minutes, recorder = self.config.budget.minutes, self.recorder
        late = minutes is not None and recorder.recorded_seconds >= 60 * minutes
        done = recorder.looked > 0 and recorder.looked == len(self.journal)
        return len(self.journal) if done and (recorder.out_of_patience or late) else self.session.steps

    def _dev(self) -> Evaluation:
        result = self._evaluated(self.session.task.dev)
        if self.config.stop.on_nan == "stop":
            _check_scores(result, "dev")
        return result

    def _keep_best(self, steps: int) -> None:
        """A run that cannot be replayed keeps the best weights in a snapshot, once the row that says so is written."""
        if self._keeps_best and self.recorder.best_step == steps != self.snapshots.pinned:
            self.snapshots.pinned = steps
            if self.team.leads:
                snapshot(self.session.optimizer, self.snapshots, steps, self.journal)

    def _test(self) -> Evaluation:
        return self._evaluated(self.session.task.test)

    def _evaluated(self, examples: Sequence[Example]) -> Evaluation:
        def attempt(batch: int) -> Evaluation:
            with self.shown.doing(f"evaluating {len(examples):,} examples"):
                return evaluate(self.session.task, self.session.loaded, examples, batch, team=self.team)

        if self.team.size > 1:  # the others are in the middle of it, and would wait
            return attempt(self.fit.evaluate)
        return self.fit.evaluated(attempt)

    def _stopped(self, done: int) -> int:
        """Ends at a step boundary; what is missing for going on is written."""
        if self.session.optimizer.replays_from != "losses" and self.team.leads:
            snapshot(self.session.optimizer, self.snapshots, done, self.journal)
        self.recorder.note_stop()
        self.folder.write_status("stopped", steps=done, reason=self.stop.reason)
        self.folder.forget_stop()
        self.console.print(
            f"Stopped after {done:,} steps ({self.stop.reason}). Rerun the same command to resume.",
            highlight=False,
        )
        self.end_tracking("stopped")
        return self.stop.exit_code

    def _finish(self, status: str, done: int) -> int:
        seconds = self.recorder.seconds()
        last = self.session.optimizer.weights.sha256()
        peak = max(self.team.every(peak_memory.peak(self.session.loaded.device)))
        selected = self._select(status, done)
        changed = bool(self.session.steps or self._fitted)
        if changed or self._before is None:
            after = self._test()
        else:
            after = replace(self._before, forward_passes=0)  # of the same weights
        if after.broken:
            status, self._reason = "diverged", self._reason or _no_scores(after, "test")
        if self.config.save and changed and self.team.leads:
            saving.save(self.session.loaded, self.folder.model)
        ending = Ending(
            *(status, self._reason, done, selected, after, last, seconds, peak), self._fitted, self._checks
        )
        answers = self._answers(after)
        result = result_record(
            *(self.session, self.recorder, ending),
            draw=self._draw,
            ranks=self.team.size,
            retry_smaller=self.fit.found,
            warnings=self.warnings.end(self.session.optimizer.weights),
            answers_sha256=answers_digest(answers),
        ).as_dict()
        self.folder.write_compact("answers.json", answers)
        self.recorder.note_after(after, selected)
        # From here on the run has ended; what follows is made up for by the next call (RunFolder.tidy).
        self.folder.write_result(result)
        self.folder.forget_snapshots()
        self.console.print(closing_table(result, str(self.folder.path)))
        self.end_tracking(status, result)
        return 0

    def _answers(self, after: Evaluation) -> dict[str, Any]:
        """Returns the contents of answers.json: of each test example its row, the answer, and its score."""
        task, examples = self.session.task, self.session.task.test
        pairs = zip(examples, after.predictions, strict=True)
        return {
            "metric": after.metric,
            "examples": [example.index for example in examples],
            "answers": list(after.predictions),
            "correct": [task.correct(example, answer) for example, answer in pairs],
        }

    def _select(self, status: str, done: int) -> int:
        """Puts the weights to report into the session; returns after how many steps they were reached."""
        best = self.recorder.best_step
        if self.config.select == "last" or best is None or best == done:
            return done
        skipped, idle = self.session.optimizer.skipped, self.session.optimizer.idle
        because = self.session.look.sequential_because
        self._checks = self.session.look.check_forward_passes
        del self.session  # before its successor is built, or two models would be in memory
        release()
        self.session = replayed(build(self.config, self.team), self.journal, self.snapshots, best)
        self.session.optimizer.skipped, self.session.optimizer.idle = skipped, idle
        self.session.look.sequential_because = because
        return best


def _check_scores(result: Evaluation, split: str) -> None:
    """Raises Diverged where the model gives no numbers for any example."""
    if result.broken:
        raise Diverged(_no_scores(result, split))


def _no_scores(result: Evaluation, split: str) -> str:
    return (
        f"The model's scores are no finite numbers on any of the {result.n:,} {split} examples. Its weights may be "
        f"damaged, or too large for their dtype: try model.dtype=bfloat16 or float32."
    )
