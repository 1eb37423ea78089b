"""Folders as runs leave them, written by hand so that the right answer is known."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG = {
    "seeds": {"split": None, "order": None, "init": 0},
    "batch": {"size": 8},
    "model": {"path": "m", "name": "m"},
    "task": {"name": "t", "k": None},
    "peft": {"name": "none"},
    "optimizer": {"_target_": "zo.optimizers.MeZO", "lr": 1e-3},
    "schedule": {"_target_": "zo.schedules.Constant"},
}


def run(
    runs: Path,
    method: str = "mezo",
    seed: int = 0,
    *,
    after: float | None = 0.5,
    dev: float | None = None,
    status: str = "finished",
    rows: Sequence[Mapping[str, Any]] = (),
    time: float = 0.0,
    name: str = "",
    experiment: str = "default",
    n_test: int | None = None,
    majority: float | None = None,
    **config: Any,
) -> Path:
    """The folder of a run; dotted keys of the configuration as `optimizer__lr=1e-4`.

    after: None for a run without a result. n_test: None where the result does not say how many test examples it is of.
    """
    made: dict[str, Any] = {key: dict(value) for key, value in CONFIG.items()} | {
        "seed": seed,
        "experiment": experiment,
    }
    made["optimizer"]["_target_"] = f"zo.optimizers.{method}"
    for key, value in config.items():
        group, _, leaf = key.partition("__")
        made[group][leaf] = value
    model, task, peft = (made[group]["name"] for group in ("model", "task", "peft"))
    # As with seeds.split: null, where each seed has its own hash.
    hash8 = name or hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]
    folder = runs / experiment / f"{model}-{task}-{method}-{peft}" / hash8 / f"seed{seed}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    (folder / "status.json").write_text(
        json.dumps({"state": status, "time": time, "error": "ValueError: no"})
    )
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if after is not None:
        result = {
            "status": status, "method": method.lower(), "model": model, "task": task, "peft": peft, "seed": seed,
            "config_hash": hash8 * 8, "metric": "accuracy", "before": 0.5, "after": after, "best_dev": dev,
            "steps": 10, "forward_passes": 20, "backward_passes": 0, "forward_passes_per_step": 2,
            "eval_forward_passes": 4, "seconds": 3.0, "peak_memory_bytes": 2**20, "trainable_parameters": 7,
            "train_mode": False, "n_test": n_test, "majority": majority,
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def dev_rows(*values: float, every: int = 10, losses: Sequence[float] = ()) -> list[dict[str, Any]]:
    """Looks at dev, `every` forward passes apart and a second for each."""
    losses = losses or [1.0 - value for value in values]
    return [
        {
            "kind": "dev",
            "steps": i,
            "value": value,
            "loss": loss,
            "forward_passes": every * i,
            "seconds": float(i),
        }
        for i, (value, loss) in enumerate(zip(values, losses, strict=True), start=1)
    ]


def train_rows(*losses: float, every: int = 2, **more: Sequence[float]) -> list[dict[str, Any]]:
    """Train rows, a step each, `every` forward passes and half a second apart; more: what the optimizer reports."""
    return [
        {
            "kind": "train",
            "steps": i + 1,
            "loss": loss,
            "forward_passes": every * (i + 1),
            "seconds": (i + 1) / 2,
        }
        | {key: values[i] for key, values in more.items()}
        for i, loss in enumerate(losses)
    ]
