"""Scores that are no numbers: such examples are never right, are counted, and a model of nothing else is diverged."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.commands.launch import main
from experiments.tasks.objectives import AccuracyLoss, unscored

from .tiny import conf, evaluate, load, load_task


def loaded_of(folder, name):
    return load(conf("model", "hub", path=str(folder(name)), device="cpu"), classes=2)


def spoil(loaded, token=None):
    """Makes a model's first layer NaN, or what it reads of one token alone."""
    with torch.no_grad():
        if token is None:
            next(p for name, p in loaded.model.named_parameters() if "layer" in name and p.dim() > 1)[
                0, 0
            ] = math.nan
        else:
            loaded.model.get_input_embeddings().weight[token] = math.nan


def test_which_scores_choose_no_option():
    inf, nan = math.inf, math.nan
    scores = torch.tensor([[-1.0, -2.0], [-1.0, -inf], [nan, -1.0], [-1.0, nan], [inf, -1.0], [-inf, -inf]])
    assert unscored(scores).tolist() == [False, False, True, True, True, True]
    golds = torch.tensor([[1.0, 0.0]] * 6)
    losses = AccuracyLoss.of(scores, {"golds": golds})
    assert losses[:2].tolist() == [-1.0, -1.0] and losses[2:].isnan().all()


@pytest.mark.parametrize("objective", ["options", "metric"])
def test_examples_with_a_broken_token_are_wrong_whatever_their_label(folder, tmp_path, objective):
    """Rows with "film" give NaN; their label is option 0, which argmax of NaN would choose."""
    texts = ["a film", "the nobody", "It was a film", "Question"]
    rows = [{"sentence": text, "label": 0} for text in texts]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    loaded = loaded_of(folder, "phi")
    task = load_task(conf("task", "sst2", data_dir=str(tmp_path), objective=objective), loaded)
    healthy = evaluate(task, loaded, task.test)
    spoil(loaded, loaded.tokenizer.convert_tokens_to_ids("Ġfilm"))
    found = evaluate(task, loaded, task.test)
    bad = ["film" in example.fields["sentence"] for example in task.test]
    assert [prediction is None for prediction in found.predictions] == bad
    kept = [h for h, b in zip(healthy.predictions, bad, strict=True) if not b]
    assert [p for p in found.predictions if p is not None] == kept
    assert (found.unscored, found.n, found.broken) == (2, 4, False)
    assert found.value == sum(p == 0 for p in kept) / 4
    assert math.isnan(found.loss)


@pytest.mark.parametrize("name", ["llama", "roberta", "encoder"])
def test_a_model_of_nan_alone_has_no_value_and_no_interval(folder, reviews, name):
    loaded = loaded_of(folder, name)
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    spoil(loaded)
    found = evaluate(task, loaded, task.test)
    assert found.broken and math.isnan(found.value) and found.ci95 is None
    assert set(found.predictions) == {None}


@pytest.mark.parametrize("objective", ["answer", "metric"])
def test_answers_of_logits_that_are_no_numbers_are_wrong(folder, tmp_path, objective):
    rows = [{"context": text, "question": "what", "answers": ["a"]} for text in ("a film", "the nobody")]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    loaded = loaded_of(folder, "phi")
    choice = conf("task", "question", data_dir=str(tmp_path), objective=objective, dev=0, max_new_tokens=4)
    task = load_task(choice, loaded)
    spoil(loaded, loaded.tokenizer.convert_tokens_to_ids("Ġfilm"))
    found = evaluate(task, loaded, task.test)
    assert [p is None for p in found.predictions] == ["film" in e.fields["context"] for e in task.test]
    assert found.unscored == 1


def broken(tmp_path):
    """The shipped decoder with one number that is NaN."""
    folder = shutil.copytree("experiments/world/tiny-clm", tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    weights["model.decoder.layers.0.fc1.weight"][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "overrides", [("optimizer=none",), ("optimizer=mezo", "budget.steps=2", "task.dev=8")]
)
def test_a_run_of_a_model_of_nan_is_diverged(tmp_path, capsys, overrides):
    runs = tmp_path / "runs"
    base = (
        "model=hub",
        f"model.path={broken(tmp_path)}",
        "model.device=cpu",
        "task=sentiment",
        "task.test=16",
    )
    assert main([*base, "task.train=8", f"paths.runs={runs}", *overrides]) == 0
    (path,) = runs.rglob("result.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert (result["status"], result["before"], result["after"], result["ci95"]) == (
        "diverged",
        None,
        None,
        None,
    )
    assert result["unscored"] == result["n_test"] == 16
    said = capsys.readouterr().out
    assert "scores are no finite numbers on any of the 16 test examples" in " ".join(said.split())
    assert "interval" not in said
