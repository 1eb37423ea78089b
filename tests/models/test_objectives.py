"""Objectives against a loop that scores one candidate at a time, without padding and without a hook."""

import math

import pytest
import torch
import torch.nn.functional as F

from experiments.models.head import head_at
from experiments.tasks import batches
from experiments.tasks.objectives import AnswerLoss, class_logits, mean_logprobs, span_logprobs, word_logits
from experiments.tasks.prompts import Row
from zo.errors import ConfigError

from .tiny import CAUSAL, MASKED, conf, load, load_task

ATOL = 2e-5  # padding changes the shapes and so the order of fp32 sums; losses are of size 1 to 20


def put(folder, reviews, name, task="sst2", **changes):
    loaded = load(conf("model", "hub", path=str(folder(name)), device="cpu"), classes=2)
    return loaded, load_task(conf("task", task, data_dir=str(reviews), **changes), loaded)


def calls(model):
    made = []
    model.register_forward_hook(lambda *_: made.append(1))
    return made


def logprob_of_option(model, tokenizer, text, option):
    """Mean log-probability of the option's tokens after the text: one row, all logits."""
    before, whole = tokenizer(text)["input_ids"], tokenizer(text + option)["input_ids"]
    logits = model(input_ids=torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return torch.stack([logits[i - 1, whole[i]] for i in range(len(before), len(whole))]).mean()


@pytest.mark.parametrize("name", CAUSAL)
def test_option_scores_are_those_of_a_loop_over_candidates(folder, reviews, name):
    loaded, task = put(folder, reviews, name, options=["terrible indeed", "great"])  # unlike in length
    made = calls(loaded.model)
    batch = task.collate(task.train[:7])
    with torch.no_grad():
        losses = task.objective(loaded.model, batch)
        assert len(made) == 1
        wanted = torch.stack(
            [
                torch.stack(
                    [
                        logprob_of_option(
                            loaded.model,
                            loaded.tokenizer,
                            f"{e.fields['sentence'].strip()} It was",
                            f" {option}",
                        )
                        for option in e.options
                    ]
                )
                for e in task.train[:7]
            ]
        )
    labels = torch.tensor([e.golds[0] for e in task.train[:7]])
    torch.testing.assert_close(mean_logprobs(loaded.model, batch), wanted, rtol=0, atol=ATOL)
    torch.testing.assert_close(losses, F.cross_entropy(wanted, labels, reduction="none"), rtol=0, atol=ATOL)
    assert losses.shape == (7,)
    assert losses.dtype == torch.float32


@pytest.mark.parametrize("name", MASKED)
def test_word_scores_are_the_logits_at_the_mask(folder, reviews, name):
    loaded, task = put(folder, reviews, name)
    words = [loaded.tokenizer.convert_tokens_to_ids(f"Ġ{word}") for word in ("terrible", "great")]
    made = calls(loaded.model)
    with torch.no_grad():
        got = word_logits(loaded.model, task.collate(task.train[:7]))
        assert len(made) == 1
        for example, scores in zip(task.train[:7], got, strict=True):
            # Pieces are tokenised apart, as LM-BFF's are: no merge crosses the border of a field.
            first, last = loaded.tokenizer("")["input_ids"]
            pieces = (example.fields["sentence"], " It was", loaded.tokenizer.mask_token, ".")
            parts = [loaded.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
            ids = torch.tensor([[first, *(token for part in parts for token in part), last]])
            where = ids[0].tolist().index(loaded.tokenizer.mask_token_id)
            wanted = loaded.model(input_ids=ids).logits[0, where, words]
            torch.testing.assert_close(scores, wanted, rtol=0, atol=ATOL)


def test_class_scores_are_those_of_single_texts(folder, reviews):
    loaded, task = put(folder, reviews, "encoder")
    with torch.no_grad():
        got = class_logits(loaded.model, task.collate(task.train[:7]))
        for example, scores in zip(task.train[:7], got, strict=True):
            one = loaded.tokenizer(example.fields["sentence"].strip(), return_tensors="pt")
            one = {name: one[name] for name in ("input_ids", "attention_mask")}
            torch.testing.assert_close(scores, loaded.model(**one).logits[0], rtol=0, atol=ATOL)


@pytest.mark.parametrize("average", ["token", "example"])
def test_answer_loss_is_that_of_the_right_option(folder, reviews, average):
    loaded, task = put(
        folder, reviews, "opt", objective="answer", average=average, options=["terrible", "great fun"]
    )
    with torch.no_grad():
        losses, weights = task.objective(loaded.model, task.collate(task.train[:7]))
        for example, loss, weight in zip(task.train[:7], losses, weights, strict=True):
            option = example.options[example.golds[0]]
            text = f"{example.fields['sentence'].strip()} It was"
            wanted = -logprob_of_option(loaded.model, loaded.tokenizer, text, f" {option}")
            torch.testing.assert_close(loss, wanted, rtol=0, atol=ATOL)
            assert weight == (example.rows[example.golds[0]].span if average == "token" else 1)


def test_token_average_is_the_mean_over_all_tokens_of_the_batch(folder, reviews):
    loaded, task = put(folder, reviews, "llama", objective="answer", options=["terrible", "great fun"])
    batch = task.collate(task.train[:7])
    with torch.no_grad():
        losses, weights = AnswerLoss("token")(loaded.model, batch)
        logits = loaded.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        each = F.cross_entropy(
            torch.stack([logits[i, p] for i, p in enumerate(batch["positions"])]).flatten(0, 1),
            batch["targets"].flatten(),
            ignore_index=batches.NOTHING,
        )
    torch.testing.assert_close((losses * weights).sum() / weights.sum(), each, rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", ["opt", "llama", "roberta", "bert", "encoder"])
def test_a_batch_stacked_twice_gives_each_loss_twice(folder, reviews, name):
    loaded, task = put(folder, reviews, name)
    batch = task.collate(task.train[:6])
    with torch.no_grad():
        once = task.objective(loaded.model, batch)
        twice = task.objective(loaded.model, {k: torch.cat([v, v]) for k, v in batch.items()})
    assert twice.shape == (12,)
    # Rows of the same shape; only the number of rows of each GEMM differs.
    torch.testing.assert_close(twice, torch.cat([once, once]), rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED])
def test_logits_at_positions_are_rows_of_all_logits(folder, name):
    loaded = load(conf("model", "hub", path=str(folder(name)), device="cpu"))
    ids = torch.randint(5, 200, (3, 16), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[0, 15], [7, 7], [3, 2]])
    with torch.no_grad():
        everywhere = loaded.model(input_ids=ids).logits
        with head_at(loaded.model, positions):
            some = loaded.model(input_ids=ids).logits
        assert loaded.model(input_ids=ids).logits.shape == everywhere.shape  # the hook is gone
    assert some.shape == (3, 2, everywhere.shape[-1])
    wanted = torch.stack([everywhere[row, positions[row]] for row in range(3)])
    torch.testing.assert_close(some, wanted, rtol=0, atol=ATOL)


def test_a_model_without_a_head_is_named(folder):
    loaded = load(conf("model", "hub", path=str(folder("encoder")), device="cpu"), classes=2)
    with pytest.raises(ConfigError, match="no language-model head"), head_at(loaded.model, torch.zeros(1, 1)):
        pass


def test_a_missing_option_scores_nothing_and_takes_no_gradient(folder, reviews):
    loaded, task = put(folder, reviews, "opt")
    both, one = task.train[0], task.train[1]
    one = type(one)(**{**vars(one), "rows": one.rows[:1], "options": one.options[:1], "golds": (0,)})
    batch = task.collate_options([both, one])
    scores = mean_logprobs(loaded.model, batch)
    assert scores[1, 1] == -math.inf
    loss = F.cross_entropy(scores, batch["labels"], reduction="none")
    assert loss[1] == 0.0
    loss.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in loaded.model.parameters())


def test_rows_are_padded_to_eights_within_the_context():
    rows = [tuple(range(5, 5 + n)) for n in (3, 9)]
    ids, mask = batches.padded(rows, pad=1, limit=128)
    assert ids.shape == (2, 16)
    assert ids[0].tolist() == [5, 6, 7] + [1] * 13
    assert mask.sum(1).tolist() == [3, 9]
    assert batches.padded(rows, pad=1, limit=10)[0].shape == (2, 10)
    left, left_mask = batches.padded(rows, pad=1, limit=128, left=True)
    assert left[0].tolist() == [1] * 13 + [5, 6, 7]
    assert left_mask[0].tolist() == [0] * 13 + [1] * 3


def test_positions_stand_one_before_their_targets_and_the_last_token_is_not_read():
    batch = batches.row_batch([Row((9, 8, 7, 6), 2), Row((9, 8), 1)], pad=1, limit=3)
    assert batch["input_ids"].tolist() == [[9, 8, 7], [9, 1, 1]]
    assert batch["positions"].tolist() == [[1, 2], [0, 0]]
    assert batch["targets"].tolist() == [[7, 6], [8, batches.NOTHING]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_losses_are_fp32_whatever_the_weights_are(folder, reviews, dtype):
    loaded = load(conf("model", "hub", path=str(folder("opt")), device="cpu", dtype=dtype))
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    with torch.no_grad():
        sums, counts = span_logprobs(loaded.model, task.collate(task.train[:3]))
    assert sums.dtype == counts.dtype == torch.float32
    assert sums.isfinite().all()
