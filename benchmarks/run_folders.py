"""Makes folders of runs as a sweep leaves them, without running any: tools for many runs are timed on them.

python -m benchmarks.run_folders FOLDER [--runs 2000] [--rows 200]

Configurations are composed from conf/, and numbers follow a formula. The runs are shared out over methods, tasks,
learning rates and five seeds.
"""

import argparse
import copy
import hashlib
import json
import math
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from experiments.config.compose import compose
from experiments.config.run_id import hash_of, method_of, name_of
from experiments.rundir.folder import RunFolder
from experiments.rundir.json_files import RESULT_DIGEST, config_text

METHODS = ("mezo", "fzoo", "lozo", "adamezo")
TASKS = ("sentiment", "entailment", "sst2", "boolq", "cb")
SEEDS = 5
TEST = 1000  # examples
EVERY = 10  # train rows between evaluations on dev
_PASSES = 2  # of a step


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    print(make(options.folder, options.runs, options.rows))


def make(runs_folder: Path, runs: int, rows: int) -> Path:
    """Writes so many finished runs below a folder, and the sweep that lists them; returns the sweep's folder."""
    sweep = RunFolder(runs_folder / "sweeps" / "made")
    listed = []
    for config, overrides in islice(_configurations(runs_folder), runs):
        decides = hash_of(config, ["a model", "data"], 1)
        name = name_of(config, "tiny-clm")
        folder = runs_folder / config["experiment"] / name / decides[:8] / f"seed{config['seed']}"
        folder.mkdir(parents=True)
        _write(folder, config, decides, overrides, rows)
        relative = Path("..", "..", folder.relative_to(runs_folder))
        listed.append({"folder": str(relative), "overrides": overrides})
    sweep.write("sweep.json", {"name": "made", "command": ["launch.py", "-m"], "time": 0.0, "runs": listed})
    return sweep.path


def _configurations(runs_folder: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yields the configuration and the overrides of run after run, without an end."""
    common = [f"paths.runs={runs_folder}", f"task.test={TEST}"]
    kinds: list[tuple[dict[str, Any], list[str]]] = []
    for method in METHODS:
        for task in TASKS:
            choices = [f"optimizer={method}", f"task={task}"]
            composed = compose([*common, *choices])
            assert composed.config is not None, composed.problems
            kinds.append((composed.config.recorded(), choices))
    for setting in count():
        lr = round(1e-6 * 1.05**setting, 9)
        for plain, choices in kinds:
            for seed in range(SEEDS):
                config = copy.deepcopy(plain)
                config["optimizer"]["lr"] = lr
                config["seed"] = seed
                yield config, [*common, *choices, f"optimizer.lr={lr}", f"seed={seed}"]


def _write(folder: Path, config: dict[str, Any], decides: str, overrides: list[str], rows: int) -> None:
    """Writes the files of one finished run."""
    place = int(hashlib.sha256(str(folder).encode()).hexdigest()[:8], 16) / 2**32  # in [0, 1)
    made = _rows(rows, place)
    right = [int((i * 0.618 + place) % 1.0 < 0.8) for i in range(TEST)]
    answers = {"metric": "accuracy", "examples": list(range(TEST)), "answers": right, "correct": right}
    result = json.dumps(_result(config, decides, made, sum(right) / TEST), indent=2) + "\n"
    status = {"state": "finished", "time": 0.0, "steps": rows, "warnings": []}
    status[RESULT_DIGEST] = hashlib.sha256(result.encode()).hexdigest()
    submitted = {
        "code": "code", "cwd": ".", "overrides": overrides, "command": ["python", "launch.py", "-m"],
        "by": {"host": "nowhere", "pid": 1, "began": 0.0}, "launch": {"name": "local", "parallel": 2},
        "cluster": {}, "time": 0.0,
    }  # fmt: skip
    provenance = {"commit": "0" * 40, "dirty": False, "command": ["python", "launch.py"]}
    files = {
        "config.yaml": config_text(config),
        "submission.json": json.dumps(submitted),
        "metrics.jsonl": "".join(f"{json.dumps(row)}\n" for row in made),
        "provenance.json": json.dumps(provenance),
        "answers.json": json.dumps(answers),
        "result.json": result,
        "status.json": json.dumps(status),
    }
    for name, text in files.items():  # RunFolder would wait for the disk, eight times a run
        (folder / name).write_text(text, encoding="utf-8")


def _rows(rows: int, place: float) -> list[dict[str, Any]]:
    """Returns rows of metrics.jsonl: one before, then train rows, with an evaluation on dev after every tenth."""
    made: list[dict[str, Any]] = [_row("before", 0, value=0.5, loss=0.7, metric="accuracy", n=TEST)]
    for step in range(1, rows + 1):
        loss = 0.4 + 0.3 * math.exp(-step / 100) + 0.01 * math.sin(step + 10 * place)
        made.append(_row("train", step, loss=loss, projected_gradient=math.sin(7 * step), lr=1e-4))
        if step % EVERY == 0:
            value = 0.5 + 0.4 * (1.0 - math.exp(-step / 100)) * (0.9 + 0.1 * place)
            made.append(_row("dev", step, value=round(value, 3), loss=loss, metric="accuracy", n=500))
    return made


def _row(kind: str, step: int, **more: Any) -> dict[str, Any]:
    axes = {"forward_passes": _PASSES * step, "tokens": 400 * step, "seconds": 0.5 * step, "gpu_hours": 0.0}
    return {
        "kind": kind,
        "steps": step,
        **more,
        **axes,
        "peak_memory_bytes": 2**29,
        "journal": f"{step:016x}",
    }


def _result(config: dict[str, Any], decides: str, rows: list[dict[str, Any]], after: float) -> dict[str, Any]:
    evaluations = [row for row in rows if row["kind"] == "dev"]
    best = max(evaluations, key=lambda row: row["value"])
    steps = rows[-1]["steps"]
    drawn = hashlib.sha256(f"{config['task']['name']} {config['seed']}".encode()).hexdigest()
    weights = hashlib.sha256(f"{decides} {config['seed']}".encode()).hexdigest()
    return {
        "status": "finished", "reason": None, "method": method_of(config), "model": "tiny-clm",
        "task": config["task"]["name"], "peft": "none", "seed": config["seed"], "config_hash": decides,
        "metric": "accuracy", "before": 0.5, "after": after, "majority": 0.5, "random": 0.5, "n_test": TEST,
        "ci95": [after - 0.02, after + 0.02], "unscored": 0, "loss_before": 0.7, "loss_after": best["loss"],
        "best_dev": best["value"], "best_dev_loss": best["loss"], "selected_step": best["steps"], "steps": steps,
        "skipped_steps": 0, "idle_steps": 0, "forward_passes": _PASSES * steps, "backward_passes": 0,
        "eval_forward_passes": 72, "check_forward_passes": 12, "forward_passes_per_step": _PASSES,
        "train_mode": False, "dropout": 0.0,
        "draw": {"train": drawn[:16], "order": drawn[16:32], "dev": drawn[32:48], "test": drawn[48:],
                 "demonstrations": None, "start": "0" * 64, "directions": config["seed"], "dropout": None},
        "draw_sha256": drawn, "sequential_because": None, "ranks": 1, "retry_smaller": None, "tokens": 400 * steps,
        "seconds": 0.5 * steps, "gpu_hours": 0.0, "peak_memory_bytes": 2**29, "trainable_parameters": 398880,
        "kernels": "native", "attention": "sdpa", "model_sha256": weights, "last_sha256": weights,
        "learned_nothing": None, "warnings": [], "answers_sha256": weights,
    }  # fmt: skip


if __name__ == "__main__":
    main()
