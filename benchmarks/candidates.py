"""Measures the gain of scoring an example's options together and of encoding their shared prompt once.

  ZO_SHARED=FOLDER python -m benchmarks.candidates [--examples 60] [--repeats 3] [--out docs/results/candidates.json]

Three ways to score the same examples of real tasks with stories260K (one thread, fp32): one option at a time, as the
papers' code does; the options of up to 64 examples as one batch; the same with each shared prompt encoded once. The
ways take turns, the least of the repeats counts. `sharing`: examples whose rows share at least half; rows longer than
the model's 512 tokens lose their beginning, each by another length, and then share nothing ("record, whole" takes the
rows that fit).
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from experiments.evaluation import evaluate
from experiments.evaluation.prefix_cache import worth_sharing
from experiments.models.loading import Loaded, load
from experiments.tasks import batches
from experiments.tasks.objectives import span_logprobs
from experiments.tasks.task import Task, load_task

CONF = Path(__file__).parents[1] / "conf"
TASKS = ("sst2", "multirc", "copa", "record", "record, whole")


def one_at_a_time(task: Task, loaded: Loaded) -> list[int]:
    """Returns the best options, from one model call per option."""
    predictions = []
    with torch.no_grad():
        for example in task.test:
            scores = []
            for row in example.rows:
                batch = batches.row_batch([row], loaded.pad, len(row.ids))
                sums, counts = span_logprobs(loaded.model, batch)
                scores.append(float(sums / counts))
            predictions.append(max(range(len(scores)), key=scores.__getitem__))
    return predictions


def measure(name: str, shared: Path, examples: int, repeats: int) -> dict[str, Any]:
    """Returns the seconds of each way, and how many predictions equal those of one option at a time."""
    model = {**yaml.safe_load((CONF / "model" / "hub.yaml").read_text(encoding="utf-8")), "device": "cpu"}
    loaded = load({**model, "path": str(shared / "models" / "stories260K")})
    name, _, subset = name.partition(", ")
    choice = yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text(encoding="utf-8"))
    test = 1000 if subset else examples
    choice |= {"data_dir": str(shared / "data" / name), "train": 8, "dev": 0, "test": test}
    task = load_task(choice, loaded)
    if subset:
        task = replace(task, test=tuple(e for e in task.test if worth_sharing(e.rows))[:examples])
    ways: dict[str, Callable[[], list[int]]] = {
        "one": lambda: one_at_a_time(task, loaded),
        "batch": lambda: list(evaluate(task, loaded, task.test, share=False).predictions),  # type: ignore[arg-type]
        "shared": lambda: list(evaluate(task, loaded, task.test).predictions),  # type: ignore[arg-type]
    }
    seconds = {way: float("inf") for way in ways}
    predictions: dict[str, list[int]] = {}
    for _ in range(repeats):
        for way, score in ways.items():
            began = time.perf_counter()
            predictions[way] = score()
            seconds[way] = min(seconds[way], time.perf_counter() - began)
    lengths = [len(row.ids) for example in task.test for row in example.rows]
    return {
        "task": f"{name}, {subset}" if subset else name,
        "examples": len(task.test),
        "options": len(lengths),
        "tokens_a_row": round(sum(lengths) / len(lengths), 1),
        "sharing": sum(worth_sharing(example.rows) for example in task.test),
        **{f"seconds_{way}": round(elapsed, 3) for way, elapsed in seconds.items()},
        **{
            f"equal_{way}": sum(map(int.__eq__, predictions[way], predictions["one"]))
            for way in ("batch", "shared")
        },
    }


def main() -> None:
    """Measures every task and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    request = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(t, Path(os.environ["ZO_SHARED"]), request.examples, request.repeats) for t in TASKS]
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    if request.out is not None:
        request.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
