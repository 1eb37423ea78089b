"""What every tracker is told: of a run at its start, of each row, of its end. Pure functions of the run's files.

Rows of metrics.jsonl become named numbers: what it took so far (rows.AXES) stands in each,
train/<what the optimizer saw>, eval/dev_score and eval/dev_loss, eval/test_score and eval/test_loss (before and
after training). A score is the task's metric as a fraction. result.json becomes result/<its own key>.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from experiments.config.run_config import RunConfig
from experiments.config.run_id import Config, method_of
from experiments.rundir.metric_rows import AXES

SCORES = ("eval/dev_score", "eval/test_score")
LOSSES = ("eval/dev_loss", "eval/test_loss")
_SPLIT = {"before": "test", "dev": "dev", "after": "test"}
_NAMED = ("status", "model", "task", "peft", "method", "seed")  # stand elsewhere
_LONGEST, _ID = 119, 40  # letters before the hash: of a group W&B takes 128, of an id 64


@dataclass(frozen=True)
class About:
    """A run as trackers know it.

    id: the same for the same configuration and seed, wherever and whenever it is run. group: the configuration
    without the seed. config: nested and resolved, with what made the run below `run`.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    folder: Path


class Tracker(Protocol):
    """Takes a run. Whatever it raises is caught by the one who calls it."""

    def start(self, about: About) -> str:
        """Begins anew: what it had of this run is replaced. Returns a sentence that says where the run is seen."""
        ...

    def log(self, number: int, metrics: Mapping[str, float]) -> None:
        """Row `number` of metrics.jsonl, counted from 0."""
        ...

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """The run ended: finished, diverged, stopped (to be resumed) or failed."""
        ...


def about(config: Config, folder: Path, provenance: Mapping[str, Any], sweeps: Sequence[str]) -> About:
    """folder: .../<model>-<task>-<optimizer>-<peft>/<hash8>/seed<k>, resolved. sweeps: that list the run."""
    values = config.recorded() if isinstance(config, RunConfig) else config
    name, hash8, seed = folder.parts[-3:]
    method, task, peft = method_of(values), values["task"]["name"], values["peft"]["name"]
    model = name.removesuffix(f"-{task}-{method}-{peft}".replace("/", "_"))
    group = f"{name[:_LONGEST]}-{hash8}"
    tags = (method, task, model, peft, *sweeps)
    made = {key: value for key, value in provenance.items() if key not in ("diff", "time")}
    kept = {key: value for key, value in values.items() if key != "tracker"}
    return About(
        id=f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:_ID]}-{hash8}-{seed}",
        name=f"{group}-{seed}",
        group=group,
        job_type="eval" if method in ("zeroshot", "icl") else "train",
        tags=tuple(dict.fromkeys(tag[:64] for tag in tags)),
        config={**kept, "run": {"method": method, "model": model, "config_hash": hash8, **made}},
        folder=folder,
    )


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's numbers by the names that trackers have for them; those that are no numbers (null) are left out."""
    named: dict[str, Any] = {axis: row.get(axis) for axis in AXES}
    if row["kind"] == "train":
        own = {"kind", *AXES}
        named |= {f"train/{key}": value for key, value in row.items() if key not in own}
    elif row["kind"] in _SPLIT:
        split = _SPLIT[row["kind"]]
        named |= {f"eval/{split}_score": row["value"], f"eval/{split}_loss": row["loss"]}
    return {key: value for key, value in named.items() if _number(value)}


def summary_of(status: str, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """What stands beside a run in tables: the last numbers and the best, of result.json where the run has ended."""
    kept = {key: value for key, value in (result or {}).items() if key not in _NAMED}
    said = {f"result/{key}": value for key, value in kept.items() if _number(value) or isinstance(value, str)}
    return {"status": status, **said}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
