"""Plans, prints and starts the runs of launch.py -m.

0 done, 1 a run failed, 2 wrong input, 3 another process is at some of the runs, which have not ended.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.config.compose import compose
from experiments.config.problems import listing
from experiments.config.run_config import RunConfig
from experiments.display.console import new_console
from experiments.estimating.run_cost import Estimate, estimate
from experiments.launching import code_snapshot
from experiments.launching.check import Asked, Checked
from experiments.launching.plan import Plan, Planner, Run, plan, short_names, state_of, unequal
from experiments.launching.search import Pace, Study, show, value_of
from experiments.launching.slurm import described
from experiments.launching.start import left_to_others, start
from experiments.launching.states import states, with_jobs
from experiments.launching.submission import Pending, freeze_run, write_sweep
from experiments.rundir.code_places import typed_command
from experiments.rundir.folder import title_of
from experiments.rundir.lock import holder_of
from experiments.training.stop import INTERRUPTED
from experiments.watching.sweep_view import sweep_view
from zo.errors import ConfigError

SHOWN = 40  # runs that are listed by name


TRIALS = 4  # of a search at once, on SLURM


def sweep(request: Asked, checked: Checked) -> int:
    """Plans and runs; refusals come before anything is written."""
    console = new_console(soft_wrap=True)
    sweep_plan, problems = plan(checked)
    if sweep_plan is None or checked.problems:
        sys.stderr.write(listing(checked.problems + problems) + "\n")
        return 2
    for note in sweep_plan.notes:
        console.print(note, highlight=False)
    if checked.space is not None:
        return _search(request, checked, sweep_plan, console)
    todo = [run for run in sweep_plan.runs if request.again or not run.ended]
    queued = with_jobs([run.folder for run in todo])
    busy = [run for run in todo if run.folder in queued or holder_of(run.folder / "lock")]
    todo = [run for run in todo if run not in busy]
    needs = request.dry or sweep_plan.launcher["name"] == "slurm"
    console.print(_overview(checked.name, sweep_plan, todo, busy, request.again, needs))
    if request.dry:
        for line in _data_of(sweep_plan):
            console.print(line, highlight=False, markup=False)
        if sweep_plan.launcher["name"] == "slurm" and todo:
            configs = [run.config for run in todo]
            for text in described(configs, sweep_plan.cluster, f"zo-{checked.name}", sweep_plan.runs_folder):
                console.print(text)
        console.print("Nothing was started (--dry-run).")
        return 0
    folder = write_sweep(sweep_plan.runs_folder, checked.name, sweep_plan.runs, sys.argv)
    console.print(f"The sweep is {folder}.")
    local = sweep_plan.launcher["name"] == "local"
    elsewhere = [run.folder for run in busy]
    if not todo:
        return left_to_others(console, elsewhere) if local else 0
    snapshot = code_snapshot.freeze(sweep_plan.runs_folder)
    names = short_names(sweep_plan.runs)
    pending = [_pending(run, snapshot, sweep_plan, request.again) for run in todo]
    view = sweep_view(console, names)
    code = start(pending, sweep_plan.launcher, sweep_plan.cluster, folder, console, view=view, names=names)
    return (left_to_others(console, elsewhere) if local else 0) if code == 0 else code


def _pending(run: Run, snapshot: Path, sweep_plan: Plan, rerun: bool) -> Pending:
    freeze = functools.partial(
        freeze_run, run, snapshot, sweep_plan.launcher, sweep_plan.cluster, rerun=rerun
    )
    return Pending(run.folder, run.config, freeze)


def _data_of(sweep_plan: Plan) -> list[str]:
    """Returns the examples of each task of a sweep, with notes; each is listed once for all its runs."""
    lines = []
    for run in sweep_plan.runs:
        lines.append(f"{run.config.task.name}: {run.data.line()}")
        lines += [f"{run.config.task.name}: Note: {warning}" for warning in run.data.warnings]
    return list(dict.fromkeys(lines))


def _search(request: Asked, checked: Checked, sweep_plan: Plan, console: Console) -> int:
    """Runs trials in batches: as many as run at once here, and `TRIALS` on SLURM."""
    space, trials = checked.space, request.trials or 0
    assert space is not None
    console.print(f"{checked.name}: {trials} trials over {', '.join(space.dimensions)}")
    if request.dry:
        console.print("Nothing was started (--dry-run).")
        return 0
    folder = sweep_plan.runs_folder / "sweeps" / checked.name
    study = Study(folder, space, anew=request.again)
    snapshot, runs = code_snapshot.freeze(sweep_plan.runs_folder), {}
    begun: set[Path] = set()
    launch = (
        {**sweep_plan.launcher, "wait": True}
        if sweep_plan.launcher["name"] == "slurm"
        else sweep_plan.launcher
    )
    planner, worst, pace = Planner(), 0, Pace(trials, study.done)
    while (missing := trials - study.done) > 0:
        batch = [study.ask() for _ in range(min(missing, launch.get("parallel", TRIALS)))]
        mine: list[list[Path]] = []
        for _, values in batch:
            named = [planner.name(_config(overrides), overrides) for overrides in space.runs(values)]
            runs |= {run.folder: run for run in named}
            mine.append([run.folder for run in named])
        write_sweep(sweep_plan.runs_folder, checked.name, list(runs.values()), sys.argv)
        paths = dict.fromkeys(chain.from_iterable(mine))
        todo = [runs[path] for path in paths if not runs[path].ended or (request.again and path not in begun)]
        begun |= paths.keys()
        if queued := with_jobs([run.folder for run in todo]):
            raise ConfigError(
                f"SLURM still holds jobs of {', '.join(map(title_of, queued))}. Let them end, or "
                f"`{typed_command('cancel')}` them, and give the same command again."
            )
        pending = [_pending(run, snapshot, sweep_plan, request.again) for run in todo]
        names = {run.folder: _trial_name(run, space.fixed) for run in todo}
        view = sweep_view(console, names)
        ended = 0
        if todo:
            ended = start(
                pending, launch, sweep_plan.cluster, folder, console, view=view, names=names, counts=False
            )
        if ended in (2, INTERRUPTED) or _was_stopped(todo, launch):
            return ended
        worst = max(worst, ended)
        for (trial, _), folders in zip(batch, mine, strict=True):
            study.tell(trial, value_of(folders))
        console.print(pace.line(study))
    show(console, study, space)
    return worst


def _was_stopped(todo: Sequence[Run], launch: Mapping[str, Any]) -> bool:
    """Returns whether a local pool was stopped by a signal: its runs have then neither ended nor failed."""
    left = ("queued", "stopped", "waiting")
    return launch["name"] == "local" and any(s.state in left for s in states([run.folder for run in todo]))


def _trial_name(run: Run, fixed: Sequence[str]) -> str:
    """Returns a trial's values and seed as overrides."""
    return " ".join(text for text in run.overrides if text not in fixed) or title_of(run.folder)


def _config(overrides: Sequence[str]) -> RunConfig:
    composed = compose(overrides)
    if composed.config is None:
        raise ConfigError(listing(composed.problems))
    return composed.config


def _overview(
    name: str, sweep_plan: Plan, todo: Sequence[Run], busy: Sequence[Run], rerun: bool, estimates: bool
) -> Table:
    """Returns the table of runs with their states, and with their estimated needs on request."""
    ended = len(sweep_plan.runs) - len(todo) - len(busy)
    title = f"{name}: {len(sweep_plan.runs)} runs, {len(todo)} to do, {ended} done"
    needs = Needs() if estimates else None
    if needs is not None and todo:
        hours = [need.hours for run in todo if (need := needs.of(run.config)) is not None]
        if len(hours) == len(todo):
            title += f"; about {sum(hours):.2g} GPU-hours to do"
    table = Table(
        title=title + (f", {len(busy)} running or waiting elsewhere" if busy else ""),
        title_justify="left",
        caption_justify="left",
    )
    words = unequal(sweep_plan.runs)
    passes = ("forwards",) if words else ()
    for column in ("run", "steps", *passes, "state", *(("GiB", "GPU-hours") if needs else ())):
        table.add_column(column, overflow="fold")
    names = short_names(sweep_plan.runs)
    for run in sweep_plan.runs[:SHOWN]:
        state = "again" if rerun and run.ended else "elsewhere" if run in busy else state_of(run)
        forwards = ["-" if run.passes is None else f"{run.passes:,}"] if words else []
        row = [names[run.folder], f"{run.steps:,}", *forwards, state]
        if needs is not None:
            need = needs.of(run.config)
            row += ["?", "?"] if need is None else [f"{need.peak / 2**30:.2g}", f"{need.hours:.2g}"]
        table.add_row(*row)
    if len(sweep_plan.runs) > SHOWN:
        table.add_row(f"and {len(sweep_plan.runs) - SHOWN} more")
    captions = [words] if words else []
    if needs is not None:
        about = f"Memory and GPU-hours are estimates; {typed_command('estimate')} says by what."
        captions += [about, *(f"No estimate where ? stands: {why}" for why in dict.fromkeys(needs.failed))]
    table.caption = "\n".join(captions)
    return table


class Needs:
    """Estimates, made once for runs that differ in numbers that need no memory and no time.

    They are a courtesy. failed: why some could not be made, which keeps no run from starting.
    """

    def __init__(self) -> None:
        self._made: dict[str, Estimate | None] = {}
        self.failed: list[str] = []

    def of(self, config: RunConfig) -> Estimate | None:
        """Returns what a run of this configuration needs, as far as it is known."""
        values = config.recorded()
        optimizer = {
            key: value for key, value in config.optimizer.options.items() if key not in ("lr", "eps")
        }
        optimizer["_target_"] = config.optimizer.target
        parts = {
            key: v for key, v in values.items() if key not in ("seed", "seeds", "schedule", "experiment")
        }
        key = str(parts | {"optimizer": optimizer})
        if key not in self._made:
            try:
                self._made[key] = estimate(config)
            except Exception as error:  # also of a user's own class, which is tried on no data here
                self._made[key] = None
                self.failed.append(f"{type(error).__name__}: {error}")
        return self._made[key]
