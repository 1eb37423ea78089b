"""Measures what a training step evaluates on real tasks, and its cost beside one row per example.

  ZO_SHARED=FOLDER python -m benchmarks.real_tasks MODEL [--tasks sst2 cb trec] [--dtype bfloat16] [--repeats 3]
      [--out FILE]

MODEL is a causal model in the Hugging Face layout. A step of MeZO on the first 16 training examples of each task, in
four forms that take turns; the least time of the repeats counts (one thread, process CPU seconds):

  whole   every option's whole row, B x O of them, as the papers' code does
  padded  each distinct row once, padded positions evaluated (batch.skip_padding=false)
  now     what a run evaluates
  once    a floor: one row an example (an option's whole row without its last token), of which one token is scored

`rows` and `positions` are of a forward pass: those that matrices are multiplied by. `needed` are the tokens of the
distinct rows.
`difference`: the largest of an option's log-probability among its example's, between
whole and now. sst5 reads the rows of sst2, of the same kind.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from experiments.models.loading import load
from experiments.tasks import batches
from experiments.tasks.batches import NOTHING, Batch, padded
from experiments.tasks.objectives import AnswerLoss
from experiments.tasks.prompts import Example, Row
from experiments.tasks.task import Task, load_task
from zo.look import ModuleLook
from zo.optimizers import MeZO

CONF = Path(__file__).parents[1] / "conf"
TASKS = ("sst2", "cb", "trec", "sst5", "rte", "wsc", "multirc", "snli")
ROWS = {"sst5": "sst2"}  # whose rows stand for what is not at hand
FORMS = ("whole", "padded", "now", "once")
SIZE = 16


def whole_rows(examples: tuple[Example, ...], pad: int, limit: int) -> Batch:
    """Returns the batch of every option's whole row, including its last token."""
    rows = [row for example in examples for row in example.rows]
    options = len(rows) // len(examples)
    ids, mask = padded([row.ids for row in rows], pad, limit)
    made = batches.row_batch(rows, pad, limit)
    width = made["positions"].shape[1]
    shape = (len(examples), options)
    made |= {"input_ids": ids, "attention_mask": mask, "places": torch.arange(width).expand(len(rows), -1)}
    shaped = {name: tensor.unflatten(0, shape).clone() for name, tensor in made.items()}
    shaped["places"] += width * torch.arange(options)[:, None]
    shaped["places"][shaped["targets"] == NOTHING] = 0
    return shaped | {"labels": torch.tensor([example.golds[0] for example in examples])}


def measure(model: str, name: str, dtype: str, repeats: int, shared: Path) -> dict[str, Any]:
    """Returns counts and seconds of each form on one task."""
    hub = yaml.safe_load((CONF / "model" / "hub.yaml").read_text(encoding="utf-8"))
    loaded = load({**hub, "path": model, "device": "cpu", "dtype": dtype})
    choice = yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text(encoding="utf-8"))
    choice |= {"data_dir": str(shared / "data" / ROWS.get(name, name)), "train": 64, "dev": 0, "test": 8}
    if name in ROWS:
        choice["columns"] = {"text": "sentence", "label": "label"}
    task = load_task(choice, loaded)
    some = task.train[:SIZE]
    floor = [Row(max((row.ids for row in example.rows), key=len), 1) for example in some]
    given = {
        "whole": (whole_rows(some, task.pad, task.limit), task.objective),
        "padded": (task.collate(some), task.objective),
        "now": (task.collate(some), task.objective),
        "once": (batches.row_batch(floor, task.pad, task.limit), AnswerLoss("example")),
    }
    optimizer = MeZO(loaded.model, lr=0.0, eps=1e-3)
    looks = {
        form: ModuleLook(loaded.model, given[form][1], optimizer, skip_padding=form in ("now", "once"))
        for form in FORMS
    }
    with torch.no_grad():
        losses = [task.scores(loaded.model, given[form][0]).log_softmax(-1) for form in ("whole", "now")]
    seconds = dict.fromkeys(FORMS, float("inf"))
    for t in range(repeats + 1):  # the first step also compares stacks
        for form in FORMS:
            began = time.process_time()
            optimizer.step(t, given[form][0], looks[form])
            taken = time.process_time() - began
            seconds[form] = min(seconds[form], taken) if t else seconds[form]
    return {"task": name, "dtype": dtype, **_counts(task, some, given)} | {
        "difference": float((losses[0] - losses[1]).abs().max()),
        **{f"seconds_{form}": round(taken, 3) for form, taken in seconds.items()},
        "now_over_once": round(seconds["now"] / seconds["once"], 3),
        "whole_over_now": round(seconds["whole"] / seconds["now"], 3),
        "padded_over_now": round(seconds["padded"] / seconds["now"], 3),
    }


def _counts(task: Task, some: tuple[Example, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Returns rows, positions and needed positions of a forward pass."""
    needed = sum(task.tokens(example) for example in some)
    found: dict[str, Any] = {"needed": needed}
    for form in ("whole", "padded", "now"):
        mask = given[form][0]["attention_mask"]
        positions = int(mask.sum()) if form == "now" else mask.numel()
        found |= {f"rows_{form}": mask.numel() // mask.shape[-1], f"positions_{form}": positions}
    return found | {"positions_over_needed": round(found["positions_now"] / needed, 2)}


def main() -> None:
    """Measures every task and prints a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    request = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in request.tasks:
        rows.append(
            measure(request.model, name, request.dtype, request.repeats, Path(os.environ["ZO_SHARED"]))
        )
        print(rows[-1], flush=True)
        if request.out is not None:  # what was measured stays, whatever comes next
            request.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
