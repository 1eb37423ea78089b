"""Runs as their folders tell them: no model, no torch, no network.

Every run below the given paths appears, also one that failed, diverged, waits or runs, one that a sweep lists
and of which there is no folder ("missing"), and one whose config.yaml is damaged ("unreadable"): nobody knows of which
setting it is, so it counts in no cell.
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
from experiments.rundir.json_files import read_configuration, read_json, read_result, read_rows, warnings_of
from experiments.rundir.metric_rows import learned_nothing, rank_key, selected_by
from zo.errors import ConfigError

WAITING = (*OPEN, "stopped", "waiting", "new")  # states of runs that may still get one
UNREADABLE = "unreadable"  # status of a run of which nobody can tell what it was
SMOKE = "smoke"  # experiment of debug=smoke, debug=step and --smoke


@dataclass(frozen=True)
class Run:
    """One run.

    status: finished, diverged, failed, running, queued, requeued, stopped, missing, unreadable. detail: what there is
    to say about it. setting: key that runs of one setting share, whatever their seed (report.setting_key).
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
        """Whether it has a result."""
        return self.result is not None

    @property
    def smoke(self) -> bool:
        """Whether it only tried if everything works; its folder says it of a run that is missing."""
        above = self.folder.absolute().parts[-4:-3]
        return self.config.get("experiment", *above) == SMOKE

    @property
    def value(self) -> float | None:
        """The test metric of the reported weights, a fraction."""
        return None if self.result is None else self.result.get("after")

    @property
    def dev(self) -> float | None:
        """The metric on dev of the reported weights, a fraction: the best, with select=last the last; None without."""
        best = None if self.result is None else self.result.get("best_dev")
        if best is None or self.config.get("select") != "last":
            return best
        looks = self.rows_of("dev")
        return looks[-1]["value"] if looks else best

    @property
    def dev_loss(self) -> float | None:
        """The loss on dev of the reported weights; None without a number."""
        looks = self.rows_of("dev")
        if self.config.get("select") == "last":
            looks = looks[-1:]
        by = selected_by(self.config)
        best = max(looks, key=lambda row: rank_key(row["value"], row["loss"], by), default=None)
        return None if best is None else best["loss"]

    @cached_property
    def learned_nothing(self) -> str | None:
        """Why the run is said to have learned nothing, a clause; None where it learned."""
        if self.result is None:
            return None
        return learned_nothing(self.result, [row["value"] for row in self.rows_of("dev")])

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """The whole rows of metrics.jsonl, read when they are asked for; a torn last line is left out."""
        return tuple(self._rows[0])

    @property
    def problem(self) -> str | None:
        """What is wrong with its files, so that something of it is left out; None where nothing is."""
        return self.detail if self.status == UNREADABLE else self._rows[1]

    @cached_property
    def _rows(self) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        return read_rows(self.folder)

    @cached_property
    def answers(self) -> tuple[float, ...] | None:
        """Scores of the test examples one by one, in test order; None where the run wrote none."""
        kept = (read_json(self.folder / "answers.json") or {}).get("correct")
        return None if kept is None else tuple(float(score) for score in kept)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """The sentences that the run warned by, of its result or, until there is one, of its status."""
        record = self.result or read_json(self.folder / "status.json")
        return tuple(warnings_of(record))

    @property
    def draws_test(self) -> bool:
        """Whether each seed draws its own test rows."""
        seeds = self.config.get("seeds") or {}
        return "test" in seeds and seeds["test"] is None

    @cached_property
    def commit(self) -> str | None:
        """Of the code, seven letters, with + where it was edited; None where it is not known."""
        made = read_json(self.folder / "provenance.json") or {}
        return f"{made['commit'][:7]}{'+' if made.get('dirty') else ''}" if made.get("commit") else None

    def rows_of(self, kind: str) -> list[Mapping[str, Any]]:
        """Rows of a kind (before, train, dev, after), those of a repeated step once, by steps."""
        return [
            row for _, row in sorted({row["steps"]: row for row in self.rows if row["kind"] == kind}.items())
        ]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """All runs below the paths, in the order of their folders' names. Raises ConfigError where there are none."""
    plans = {folder: names for path in paths for folder, names in _planned(path).items()}
    folders = {_real(folder) for folder in [*find_runs(paths), *plans]}
    there = sorted(folder for folder in folders if (folder / "config.yaml").is_file())
    runs = {state.folder: _read(state) for state in states(there)}
    beside = {plans[folder]: run for folder, run in runs.items() if folder in plans}
    missing = [_missing(folder, beside.get(plans[folder])) for folder in folders - runs.keys()]
    return sorted([*runs.values(), *missing], key=lambda run: run.folder)


def _planned(path: Path) -> dict[Path, tuple[str, ...]]:
    """Folders that the sweeps below a path list, each with what its run shares with the other seeds."""
    plans: dict[Path, tuple[str, ...]] = {}
    for file in sorted(path.rglob("sweep.json")):
        try:
            listed = planned(file.parent)
        except ConfigError as error:  # its runs are found by themselves, but for those that never began
            sys.stderr.write(f"{error}\n")
            continue
        for folder, overrides in listed.items():
            plans[_real(folder)] = tuple(sorted(text for text in overrides if not text.startswith("seed=")))
    return plans


def _real(folder: Path) -> Path:
    """One name for a folder, relative to where one is if it is below."""
    path = folder.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _read(state: State) -> Run:
    folder = state.folder
    config, wrong = read_configuration(folder)
    if wrong is not None:
        return _unreadable(folder, wrong)
    result = read_result(folder)[0] or {}
    named = _named(folder)
    model = result.get("model") or (config.get("model") or {}).get("name") or named["model"]
    decides = result.get("config_hash") or folder.parent.name
    return Run(
        folder=folder,
        status=state.state,
        method=result.get("method") or (method_of(config) if "optimizer" in config else named["method"]),
        model=str(model),
        task=str(result.get("task") or (config.get("task") or {}).get("name") or named["task"]),
        peft=str(result.get("peft") or (config.get("peft") or {}).get("name") or named["peft"]),
        seed=int(result.get("seed", config.get("seed", 0))),
        config_hash=decides,
        setting=setting_key(config) if "optimizer" in config else decides[:8],
        time=_time(folder),
        detail=state.detail,
        result=result or None,
        config=config,
    )


def _unreadable(folder: Path, wrong: str) -> Run:
    """A run as its folder's name describes it; its result, if it has one, is of nobody knows which setting."""
    named, key = _named(folder), folder.parent.name
    return Run(
        folder, UNREADABLE, named["method"], named["model"], named["task"], named["peft"], _seed(folder), key, key,
        detail=wrong, time=_time(folder),
    )  # fmt: skip


def _seed(folder: Path) -> int:
    return int("".join(letter for letter in folder.name if letter.isdecimal()) or 0)


def _time(folder: Path) -> float:
    time = (read_json(folder / "status.json") or {}).get("time", 0.0)
    return float(time) if isinstance(time, int | float) else 0.0


def _missing(folder: Path, beside: Run | None) -> Run:
    """A run that is planned and not there, as another seed of its setting describes it, or its folder's name."""
    seed = _seed(folder)
    if beside is not None:
        config = {**beside.config, "seed": seed}
        return Run(folder, "missing", beside.method, beside.model, beside.task, beside.peft, seed,
                   folder.parent.name, beside.setting, config=config)  # fmt: skip
    named, key = _named(folder), folder.parent.name
    return Run(
        folder, "missing", named["method"], named["model"], named["task"], named["peft"], seed, key, key
    )


def _named(folder: Path) -> dict[str, str]:
    """What <model>-<task>-<method>-<peft>/<hash8>/seed<k> says; only a model's name has dashes in it."""
    parts = folder.parent.parent.name.rsplit("-", 3)
    return dict(
        zip(("model", "task", "method", "peft"), parts if len(parts) == 4 else ["?"] * 4, strict=True)
    )
