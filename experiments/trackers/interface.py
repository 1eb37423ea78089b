"""Defines what every tracker receives: a run at its start, each row, its end. Pure functions of the run's files.

Rows of metrics.jsonl become named numbers: costs so far (metric_rows.AXES) are in each,
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
_ELSEWHERE = ("status", "model", "task", "peft", "method", "seed")  # in a run's config already
_MAX_GROUP, _MAX_ID = 119, 40  # letters before the hash: W&B limits a group to 128 and an id to 64


@dataclass(frozen=True)
class About:
    """A run as trackers see it.

    id: the same for the same configuration and seed, on any machine at any time. group: the configuration
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
    """Receives a run. The caller catches whatever it raises."""

    def start(self, about: About) -> str:
        """Begins anew, replacing what it had of this run. Returns a sentence that says where to see the run."""
        ...

    def log(self, number: int, metrics: Mapping[str, float]) -> None:
        """Receives row `number` of metrics.jsonl, counted from 0."""
        ...

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Ends the run: finished, diverged, stopped (to be resumed) or failed."""
        ...


def about(config: Config, folder: Path, provenance: Mapping[str, Any], sweeps: Sequence[str]) -> About:
    """Describes a run for trackers.

    folder: .../<model>-<task>-<optimizer>-<peft>/<hash8>/seed<k>, resolved. sweeps: names of the sweeps that list the
    run.
    """
    values = config.recorded() if isinstance(config, RunConfig) else config
    name, hash8, seed = folder.parts[-3:]
    method, task, peft = method_of(values), values["task"]["name"], values["peft"]["name"]
    model = name.removesuffix(f"-{task}-{method}-{peft}".replace("/", "_"))
    group = f"{name[:_MAX_GROUP]}-{hash8}"
    tags = (method, task, model, peft, *sweeps)
    origin = {key: value for key, value in provenance.items() if key not in ("diff", "time")}
    settings = {key: value for key, value in values.items() if key != "tracker"}
    return About(
        id=f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:_MAX_ID]}-{hash8}-{seed}",
        name=f"{group}-{seed}",
        group=group,
        job_type="eval" if method in ("zeroshot", "icl") else "train",
        tags=tuple(dict.fromkeys(tag[:64] for tag in tags)),
        config={**settings, "run": {"method": method, "model": model, "config_hash": hash8, **origin}},
        folder=folder,
    )


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns a row's numbers by their tracker names; values that are no finite numbers are left out."""
    metrics: dict[str, Any] = {axis: row.get(axis) for axis in AXES}
    if row["kind"] == "train":
        other_keys = {"kind", *AXES}
        metrics |= {f"train/{key}": value for key, value in row.items() if key not in other_keys}
    elif row["kind"] in _SPLIT:
        split = _SPLIT[row["kind"]]
        metrics |= {f"eval/{split}_score": row["value"], f"eval/{split}_loss": row["loss"]}
    return {key: value for key, value in metrics.items() if _number(value)}


def summary_of(status: str, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the final summary for a tracker's run table, from result.json if the run has ended."""
    entries = {key: value for key, value in (result or {}).items() if key not in _ELSEWHERE}
    numbers = {
        f"result/{key}": value for key, value in entries.items() if _number(value) or isinstance(value, str)
    }
    return {"status": status, **numbers}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
