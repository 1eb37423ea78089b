"""What a run saved, loaded by transformers, peft and lm-evaluation-harness alone, gives the reported accuracy."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from experiments.world.grammar import examples

from .conftest import ROOT

WORDS = ("terrible", "great")
WORLD = ROOT / "experiments" / "world"
N = 64
SIZES = (
    "task.train=64",
    f"task.test={N}",
    "task.dev=8",
    "budget.steps=6",
    "optimizer=fzoo",
    "optimizer.lr=2e-3",
)


def reviews():
    return examples("sentiment", "test", N, 0)


def accuracy_of_causal(model, tokenizer) -> float:
    """The option with the larger log-probability after the prompt, one text at a time."""
    right = 0
    for row in reviews():
        scores = []
        for word in WORDS:
            prompt, whole = (
                tokenizer(f"{row['sentence']} It was{end}")["input_ids"] for end in ("", f" {word}")
            )
            with torch.no_grad():
                logprobs = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
            scores.append(sum(float(logprobs[at - 1, whole[at]]) for at in range(len(prompt), len(whole))))
        right += scores.index(max(scores)) == row["label"]
    return right / N


def accuracy_of_masked(model, tokenizer) -> float:
    """The word with the larger logit at the mask."""
    words = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in WORDS]
    right = 0
    for row in reviews():
        ids = tokenizer(f"{row['sentence']} It was {tokenizer.mask_token} .", return_tensors="pt")[
            "input_ids"
        ]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, ids[0].tolist().index(tokenizer.mask_token_id)]
        right += int(logits[words].argmax()) == row["label"]
    return right / N


def test_transformers_gives_the_reported_accuracy_of_a_causal_model(runs):
    result = runs(*SIZES)
    folder = result["folder"] / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    assert result["before"] != result["after"]
    assert accuracy_of_causal(model, AutoTokenizer.from_pretrained(folder)) == result["after"]


def test_transformers_gives_the_reported_accuracy_of_a_masked_model(runs):
    result = runs(*SIZES, "model=tiny-mlm")
    folder = result["folder"] / "model"
    model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="sdpa")
    assert accuracy_of_masked(model, AutoTokenizer.from_pretrained(folder)) == result["after"]


def test_transformers_gives_the_reported_accuracy_of_a_probe(runs):
    result = runs(*SIZES[:2], "task.dev=0", "optimizer=linear_probe", "optimizer.c=1.0")
    folder = result["folder"] / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    assert (
        accuracy_of_causal(model, AutoTokenizer.from_pretrained(folder)) == result["after"] > result["before"]
    )


def test_peft_gives_the_reported_accuracy_of_an_adapter(runs):
    from peft import PeftModel

    result = runs(*SIZES[:-1], "optimizer.lr=3e-2", "peft=lora")
    base = AutoModelForCausalLM.from_pretrained(WORLD / "tiny-clm", attn_implementation="sdpa")
    model = PeftModel.from_pretrained(base, str(result["folder"] / "model")).eval()
    assert result["loss_after"] != result["loss_before"]
    assert accuracy_of_causal(model, AutoTokenizer.from_pretrained(WORLD / "tiny-clm")) == result["after"]


def test_the_harness_gives_the_reported_accuracy(runs, tmp_path):
    """lm-evaluation-harness, with a task of local rows."""
    lm_eval = pytest.importorskip("lm_eval", reason="pip install -e .[eval]")
    result = runs(*SIZES)
    rows = tmp_path / "task" / "rows.jsonl"
    rows.parent.mkdir()
    rows.write_text("".join(json.dumps(row) + "\n" for row in reviews()))
    task = {
        "task": "reviews",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{sentence}} It was",
        "doc_to_choice": [*WORDS],
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (rows.parent / "reviews.yaml").write_text(json.dumps(task))  # JSON is YAML
    made = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(result["folder"] / "model"), "dtype": "float32"},
        tasks=["reviews"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(rows.parent), include_defaults=False),
        device="cpu",
        batch_size=16,
        bootstrap_iters=0,
    )
    assert made["results"]["reviews"]["acc,none"] == result["after"]
