"""Runs every task end to end on real text: a few steps of FZOO, evaluated before and after, on one thread.

  ZO_SHARED=FOLDER python -m benchmarks.every_task [--steps 3] [--out docs/results/tasks.json]

stories260K (a Llama of 0.26 M parameters) runs the tasks for causal models, tiny-mlm those with a mask, minilm (a
package) SST-2, RTE and TREC. So few steps show that a task runs, not what it can reach. SST-5 and MNLI were not at
hand: their templates read the rows of SST-2 (two of the five labels) and of SNLI (the same columns).
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.commands.launch import main as launch

STORIES = ("sst2", "rte", "cb", "wsc", "multirc", "copa", "record", "squad", "drop", "snli", "trec")
MASKED = ("sst2", "sst5", "snli", "mnli", "rte", "trec")
ENCODER = ("sst2", "rte", "trec")
LONG = ("record", "squad", "drop")  # a minute's worth is fewer examples
ROWS = {"sst5": "sst2", "mnli": "snli"}  # whose rows stand for what is not at hand
WORDS = {  # tiny-mlm knows few words; in the order of the task's own
    "sst5": "task.options=[terrible,boring,bland,lovely,great]",
    "trec": "task.options=[How,What,short,Who,Where,Many]",
}
KEPT = ("model", "task", "method", "metric", "before", "after", "ci95", "majority", "random", "n_test", "loss_before",
        "loss_after", "forward_passes", "eval_forward_passes", "seconds", "peak_memory_bytes")  # fmt: skip


def commands(shared: Path, steps: int) -> Iterator[list[str]]:
    """Yields the arguments of launch.py, one run each."""
    sizes = [
        "optimizer=fzoo",
        "optimizer.lr=1e-3",
        "task.train=32",
        "task.dev=8",
        "task.test=32",
        "batch.size=4",
    ]
    sizes += [f"budget.steps={steps}", "threads=1", "save=false", "evaluate.batch=16"]
    stories = ["model=hub", f"model.path={shared}/models/stories260K"]
    for model, tasks in ((stories, STORIES), (["model=tiny-mlm"], MASKED), (["model=minilm"], ENCODER)):
        for task in tasks:
            overrides = [f"task={task}", f"task.data_dir={shared}/data/{ROWS.get(task, task)}"]
            if task == "sst5":
                overrides.append("task.columns={text: sentence, label: label}")
            if model == ["model=tiny-mlm"] and task in WORDS:
                overrides.append(WORDS[task])
            if task in ("squad", "drop"):
                overrides.append("task.max_new_tokens=8")
            fewer = ["task.test=12", "task.dev=4"] if task in LONG else []
            yield [*model, *overrides, *sizes, *fewer]


def main() -> None:
    """Runs every task and prints a row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path)
    request = parser.parse_args()
    shared = Path(os.environ["ZO_SHARED"])
    rows: list[dict[str, Any]] = []
    for arguments in commands(shared, request.steps):
        with tempfile.TemporaryDirectory() as folder:
            code = launch([*arguments, f"paths.runs={folder}"])
            if code:
                raise SystemExit(f"{' '.join(arguments)} ended with exit code {code}.")
            result = json.loads(next(Path(folder).rglob("result.json")).read_text(encoding="utf-8"))
        shown_arguments = [a.replace(str(shared), "$ZO_SHARED") for a in arguments]
        rows.append(
            {key: result[key] for key in KEPT} | {"command": "python launch.py " + " ".join(shown_arguments)}
        )
        if request.out is not None:  # what was measured stays, whatever comes next
            request.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
