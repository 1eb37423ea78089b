"""Reads runs from their folders: no model, no torch, no network.

Every run below the given paths appears: also failed, diverged, waiting and running ones, those that a sweep lists
and that have no folder ("missing"), and those whose config.yaml is damaged ("unreadable"). An unreadable run cannot be
assigned to a setting, so it counts in no cell.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.config.run_id import method_of
from experiments.launching.states import OPEN, State, find_runs, states
from experiments.launching.submission import planned
from experiments.report.setting_key import setting_key
from experiments.rundir.json_files import (
    began,
    read_configuration,
    read_json,
    read_result,
    read_rows,
    warnings_of,
)
from experiments.rundir.metric_rows import learned_nothing, rank_key, selected_by
from zo.errors import ConfigError

WAITING = (*OPEN, "stopped", "waiting", "new")  # states of runs that may still get a result
UNREADABLE = "unreadable"  # status of a run whose configuration cannot be read
SMOKE = "smoke"  # experiment of debug=smoke, debug=step and --smoke


@dataclass(frozen=True)
class Run:
    """A run as its folder describes it.

    status: finished, diverged, failed, running, queued, requeued, stopped, missing, unreadable. detail: explains the
    status. setting: key that runs of one setting share, whatever their seed (report.setting_key).
    time: of its last status, seconds since 1970. result: result.json, or None.
    """

    folder: Path
    status: str
    method: str
    model: str
    task: str
    peft: str
    seed: int
    config_hash: str
    setting: str
    detail: str = ""
    time: float = 0.0
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Returns True if the run has a result."""
        return self.result is not None

    @property
    def smoke(self) -> bool:
        """Returns True for a smoke run; for a missing run the folder's name tells."""
        above = self.folder.absolute().parts[-4:-3]
        return self.config.get("experiment", *above) == SMOKE

    @property
    def value(self) -> float | None:
        """Returns the test metric of the reported weights, a fraction."""
        return None if self.result is None else self.result.get("after")

    @property
    def dev(self) -> float | None:
        """Returns the dev metric of the reported weights, a fraction: the best, or the last with select=last."""
        best = None if self.result is None else self.result.get("best_dev")
        if best is None or self.config.get("select") != "last":
            return best
        evaluations = self.rows_of("dev")
        return evaluations[-1]["value"] if evaluations else best

    @property
    def dev_loss(self) -> float | None:
        """Returns the dev loss of the reported weights; None without a number."""
        evaluations = self.rows_of("dev")
        if self.config.get("select") == "last":
            evaluations = evaluations[-1:]
        by = selected_by(self.config)
        best = max(evaluations, key=lambda row: rank_key(row["value"], row["loss"], by), default=None)
        return None if best is None else best["loss"]

    @cached_property
    def learned_nothing(self) -> str | None:
        """Returns the reason why the run counts as having learned nothing, a clause; None if it learned."""
        if self.result is None:
            return None
        return learned_nothing(self.result, [row["value"] for row in self.rows_of("dev")])

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """Returns the complete rows of metrics.jsonl, read on first use; a torn last line is left out."""
        return tuple(self._rows[0])

    @property
    def problem(self) -> str | None:
        """Returns what is wrong with its files, so that part of the run is left out; None if nothing is."""
        return self.detail if self.status == UNREADABLE else self._rows[1]

    @cached_property
    def _rows(self) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        return read_rows(self.folder)

    @cached_property
    def answers(self) -> tuple[float, ...] | None:
        """Returns the scores of the test examples in test order; None if the run wrote none."""
        scores = (read_json(self.folder / "answers.json") or {}).get("correct")
        return None if scores is None else tuple(float(score) for score in scores)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """The sentences that the run warned by, of its result or, until there is one, of its status."""
        record = self.result or read_json(self.folder / "status.json")
        return tuple(warnings_of(record))

    @property
    def draws_test(self) -> bool:
        """Returns True if each seed draws its own test rows."""
        seeds = self.config.get("seeds") or {}
        return "test" in seeds and seeds["test"] is None

    @cached_property
    def commit(self) -> str | None:
        """Returns the first seven characters of the code's commit, with + if the code was edited; None if unknown."""
        provenance = read_json(self.folder / "provenance.json") or {}
        return (
            f"{provenance['commit'][:7]}{'+' if provenance.get('dirty') else ''}"
            if provenance.get("commit")
            else None
        )

    def rows_of(self, kind: str) -> list[Mapping[str, Any]]:
        """Returns the rows of a kind (before, train, dev, after) sorted by step, a repeated step once."""
        return self._by_kind.get(kind, [])

    @cached_property
    def _by_kind(self) -> Mapping[str, list[Mapping[str, Any]]]:
        at_step: dict[str, dict[int, Mapping[str, Any]]] = {}
        for row in self.rows:
            at_step.setdefault(row["kind"], {})[row["steps"]] = row
        return {kind: [row for _, row in sorted(rows.items())] for kind, rows in at_step.items()}


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Returns all runs below the paths, sorted by folder. Raises ConfigError if there are none."""
    plans = {folder: names for path in paths for folder, names in _planned(path).items()}
    folders = {_real(folder) for folder in [*find_runs(paths), *plans]}
    present = sorted(folder for folder in folders if (folder / "config.yaml").is_file() or began(folder))
    runs = {state.folder: _read_run(state) for state in states(present)}
    other_seed = {plans[folder]: run for folder, run in runs.items() if folder in plans}
    missing = [_missing(folder, other_seed.get(plans[folder])) for folder in folders - runs.keys()]
    return sorted([*runs.values(), *missing], key=lambda run: run.folder)


def _planned(path: Path) -> dict[Path, tuple[str, ...]]:
    """Returns the folders that sweeps below a path list, each with the overrides it shares with other seeds."""
    plans: dict[Path, tuple[str, ...]] = {}
    for file in sorted(path.rglob("sweep.json")):
        try:
            runs = planned(file.parent)
        except ConfigError as error:  # its runs are found by themselves, but for those that never began
            sys.stderr.write(f"{error}\n")
            continue
        for folder, overrides in runs.items():
            plans[_real(folder)] = tuple(sorted(text for text in overrides if not text.startswith("seed=")))
    return plans


def _real(folder: Path) -> Path:
    """Returns one name for a folder: relative to the working directory if it lies below."""
    path = folder.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _read_run(state: State) -> Run:
    folder = state.folder
    config, wrong = read_configuration(folder)
    if wrong is not None:
        return _unreadable(folder, wrong)
    result = read_result(folder)[0] or {}
    names = _name_parts(folder)
    model = result.get("model") or (config.get("model") or {}).get("name") or names["model"]
    decides = result.get("config_hash") or folder.parent.name
    return Run(
        folder=folder,
        status=state.state,
        method=result.get("method") or (method_of(config) if "optimizer" in config else names["method"]),
        model=str(model),
        task=str(result.get("task") or (config.get("task") or {}).get("name") or names["task"]),
        peft=str(result.get("peft") or (config.get("peft") or {}).get("name") or names["peft"]),
        seed=int(result.get("seed", config.get("seed", 0))),
        config_hash=decides,
        setting=setting_key(config) if "optimizer" in config else decides[:8],
        time=_time(folder),
        detail=state.detail,
        result=result or None,
        config=config,
    )


def _unreadable(folder: Path, wrong: str) -> Run:
    """Describes a run by its folder's name; its result, if any, cannot be assigned to a setting."""
    names, key = _name_parts(folder), folder.parent.name
    return Run(
        folder, UNREADABLE, names["method"], names["model"], names["task"], names["peft"], _seed(folder), key, key,
        detail=wrong, time=_time(folder),
    )  # fmt: skip


def _seed(folder: Path) -> int:
    return int("".join(letter for letter in folder.name if letter.isdecimal()) or 0)


def _time(folder: Path) -> float:
    time = (read_json(folder / "status.json") or {}).get("time", 0.0)
    return float(time) if isinstance(time, int | float) else 0.0


def _missing(folder: Path, other_seed: Run | None) -> Run:
    """Describes a run that is planned but absent, by another seed of its setting or by its folder's name."""
    seed = _seed(folder)
    if other_seed is not None:
        config = {**other_seed.config, "seed": seed}
        return Run(folder, "missing", other_seed.method, other_seed.model, other_seed.task, other_seed.peft, seed,
                   folder.parent.name, other_seed.setting, config=config)  # fmt: skip
    names, key = _name_parts(folder), folder.parent.name
    return Run(
        folder, "missing", names["method"], names["model"], names["task"], names["peft"], seed, key, key
    )


def _name_parts(folder: Path) -> dict[str, str]:
    """Splits <model>-<task>-<method>-<peft>/<hash8>/seed<k>; only a model's name contains dashes."""
    parts = folder.parent.parent.name.rsplit("-", 3)
    return dict(
        zip(("model", "task", "method", "peft"), parts if len(parts) == 4 else ["?"] * 4, strict=True)
    )
