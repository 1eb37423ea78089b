"""Searches the dev metric with Optuna: asks for values, runs them, reports their scores.

The study is a journal in the sweep's folder. Rerun the same command to resume: unfinished trials are tried again, and
finished runs are never repeated. A trial's value is the best dev metric of its run, averaged over seeds. A run that
diverged without one counts as 0; a trial with a failed run is left out.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.launching.search_space import Interval, Space
from experiments.rundir.code_places import install
from experiments.rundir.folder import RunFolder
from zo.errors import ConfigError

SHOWN = 10  # of the best trials


class Study:
    """The Optuna study of a folder.

    anew: forgets the trials that are there. Raises ConfigError for trials of another space, and without Optuna.
    """

    def __init__(self, folder: Path, space: Space, *, anew: bool = False):
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ModuleNotFoundError as error:
            raise ConfigError(f"{error}. --trials needs Optuna: {install('optuna')}") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._space = space
        journal = RunFolder(folder).path / "optuna.journal"
        if anew:
            journal.unlink(missing_ok=True)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        self._study = optuna.create_study(
            study_name=folder.name,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
        )
        self._claim(folder)
        # A seed of its own for every process, or each would begin with the same draws.
        begun = len(self._study.trials)
        self._study.sampler = optuna.samplers.TPESampler(seed=begun, constant_liar=True)
        for trial in self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def _claim(self, folder: Path) -> None:
        """Writes the space beside the trials, because Optuna fails on trials of different spaces."""
        mine, theirs = self._space.written(), self._study.user_attrs.get("space")
        if theirs is None:
            self._study.set_user_attr("space", mine)
        elif theirs != mine:
            there, here = (
                ", ".join(f"{key}={value}" for key, value in each.items()) for each in (theirs, mine)
            )
            raise ConfigError(
                f"{folder} holds a search over {there}, and this one is over {here}. Give it a --name of its own, or "
                "let it take that one's place with --rerun."
            )

    @property
    def done(self) -> int:
        """Returns the number of finished trials; those to repeat do not count."""
        again = {trial.user_attrs.get("again") for trial in self._study.trials}
        return sum(trial.state.is_finished() and trial.number not in again for trial in self._study.trials)

    def ask(self) -> tuple[Any, dict[str, str]]:
        """Returns a trial and its values as overrides."""
        trial = self._study.ask()
        values = {}
        for key, dimension in self._space.dimensions.items():
            if isinstance(dimension, Interval):
                values[key] = repr(trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log))
            else:
                values[key] = str(trial.suggest_categorical(key, dimension.ends))
        return trial, values

    def tell(self, trial: Any, value: float | None) -> None:
        """Reports a trial's value; None means that it failed."""
        if value is None:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def best(self) -> list[tuple[float, dict[str, Any]]]:
        """Returns value and parameters of the reported trials, best first."""
        trials = [(trial.value, trial.params) for trial in self._study.trials if trial.value is not None]
        return sorted(trials, key=lambda pair: -pair[0])


class Pace:
    """The progress of a search, a line after each batch of trials."""

    def __init__(self, trials: int, done: int):
        self._trials, self._before = trials, done
        self._began = time.monotonic()

    def line(self, study: Study) -> str:
        """Returns the finished trials, the best on dev so far, and the remaining time at the mean pace."""
        done = study.done
        words = f"Search: {done} of {self._trials} trials"
        if best := study.best():
            value, params = best[0]
            tried = " ".join(f"{key}={_short(each)}" for key, each in params.items())
            words += f", best dev {100 * value:.1f} % ({tried})"
        if self._before < done < self._trials:
            seconds = (time.monotonic() - self._began) / (done - self._before) * (self._trials - done)
            words += f", ETA {timedelta(seconds=round(seconds))}"
        return words


def value_of(folders: Sequence[Path]) -> float | None:
    """Returns the mean best dev metric over runs; None if a run has no result."""
    values = []
    for folder in folders:
        result = RunFolder(folder).result()
        if result is None:
            return None
        values.append(result["best_dev"] or 0.0)
    return sum(values) / len(values)


def show(console: Console, study: Study, space: Space) -> None:
    """Prints the best trials, and the best one's overrides to copy."""
    best = study.best()
    table = Table(title=f"{study.done} trials; the best on dev", title_justify="left")
    for column in ("dev", *space.dimensions):
        table.add_column(column)
    for value, params in best[:SHOWN]:
        table.add_row(f"{100 * value:.1f} %", *(_short(params[key]) for key in space.dimensions))
    console.print(table)
    if best:
        console.print(" ".join(f"{key}={value}" for key, value in best[0][1].items()))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
