"""Minus the metric as objective: accuracy of the chosen option, F1 of the generated answer."""

import json
from dataclasses import replace

import pytest
import torch

from experiments.evaluation.generate import generate
from experiments.peft import attach
from experiments.tasks.metrics import f1
from zo import FZOO, MeZO, ModuleLook, Weights

from .tiny import conf, evaluate, load, load_task


def put(folder, data, name, task="sst2", peft="none", **changes):
    loaded = attach(
        load(conf("model", "hub", path=str(folder(name)), device="cpu"), classes=2), conf("peft", peft)
    )
    return loaded, load_task(conf("task", task, data_dir=str(data), objective="metric", **changes), loaded)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions whose answers are single letters, which a random model hits now and then."""
    root = tmp_path_factory.mktemp("questions")
    for split in ("train", "validation"):
        rows = [
            {
                "title": "film",
                "context": "a film " * (i % 5 + 1),
                "question": f"what {i}",
                "answers": ["a film", "great"],
            }
            for i in range(8)
        ]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize("name", ["opt", "llama", "roberta", "encoder"])
def test_minus_the_accuracy_of_every_example(folder, reviews, name):
    loaded, task = put(folder, reviews, name)
    with torch.no_grad():
        losses = task.objective(loaded.model, task.collate(task.test))
    result = evaluate(task, loaded, task.test)
    wanted = [-float(p in e.golds) for e, p in zip(task.test, result.predictions, strict=True)]
    assert losses.tolist() == wanted
    assert result.loss == -result.value


def test_any_right_option_counts(folder, reviews):
    loaded, task = put(folder, reviews, "opt")
    either = type(task.test[0])(**{**vars(task.test[0]), "golds": (0, 1)})
    assert task.objective(loaded.model, task.collate([either])).item() == -1.0


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_minus_f1_of_every_generated_answer(folder, questions, peft):
    loaded, task = put(folder, questions, "opt", "squad", peft, max_new_tokens=4)
    said = [text or "" for text in generate(task, loaded, task.train)]
    # A random model never answers "great": half of the answers are what it says, and something beside it.
    answers = {
        e.index: ["great", f"{text} indeed"][i % 2 :]
        for i, (e, text) in enumerate(zip(task.train, said, strict=True))
    }
    objective = replace(task.objective, answers=answers)
    losses = objective(loaded.model, task.collate(task.train))
    wanted = [-f1(text, answers[e.index]) for text, e in zip(said, task.train, strict=True)]
    assert losses.tolist() == pytest.approx(wanted)
    assert -1.0 < min(wanted) < 0.0
    result = evaluate(task, loaded, task.test)
    assert result.loss == pytest.approx(-result.value)


@pytest.mark.parametrize("method", [MeZO, FZOO])
@pytest.mark.parametrize(("task_name", "name"), [("squad", "opt"), ("squad", "llama"), ("sst2", "roberta")])
def test_probes_see_the_model_moved_by_hand(folder, reviews, questions, method, task_name, name):
    """The loss at each probe is that of a model whose weights were really moved there.

    F1 of what a random model says is 0, so a metric that looks at the letters stands for it.
    """
    data = questions if task_name == "squad" else reviews
    loaded, task = put(folder, data, name, task_name, max_new_tokens=3)
    objective = task.objective
    if task.generated:
        objective = replace(objective, metric=lambda text, answers: len(set(text)) / 16)
    optimizer = method(Weights(loaded.model), lr=0.0, eps=0.3)
    look = ModuleLook(loaded.model, objective, optimizer, materialise=task.generated)
    batch = task.collate(task.train)
    probes = optimizer.ask(0)
    losses = look(probes, batch)
    for probe, loss in zip(probes, losses, strict=True):
        with torch.no_grad():
            before = {n: t.clone() for n, t in optimizer.weights.tensors.items()}
            moved = {n: optimizer.weights.at(n, probe, optimizer.directions) for n in before}
            for n, tensor in optimizer.weights.tensors.items():
                tensor.copy_(moved[n])
            wanted = objective(loaded.model, batch).double().mean().item()
            for n, tensor in optimizer.weights.tensors.items():
                tensor.copy_(before[n])
        assert loss == pytest.approx(wanted, abs=1e-6)
    assert len(set(losses)) > 1
