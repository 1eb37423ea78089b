"""One run, from a checked configuration to result.json; the same call again resumes it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.baselines.no_training import NoTraining
from experiments.config.run_config import RunConfig
from experiments.config.tracker_config import need
from experiments.display.console import outliving_output
from experiments.display.progress import closing_table
from experiments.display.warned import spoken_warnings
from experiments.evaluation import Evaluation, evaluate
from experiments.models.attention import note_of
from experiments.tasks.draws import answers_digest
from experiments.tasks.prompts import Example
from experiments.trackers.opening import sink_of
from experiments.training import peak_memory, saving
from experiments.training.oom import release
from experiments.training.open_run import OpenRun, open_run
from experiments.training.ranks import console_of, team_of
from experiments.training.result_record import Ending, result_record
from experiments.training.resume import replayed
from experiments.training.session import build
from zo.errors import Diverged
from zo.rank_env import rank_info
from zo.training import Step


def run(
    config: RunConfig, *, rerun: bool = False, console: Console | None = None, submitted: Path | None = None
) -> int:
    """Evaluates, trains, evaluates again; returns the exit code (0 also for a diverged run, 130 after Ctrl-C).

    rerun: forget what the run's folder holds. submitted: the folder a launcher chose, where the run must belong.
    Several processes that were started for it (experiments.training.ranks) share the run.
    Raises ConfigError and DataError before anything is written, JournalError when the folder cannot be written.
    """
    need(config.tracker.name)  # a missing package is named before anything is loaded
    leads = rank_info(os.environ).rank == 0
    with (
        outliving_output(),
        spoken_warnings(aloud=leads) as warned,
        team_of(config) as team,
        open_run(
            build(config, team), team, console or console_of(team), warned, rerun=rerun, submitted=submitted
        ) as current,
    ):
        if current is None:
            return 0  # it had ended already
        before, fitted, reason = None, 0, None
        _begin(current)
        with current.on_screen():
            try:
                if current.recorder.before is None:  # else an earlier process has evaluated
                    before = _evaluate(current, current.session.task.test)
                    current.recorder.note_before(before)
                    _check_scores(before, "test")

                fitted = _fit_baseline(current)
                for step in current.steps():
                    is_late = current.is_out_of_time and not step.replayed
                    _note_step(current, step)
                    if current.recorder.is_dev_due(step.t + 1, last=is_late):
                        _evaluate_dev(current, step.t + 1)
                    if is_late or _is_last(current, step):
                        step.end()
            except Diverged as error:
                reason = str(error)
                current.console.print(reason, highlight=False)
        if current.stop.is_requested():
            return _stop(current)
        return _finish(current, before, fitted, reason)


def _begin(current: OpenRun) -> None:
    """Writes the files that a run has from its first step on, and prints what is to be known beforehand."""
    session = current.session
    for note in current.earlier.notes:
        current.say(note)
    current.folder.write_config(session.config.recorded())
    if note := note_of(session.loaded.model, session.config.model.attention):
        current.say(f"Note: {note}")
    # Writes provenance.json, from which the tracker takes commit and command.
    current.warnings.begin(session.optimizer.weights, len(current.journal))
    if current.team.leads:
        current.recorder.sink = sink_of(
            session.config, current.folder.path, current.earlier.rows, current.say
        )
    current.say(session.task.summary.line())
    for warning in session.task.summary.warnings:
        current.say(f"Note: {warning}")
    peak_memory.reset_peak(session.loaded.device)


def _fit_baseline(current: OpenRun) -> int:
    """Fits a method that takes no steps, such as a linear probe; returns its forward passes, 0 for all others."""
    session = current.session
    if isinstance(session.optimizer, NoTraining):
        return session.optimizer.fit(session.loaded, session.task, session.config.evaluate.batch)
    return 0


def _note_step(current: OpenRun, step: Step) -> None:
    """Writes the step's row and new warnings; says once that a step made no move (the closing table counts them)."""
    optimizer = current.session.optimizer
    if (optimizer.idle or optimizer.skipped) and not current.idle_noted:
        current.idle_noted = True
        why = "its losses are too close to each other" if optimizer.idle else optimizer.skipped_because()
        current.console.print(f"Step {step.t}: no move, because {why}.", highlight=False)
    current.warnings.update(optimizer.weights, step.t + 1)
    current.recorder.note_step(step.t, step.seen, step.replayed)


def _evaluate_dev(current: OpenRun, steps: int) -> None:
    """Evaluates on dev after `steps` steps; keeps the weights if they are the best and losses cannot rebuild them."""
    result = _evaluate(current, current.session.task.dev)
    if current.session.config.stop.on_nan == "stop":
        _check_scores(result, "dev")
    current.recorder.note_dev(steps, result)
    # The row is written first: a run resumes from a snapshot only if it has the rows up to there.
    if current.keeps_best and current.recorder.best_step == steps != current.snapshots.pinned:
        current.snapshots.pinned = steps
        current.save_snapshot(steps)


def _is_last(current: OpenRun, step: Step) -> bool:
    """Returns True if training ends here: by early stopping, the clock, a signal or a STOP file."""
    recorder, steps = current.recorder, step.t + 1
    if recorder.is_early_stop(steps):
        return True
    if step.replayed:  # the process that took the step went on
        return False
    # Evaluating on dev may have taken the rest of the time.
    return (recorder.dev_step == steps and current.is_out_of_time) or current.stop.is_requested()


def _evaluate(current: OpenRun, examples: Sequence[Example]) -> Evaluation:
    """Evaluates the model on examples, with fewer at once if memory runs out."""
    session = current.session

    def attempt(batch: int) -> Evaluation:
        with current.view.doing(f"evaluating {len(examples):,} examples"):
            return evaluate(session.task, session.loaded, examples, batch, team=current.team)

    if current.team.size > 1:  # no retry: the other processes are in the middle of it, and would wait
        return attempt(current.budget.evaluate)
    return current.budget.evaluated(attempt)


def _check_scores(result: Evaluation, split: str) -> None:
    """Raises Diverged if the model gives no numbers for any example."""
    if result.broken:
        raise Diverged(_no_scores(result, split))


def _no_scores(result: Evaluation, split: str) -> str:
    return (
        f"The model's scores are no finite numbers on any of the {result.n:,} {split} examples. Its weights may be "
        f"damaged, or too large for their dtype: try model.dtype=bfloat16 or float32."
    )


def _stop(current: OpenRun) -> int:
    """Ends a run that was asked to stop at a step boundary, so that it can be resumed; returns the exit code."""
    steps = len(current.journal)
    if current.session.optimizer.replays_from != "losses":
        current.save_snapshot(steps)
    current.recorder.note_stop()
    current.folder.write_status("stopped", steps=steps, reason=current.stop.reason)
    current.folder.forget_stop()
    current.console.print(
        f"Stopped after {steps:,} steps ({current.stop.reason}). Rerun the same command to resume.",
        highlight=False,
    )
    current.end_tracking("stopped")
    return current.stop.exit_code


def _finish(current: OpenRun, before: Evaluation | None, fitted: int, reason: str | None) -> int:
    """Evaluates the selected weights, saves the model and writes the result; returns the exit code.

    before: the evaluation before training, if this process made it. fitted: forward passes of a baseline.
    reason: why the run diverged.
    """
    recorder, team, steps = current.recorder, current.team, len(current.journal)
    seconds = recorder.seconds()
    last_sha256 = current.session.optimizer.weights.sha256()
    peak = max(team.every(peak_memory.peak(current.session.loaded.device)))
    selected, checks = _select(current, steps)
    session = current.session
    changed = bool(session.steps or fitted)
    if changed or before is None:
        after = _evaluate(current, session.task.test)
    else:
        after = replace(before, forward_passes=0)  # the same weights, evaluated once
    if after.broken:
        reason = reason or _no_scores(after, "test")
    status = "finished" if reason is None else "diverged"
    if session.config.save and changed and team.leads:
        saving.save(session.loaded, current.folder.model)
    answers = _answers(current, after)
    result = result_record(
        session,
        recorder,
        Ending(status, reason, steps, selected, after, last_sha256, seconds, peak, fitted, checks),
        draw=current.draw,
        ranks=team.size,
        retry_smaller=current.budget.reduced,
        warnings=current.warnings.end(session.optimizer.weights),
        answers_sha256=answers_digest(answers),
    ).as_dict()
    current.folder.write_compact("answers.json", answers)
    recorder.note_after(after, selected)
    # From here on the run has ended; whatever is cut short below, the next call makes up for (RunFolder.tidy).
    current.folder.write_result(result)
    current.folder.forget_snapshots()
    current.console.print(closing_table(result, str(current.folder.path)))
    current.end_tracking(status, result)
    return 0


def _select(current: OpenRun, steps: int) -> tuple[int, int]:
    """Puts the weights to report into the session; `steps` steps were taken.

    Returns the step after which the weights were reached, and the forward passes with which a replaced look had
    checked itself.
    """
    best, config = current.recorder.best_step, current.session.config
    if config.select == "last" or best is None or best == steps:
        return steps, 0
    skipped, idle = current.session.optimizer.skipped, current.session.optimizer.idle
    look = current.session.look
    because, checks = look.sequential_because, look.check_forward_passes
    del look, current.session  # before its successor is built, or two models would be in memory
    release()
    current.session = replayed(build(config, current.team), current.journal, current.snapshots, best)
    current.session.optimizer.skipped, current.session.optimizer.idle = skipped, idle
    current.session.look.sequential_because = because
    return best, checks


def _answers(current: OpenRun, after: Evaluation) -> dict[str, Any]:
    """Returns the contents of answers.json: of each test example its row, the answer, and its score."""
    task, examples = current.session.task, current.session.task.test
    pairs = zip(examples, after.predictions, strict=True)
    return {
        "metric": after.metric,
        "examples": [example.index for example in examples],
        "answers": list(after.predictions),
        "correct": [task.correct(example, answer) for example, answer in pairs],
    }
