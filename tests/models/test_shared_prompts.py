"""Options after a prompt that is encoded once, against whole rows."""

import json

import pytest
import torch

from experiments.evaluation import call_cost, prefix_cache
from experiments.evaluation.prefix_cache import (
    common,
    shareable,
    shared_logprobs,
    sharing_pays,
    worth_sharing,
)
from experiments.peft import attach
from experiments.tasks.objectives import span_logprobs
from experiments.tasks.prompts import Row

from .tiny import conf, evaluate, load, load_task

ATOL = 2e-5  # sums of fp32 in another order and with other padding; log-probabilities are of size 5 to 50
SHARING = ("opt", "opt-post", "llama", "phi", "qwen3", "gpt2")


def loaded_from(folder, name, peft="none"):
    return attach(
        load(conf("model", "hub", path=str(folder(name)), device="cpu"), classes=2), conf("peft", peft)
    )


def examples(seed=0):
    """Prompts of 9 to 30 tokens; options of 1 to 6 tokens, that may begin alike; one to five of them."""
    g = torch.Generator().manual_seed(seed)

    def some(low, high):
        n = int(torch.randint(low, high, (), generator=g))
        return tuple(torch.randint(5, 200, (n,), generator=g).tolist())

    made = []
    for count in (2, 5, 3, 2):
        prompt, start = some(9, 31), some(1, 3)
        options = [start + some(1, 5) for _ in range(count)]
        made.append([Row((0, *prompt, *option), len(option)) for option in options])
    prompt = some(9, 31)
    made.append([Row((0, *prompt, word), 1) for word in (7, 8)])  # one token each
    made.append([Row((0, *prompt, 7), 1), Row((0, *prompt, 7, 8, 9), 3)])  # one the beginning of the other
    return made


def whole(loaded, rows):
    """The sum of one row alone: one model call, no padding."""
    with torch.no_grad():
        ids = torch.tensor([rows.ids])
        logits = loaded.model(input_ids=ids).logits[0].log_softmax(-1)
    places = range(len(rows.ids) - rows.span, len(rows.ids))
    return sum(float(logits[at - 1, rows.ids[at]]) for at in places)


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("peft", ["none", "lora"])
def test_sums_are_those_of_whole_rows_alone(folder, name, peft):
    if (name, peft) == ("gpt2", "lora"):
        return
    loaded = loaded_from(folder, name, peft)
    assert shareable(loaded)
    with torch.no_grad():
        made = shared_logprobs(loaded, examples())
    for sums, rows in zip(made, examples(), strict=True):
        torch.testing.assert_close(sums, torch.tensor([whole(loaded, r) for r in rows]), rtol=0, atol=ATOL)


def test_prompts_go_in_parts_where_their_keys_and_values_would_be_large(folder, monkeypatch):
    loaded = loaded_from(folder, "llama")
    with torch.no_grad():
        together = shared_logprobs(loaded, examples())
        monkeypatch.setattr(prefix_cache, "_CACHE", 20_000)
        calls = []
        handle = loaded.model.register_forward_hook(lambda *_: calls.append(1))
        parts = shared_logprobs(loaded, examples())
        handle.remove()
    assert len(calls) > 4
    for one, other in zip(together, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_a_short_tail_after_a_long_prompt_stays_within_the_models_positions(folder, name):
    """128 learned positions: 124 and the width of the other example's tails would be more."""
    loaded = loaded_from(folder, name)
    long, short = tuple(range(5, 129)), (0, 5, 6)
    rows = [
        [Row((*long, 7, 9), 2), Row((*long, 8, 9), 2)],
        [Row((*short, 7, *range(20, 34)), 15), Row((*short, 8, *range(20, 34)), 15)],
    ]
    with torch.no_grad():
        made = shared_logprobs(loaded, rows)
    for sums, some in zip(made, rows, strict=True):
        torch.testing.assert_close(
            sums, torch.tensor([whole(loaded, r) for r in some]), rtol=1e-6, atol=ATOL
        )  # sums of size 100


@pytest.mark.parametrize(
    ("name", "peft"), [("mistral", "none"), ("gemma3", "none"), ("opt", "prefix"), ("roberta", "none")]
)
def test_models_whose_keys_and_values_cannot_be_read_again_take_whole_rows(folder, name, peft):
    assert not shareable(loaded_from(folder, name, peft))


def test_what_rows_share():
    rows = [Row((0, 1, 2, 3, 4)), Row((0, 1, 2, 5))]
    assert common(rows) == 3
    assert common([rows[0], rows[0]]) == 4  # the last token is never fed
    assert worth_sharing(rows) and not worth_sharing([rows[0]])
    assert not worth_sharing([Row((0, 1, 2, 3, 4)), Row((0, 2, 3, 4, 5))])  # rows that lost their beginning


@pytest.mark.parametrize("name", ["opt", "llama"])
@pytest.mark.parametrize("calibrate", [None, "sfc"])
def test_evaluation_is_the_same_and_shared_prompts_pass_once(folder, tmp_path, monkeypatch, name, calibrate):
    """COPA, whose options are sentences; some rows are cut on the left, so that their prompts differ."""
    for split in ("train", "validation"):
        rows = [
            {
                "premise": "a film " * (1 + 5 * (i % 4)) + ".",
                "choice1": "It was great.",
                "choice2": "nobody saw the film again",
                "question": "cause" if i % 2 else "effect",
                "label": i % 2,
            }
            for i in range(16)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = loaded_from(folder, name)
    changes = {"dev": 0, "calibrate": calibrate, "max_length": 48}
    task = load_task(conf("task", "copa", data_dir=str(tmp_path), **changes), loaded)
    assert {worth_sharing(e.rows) for e in task.test} == {True, False}
    monkeypatch.setattr(call_cost, "_CALL", {"cpu": 0})
    assert all(sharing_pays([e.rows], 0) for e in task.test if worth_sharing(e.rows))
    plain, once = (evaluate(task, loaded, task.test, 4, share=share) for share in (False, True))
    assert plain.predictions == once.predictions
    assert once.loss == pytest.approx(plain.loss, abs=ATOL)


def test_a_look_keeps_no_keys_and_values(folder, reviews):
    loaded = loaded_from(folder, "opt")
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    seen = []
    loaded.model.register_forward_hook(lambda _, __, made: seen.append(made.past_key_values))
    span_logprobs(loaded.model, task.collate(task.train[:2]))
    assert seen == [None]
