"""Evaluation in batches against one example at a time."""

import json
from typing import Any

import pytest
import torch

from experiments.evaluation.generate import generate
from experiments.peft import attach
from zo.errors import ConfigError, DataError

from .tiny import conf, evaluate, load, load_task


def loaded_from(folder, name) -> Any:
    return load(conf("model", "hub", path=str(folder(name)), device="cpu"), classes=2)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """A folder of questions with several accepted answers."""
    root = tmp_path_factory.mktemp("questions")
    for split, count in (("train", 12), ("validation", 9)):
        rows = [
            {
                "context": "a film " * (i % 4 + 1),
                "question": f"what {i}",
                "answers": [f"film {i % 3}", "the film"],
            }
            for i in range(count)
        ]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize("name", ["opt", "roberta", "encoder"])
@pytest.mark.parametrize("objective", ["options", "answer"])
def test_batches_say_what_single_examples_say(folder, reviews, name, objective):
    if objective == "answer" and name != "opt":
        return
    loaded = loaded_from(folder, name)
    task = load_task(conf("task", "sst2", data_dir=str(reviews), objective=objective), loaded)
    together, alone = (evaluate(task, loaded, task.test, size) for size in (5, 1))
    assert together.predictions == alone.predictions
    assert together.loss == pytest.approx(alone.loss, abs=2e-5)  # fp32 sums in another order
    assert (together.n, together.forward_passes, alone.forward_passes) == (12, 3, 12)
    right = [p == e.golds[0] for p, e in zip(together.predictions, task.test, strict=True)]
    assert together.value == sum(right) / 12
    assert together.ci95[0] < together.value < together.ci95[1]
    with torch.no_grad():
        made = [task.objective(loaded.model, task.collate([e])) for e in task.test]
    pairs = [m if isinstance(m, tuple) else (m, torch.ones(1)) for m in made]
    wanted = sum(float(loss * w) for loss, w in pairs) / sum(float(w) for _, w in pairs)
    assert together.loss == pytest.approx(wanted, abs=2e-5)


def test_baselines_stand_beside(folder, reviews):
    loaded = loaded_from(folder, "opt")
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    some = [e for e in task.test if e.golds == (1,)][:3] + [e for e in task.test if e.golds == (0,)][:1]
    result = evaluate(task, loaded, some)
    assert (result.majority, result.random) == (0.75, 0.5)


def test_the_model_is_left_as_it_was(folder, reviews):
    loaded = attach(loaded_from(folder, "opt"), conf("peft", "none"))
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    loaded.model.train()
    state = torch.get_rng_state()
    assert evaluate(task, loaded, task.test).predictions == evaluate(task, loaded, task.test).predictions
    assert loaded.model.training
    assert all(p.grad is None for p in loaded.model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["opt", "llama"])
@pytest.mark.parametrize("peft", ["none", "lora"])
def test_generation_in_batches_is_the_greedy_loop(folder, questions, name, peft):
    loaded: Any = attach(loaded_from(folder, name), conf("peft", peft))
    task = load_task(conf("task", "question", data_dir=str(questions)), loaded)
    together = generate(task, loaded, task.test)
    ends = {loaded.tokenizer.eos_token_id, *loaded.tokenizer.encode("\n", add_special_tokens=False)[-1:]}
    with torch.no_grad():
        for example, said in zip(task.test, together, strict=True):
            ids = list(example.prompt)
            for _ in range(task.max_new_tokens):
                ids.append(int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] in ends:
                    break
            new = ids[len(example.prompt) :]
            assert said == loaded.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_generated_answers_are_measured_and_their_calls_counted(folder, questions):
    loaded = loaded_from(folder, "opt")
    task = load_task(conf("task", "question", data_dir=str(questions), metric="f1"), loaded)
    made = []
    loaded.model.register_forward_hook(lambda *_: made.append(1))
    result = evaluate(task, loaded, task.test, 4)
    assert result.forward_passes == len(made) > 6  # three batches, each a loss and several tokens
    assert result.metric == "f1"
    assert (
        result.value
        == sum(task.correct(e, p) for e, p in zip(task.test, result.predictions, strict=True)) / 9
    )
    assert result.random is None


def test_a_constant_answer_is_the_baseline_of_generation(folder, questions):
    task = load_task(conf("task", "question", data_dir=str(questions)), loaded_from(folder, "opt"))
    said = max(sorted({e.answers[0] for e in task.train}), key=[e.answers[0] for e in task.train].count)
    assert task.majority_of(task.test) == sum(said in e.answers for e in task.test) / len(task.test)


def test_what_cannot_be_evaluated_is_named(folder, questions, reviews):
    with pytest.raises(
        ConfigError, match=r"Task question has no template for a masked model such as roberta"
    ):
        load_task(conf("task", "question", data_dir=str(questions)), loaded_from(folder, "roberta"))
    loaded = loaded_from(folder, "opt")
    with pytest.raises(ConfigError, match=r"task\.max_new_tokens=127 leaves no room"):
        load_task(conf("task", "question", data_dir=str(questions), max_new_tokens=127), loaded)
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    with pytest.raises(DataError, match="no examples to evaluate on"):
        evaluate(task, loaded, ())
