"""Generated and gold answers after one reading of the prompt, against whole prompts and whole rows."""

import functools
import itertools
import json
from dataclasses import replace

import pytest
import torch

from experiments.evaluation import call_cost
from experiments.evaluation.call_cost import cut_by_length
from experiments.evaluation.generate import generate_and_score
from experiments.evaluation.prefix_cache import shareable, sharing_pays
from experiments.peft import attach
from experiments.tasks.prompts import Row

from .tiny import conf, evaluate, load, load_task

# Sums of fp32 rounded otherwise where shapes differ; relative to a loss, 1e-6 is 8 roundings.
close = functools.partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)
NEVER = 10**9  # positions that a call costs, so that a batch is never cut
MODELS = ("opt", "opt-post", "llama", "phi", "qwen3", "gpt2")


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """A folder of questions whose prompts have 25 to 110 tokens, and answers of 2 to 14."""
    root = tmp_path_factory.mktemp("questions")
    for split in ("train", "validation"):
        rows = [
            {"context": "a film " * (1 + 5 * (i % 5)), "question": f"what {i}", "answers": ["film " * (i % 4) + "a"]}
            for i in range(9)
        ]  # fmt: skip
        (root / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    return root


def put(folder, questions, name, peft="none", **changes):
    loaded = load(conf("model", "hub", path=str(folder(name)), device="cpu"), classes=2)
    loaded = attach(loaded, conf("peft", peft))
    changes = {"dev": 0, "max_new_tokens": 6, **changes}
    return loaded, load_task(conf("task", "question", data_dir=str(questions), **changes), loaded)


def reads(model):
    """A list that gets the shape of the ids of every call of the model."""
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("call", [0, NEVER])
@pytest.mark.parametrize("average", ["token", "example"])
@pytest.mark.parametrize("name", MODELS)
def test_answers_and_losses_are_those_of_whole_rows(folder, questions, monkeypatch, name, average, call):
    monkeypatch.setattr(call_cost, "_CALL", {"cpu": call})
    loaded, task = put(folder, questions, name, average=average)
    assert shareable(loaded)
    whole, once = (evaluate(task, loaded, task.test, 4, share=share) for share in (False, True))
    assert once.predictions == whole.predictions
    close(once.loss, whole.loss)
    assert once.value == whole.value


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_adapters_stand_in_both_readings(folder, questions, peft):
    loaded, task = put(folder, questions, "llama", peft)
    with torch.no_grad():  # an adapter begins as nothing
        for p in loaded.model.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    whole, once = (evaluate(task, loaded, task.test, share=share) for share in (False, True))
    assert once.predictions == whole.predictions
    close(once.loss, whole.loss)


def test_every_example_has_the_loss_of_its_row_alone(folder, questions):
    loaded, task = put(folder, questions, "llama")
    with torch.no_grad():
        _, sums, counts = generate_and_score(task, loaded, task.test)
        for total, count, example in zip(sums, counts, task.test, strict=True):
            (row,) = example.rows
            logits = loaded.model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
            wanted = sum(logits[at - 1, row.ids[at]] for at in range(len(row.ids) - row.span, len(row.ids)))
            assert int(count) == row.span
            close(total / count, wanted / count)


def test_a_prompt_is_read_once_and_without_padding_where_calls_cost_nothing(folder, questions, monkeypatch):
    monkeypatch.setattr(call_cost, "_CALL", {"cpu": 0})
    loaded, task = put(folder, questions, "opt")
    evaluate(task, loaded, task.test)  # so that the trial of the model's padding is over
    seen = reads(loaded.model)
    evaluate(task, loaded, task.test)
    rows = len(task.test)
    longest = max(example.rows[0].span for example in task.test)
    prefill = sum(len(example.prompt) - 1 for example in task.test)
    tails, steps = rows * longest, [shape for shape in seen if shape == (rows, 1)]
    assert sum(height * width for height, width in seen) == prefill + tails + len(steps) * rows
    assert len(steps) <= task.max_new_tokens


def test_without_cuts_it_takes_one_call_for_the_prompts_and_one_for_the_gold_answers(
    folder, questions, monkeypatch
):
    monkeypatch.setattr(call_cost, "_CALL", {"cpu": NEVER})
    loaded, task = put(folder, questions, "opt")
    evaluate(task, loaded, task.test)
    seen = reads(loaded.model)
    evaluate(task, loaded, task.test)
    assert [shape[1] for shape in seen[:2]] == [
        max(len(example.prompt) for example in task.test) - 1,
        max(example.rows[0].span for example in task.test),
    ]
    assert {shape[1] for shape in seen[2:]} == {1}


@pytest.mark.parametrize("name", ["opt", "llama"])
def test_rows_that_do_not_go_on_from_their_prompt_are_scored_whole(folder, questions, name):
    """Rows cut on the left, each by another number of tokens than its prompt; a token that spans prompt and answer."""
    _, uncut = put(folder, questions, name)
    longest = max(len(example.rows[0].ids) for example in uncut.test)
    loaded, task = put(folder, questions, name, max_length=longest - 3 + uncut.max_new_tokens)
    cut = [len(example.rows[0].ids) == task.limit for example in task.test]
    assert any(cut) and not all(cut)
    first = next(example for example in task.test if len(example.rows[0].ids) < task.limit)
    row, at = first.rows[0], len(first.prompt) - 1
    spanning = Row((*row.ids[:at], 7, *row.ids[at + 1 :]), row.span + 1)
    some = [*task.test, replace(first, rows=(spanning,))]
    whole, once = (evaluate(task, loaded, some, share=share) for share in (False, True))
    assert once.predictions == whole.predictions
    close(once.loss, whole.loss)


@pytest.mark.parametrize(("name", "peft"), [("mistral", "none"), ("gemma3", "none"), ("opt", "prefix")])
def test_models_whose_keys_and_values_cannot_be_read_again_are_evaluated_as_before(
    folder, questions, name, peft
):
    loaded, task = put(folder, questions, name, peft)
    evaluate(task, loaded, task.test)  # tries the model's padding, in calls that are counted
    whole, once = (evaluate(task, loaded, task.test, share=share) for share in (False, True))
    assert once == whole


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_metric_as_objective_is_that_of_whole_prompts(folder, questions, name):
    loaded, task = put(folder, questions, name, objective="metric", metric="f1")
    whole, once = (evaluate(task, loaded, task.test, share=share) for share in (False, True))
    assert (once.predictions, once.loss, once.value) == (whole.predictions, whole.loss, whole.value)


@pytest.mark.parametrize("call", [0, 1, 5, 30, NEVER])
def test_groups_are_the_cheapest_of_all_partitions(call):
    g = torch.Generator().manual_seed(call)
    for _ in range(20):
        lengths = torch.randint(1, 40, (7,), generator=g).tolist()
        groups = cut_by_length(lengths, call)
        assert sorted(itertools.chain(*groups)) == list(range(7))
        assert [max(lengths[n] for n in group) for group in groups] == sorted(
            max(lengths[n] for n in group) for group in groups
        )

        def cost(parts):
            return sum(call + len(part) * max(part) for part in parts)

        ordered = sorted(lengths)
        every = (
            [ordered[a:b] for a, b in itertools.pairwise((0, *cuts, 7))]
            for count in range(7)
            for cuts in itertools.combinations(range(1, 7), count)
        )
        assert cost([[lengths[n] for n in group] for group in groups]) == min(map(cost, every))
    assert call != NEVER or len(groups) == 1


def test_sharing_pays_where_prompts_are_long():
    def options(prompt, *tails):
        start = tuple(range(prompt))
        return [Row((*start, 900 + n, *range(tail)), 1 + tail) for n, tail in enumerate(tails)]

    short, long = [options(9, 5, 6)] * 8, [options(200, 5, 6)] * 8
    # Positions: 8 x 9 and 16 x 6 against 16 x 15, less than two calls; 8 x 200 and 96 against 16 x 206.
    assert sharing_pays(short, 71) and not sharing_pays(short, 72)
    assert sharing_pays(long, 1599) and not sharing_pays(long, 1600)
    assert not sharing_pays(short, call_cost.call_cost(torch.device("cuda")))
    one = [[Row((1, 2, 3), 1), Row((1, 2, 4), 1)]]
    assert sharing_pays(one, NEVER)  # options of one token need no second call
