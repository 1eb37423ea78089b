"""Measures zo's evaluation beside lm-evaluation-harness: the same model, token ids and batch size, in one process.

  pip install lm-eval==0.4.13
  ZO_SHARED=FOLDER python -m benchmarks.beside_lm_eval MODEL [--tasks squad=8 copa] [--dtype bfloat16] [--rounds 3]
      [--write]

MODEL is a causal model in the Hugging Face layout. Each round evaluates the same test examples with both, in turn, on
one thread; seconds are the process's own CPU seconds. zo computes the metric and the loss, lm-evaluation-harness
(HFLM) the log-probabilities of the options, or greedy answers. An option's score is its mean log-probability in both.
boolq reads the rows of multirc, of the same kind.

--write adds the rows to benchmarks/results/lm_eval/ and rewrites docs/benchmarks.md.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.measure import ratio
from benchmarks.run import ROOT, device_name
from experiments.evaluation import evaluate
from experiments.models.loading import Loaded, load
from experiments.tasks.task import Task, load_task

# Examples a task: some ten seconds of one thread for each of the two.
EXAMPLES = {
    "squad": 16,
    "copa": 100,
    "drop": 16,
    "sst2": 48,
    "trec": 32,
    "boolq": 16,
    "multirc": 12,
    "record": 4,
}
ROWS = {"boolq": ("multirc", {"passage": "paragraph", "question": "question", "label": "label"})}
NEW_TOKENS = 24
BATCH = 16


def main() -> None:
    """Measures every task and prints a line each."""
    request = _options()
    torch.set_num_threads(1)
    hub = yaml.safe_load((ROOT / "conf" / "model" / "hub.yaml").read_text(encoding="utf-8"))
    loaded = load({**hub, "path": request.model, "device": "cpu", "dtype": request.dtype})
    name = re.sub(r"[^a-z0-9]+", "-", f"{device_name(loaded.device)}-{request.name}".lower()).strip("-")
    path = ROOT / "benchmarks" / "results" / "lm_eval" / f"{name}.json"
    for task, examples in request.tasks:
        row = {"model": request.name, "dtype": request.dtype, "device": device_name(loaded.device)}
        row |= measure(loaded, task, examples, request.rounds, Path(os.environ["ZO_SHARED"]))
        print(row, flush=True)
        if request.write:  # what was measured stays, whatever comes next
            _add(path, row)
    if request.write:
        from benchmarks import table

        table.write(path.parent.parent, ROOT / "docs" / "benchmarks.md")


def measure(loaded: Loaded, name: str, examples: int, rounds: int, shared: Path) -> dict[str, Any]:
    """Returns seconds of both, their ratio, and how many predictions are equal."""
    task = _task(loaded, name, examples, shared)
    harness = _harness(loaded)
    answers: dict[str, Sequence[Any]] = {}

    def ours() -> None:
        answers["zo"] = evaluate(task, loaded, task.test, BATCH).predictions

    def theirs() -> None:
        answers["lm_eval"] = (_generated if task.generated else _chosen)(harness, task)

    seconds: dict[str, list[float]] = {"zo": [], "lm_eval": []}
    order: list[tuple[str, Callable[[], None]]] = [("zo", ours), ("lm_eval", theirs)]
    for turn in range(rounds):
        for key, run in order if turn % 2 == 0 else reversed(order):
            began = time.process_time()
            run()
            seconds[key].append(time.process_time() - began)
    pairs = zip(answers["zo"], answers["lm_eval"], strict=True)
    return {
        "task": name,
        "examples": len(task.test),
        "metric": task.metric,
        **{f"seconds_{key}": round(statistics.median(taken), 3) for key, taken in seconds.items()},
        **ratio("zo_over_lm_eval", seconds["zo"], seconds["lm_eval"]),
        "equal": sum(one == other for one, other in pairs),
        **{f"value_{key}": round(_value(task, predictions), 4) for key, predictions in answers.items()},
        "rounds": rounds,
        "batch": BATCH,
        "new_tokens": NEW_TOKENS,
        "torch": torch.__version__,
        "lm_eval": importlib.metadata.version("lm-eval"),
        "date": datetime.date.today().isoformat(),
    }


def _task(loaded: Loaded, name: str, examples: int, shared: Path) -> Task:
    """Returns the task, with so many test examples and little to train on."""
    choice = yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text(encoding="utf-8"))
    rows, columns = ROWS.get(name, (name, choice["columns"]))
    choice |= {"data_dir": str(shared / "data" / rows), "columns": columns}
    choice |= {"train": 8, "dev": 0, "test": examples, "max_new_tokens": NEW_TOKENS}
    return load_task(choice, loaded)


def _harness(loaded: Loaded) -> Any:
    """Returns lm-evaluation-harness' wrapper of the same model and tokenizer."""
    kind: Any = importlib.import_module("lm_eval.models.huggingface").HFLM
    return kind(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, backend="causal", batch_size=BATCH, device="cpu"
    )


def _chosen(harness: Any, task: Task) -> list[int]:
    """Returns the options with the largest mean log-probability."""
    requests = [
        (("", ""), list(row.ids[: -row.span]), list(row.ids[-row.span :]))
        for example in task.test
        for row in example.rows
    ]
    sums = iter(harness._loglikelihood_tokens(requests, disable_tqdm=True))
    scores = [[next(sums)[0] / row.span for row in example.rows] for example in task.test]
    return [max(range(len(some)), key=some.__getitem__) for some in scores]


def _generated(harness: Any, task: Task) -> list[str]:
    """Returns the greedy answers, each up to its first newline."""
    instance = importlib.import_module("lm_eval.api.instance").Instance
    texts = harness.tokenizer.batch_decode([list(example.prompt) for example in task.test])
    requests = [
        instance("generate_until", {}, (text, {"until": ["\n"], "max_gen_toks": NEW_TOKENS}), number)
        for number, text in enumerate(texts)
    ]
    for text, example in zip(texts, task.test, strict=True):
        if tuple(harness.tok_encode(text)) != example.prompt:
            raise SystemExit(f"lm-evaluation-harness reads other tokens than zo in {text[-80:]!r}.")
    return [answer.strip() for answer in harness.generate_until(requests, disable_tqdm=True)]


def _value(task: Task, predictions: Sequence[Any]) -> float:
    return statistics.fmean(
        task.correct(example, prediction) for example, prediction in zip(task.test, predictions, strict=True)
    )


def _add(path: Path, row: dict[str, Any]) -> None:
    """Puts a row into the file, in place of one of the same task and dtype."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [old for old in rows if (old["task"], old["dtype"]) != (row["task"], row["dtype"])]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*kept, row], indent=1) + "\n", encoding="utf-8")


def _with_examples(text: str) -> tuple[str, int]:
    """Returns a task's name and its number of examples, of TASK or TASK=EXAMPLES."""
    name, _, examples = text.partition("=")
    if name not in EXAMPLES:
        raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(EXAMPLES)}")
    return name, int(examples or EXAMPLES[name])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--name", default="smollm2-135m", help="of the model, in the table")
    parser.add_argument(
        "--tasks",
        nargs="+",
        type=_with_examples,
        default=list(EXAMPLES.items()),
        metavar="TASK[=EXAMPLES]",
        help=", ".join(EXAMPLES),
    )
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="into the committed results and their page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
