"""One reading of a prompt for all its options, against whole rows: every option of every example by itself."""

import functools

import pytest
import torch
import torch.nn.functional as F

from experiments.config.compose import compose
from experiments.evaluation.prefix_cache import shareable
from experiments.peft import attach
from experiments.tasks.batches import option_batch, read_once, scored_batch
from experiments.tasks.objectives import mean_logprobs
from experiments.tasks.prompts import Row
from experiments.training.session import build
from zo.errors import JournalError
from zo.journal import Journal
from zo.look import ModuleLook
from zo.optimizers import FZOO, MeZO

from .tiny import conf, evaluate, load, load_task

# Losses are sums of fp32 rounded otherwise where shapes differ; relative to them, 1e-6 is 8 roundings.
close = functools.partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)
OPTIONS = {  # by how many distinct rows they need
    "one token": (["terrible", "great"], 1),
    "one begins another": (["great", "great film", "terrible"], 1),
    "two that part late": (["great film", "terrible film", "It", "was"], 2),
}


def put(folder, reviews, name, options=("terrible", "great"), peft="none", **changes):
    loaded = load(conf("model", "hub", path=str(folder(name)), device="cpu"), classes=2)
    loaded = attach(loaded, conf("peft", peft))
    return loaded, load_task(
        conf("task", "sst2", data_dir=str(reviews), options=list(options), **changes), loaded
    )


def whole_rows(examples, pad):
    """The batch as it was before: B x O rows, each option's whole row, with its last token."""
    rows = [row for example in examples for row in example.rows]
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
    mask = (torch.arange(width) < torch.tensor([len(row.ids) for row in rows])[:, None]).long()
    return rows, ids, mask, torch.tensor([example.golds[0] for example in examples])


def loss_of_whole_rows(model, batch):
    """Losses [B] from B x O whole rows and all their logits."""
    rows, ids, mask, labels = batch
    logits = model(input_ids=ids, attention_mask=mask).logits[
        :, -ids.shape[1] :
    ]  # virtual tokens stand before
    logprobs = logits.float().log_softmax(-1)
    scores = torch.stack(
        [
            torch.stack(
                [logprobs[at, p - 1, row.ids[p]] for p in range(len(row.ids) - row.span, len(row.ids))]
            ).mean()
            for at, row in enumerate(rows)
        ]
    )
    return F.cross_entropy(scores.view(len(labels), -1), labels, reduction="none")


def model_rows(model):
    """A list that gets the shape of the ids of every call of the model."""
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("name", ["opt", "llama", "phi", "mistral", "qwen3", "gemma3", "gpt2"])
@pytest.mark.parametrize("kind", OPTIONS)
def test_losses_are_those_of_whole_rows(folder, reviews, name, kind):
    options, distinct = OPTIONS[kind]
    loaded, task = put(folder, reviews, name, options)
    some = task.train[:7]
    with torch.no_grad():
        wanted = loss_of_whole_rows(loaded.model, whole_rows(some, loaded.pad))
        seen = model_rows(loaded.model)
        losses = task.objective(loaded.model, task.collate(some))
    assert len(seen) == 1 and seen[0][0] == 7 * distinct
    assert seen[0][1] <= -(-max(len(row.ids) - 1 for e in some for row in e.rows) // 8) * 8
    close(losses, wanted)


@pytest.mark.parametrize("peft", ["lora", "prefix", "prompt"])
def test_losses_with_adapters_are_those_of_whole_rows(folder, reviews, peft):
    loaded, task = put(folder, reviews, "opt", OPTIONS["two that part late"][0], peft)
    with torch.no_grad():
        wanted = loss_of_whole_rows(loaded.model, whole_rows(task.train[:5], loaded.pad))
        losses = task.objective(loaded.model, task.collate(task.train[:5]))
    close(losses, wanted)


@pytest.mark.parametrize("kind", OPTIONS)
def test_gradients_are_those_of_whole_rows(folder, reviews, kind):
    loaded, task = put(folder, reviews, "llama", OPTIONS[kind][0])
    parameters = dict(loaded.model.named_parameters())
    wanted = torch.autograd.grad(
        loss_of_whole_rows(loaded.model, whole_rows(task.train[:5], loaded.pad)).sum(),
        list(parameters.values()),
    )
    task.objective(loaded.model, task.collate(task.train[:5])).sum().backward()
    for parameter, gradient in zip(parameters.values(), wanted, strict=True):
        # Sums over rows in another order: rounding of the largest terms, not of each number.
        assert parameter.grad is not None
        assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("method", [MeZO, FZOO])
def test_stacked_and_one_by_one_are_the_same_bits_and_are_those_of_whole_rows(folder, reviews, kind, method):
    loaded, task = put(folder, reviews, "opt", OPTIONS[kind][0])
    optimizer = method(loaded.model, lr=1e-3, eps=1e-3, seed=3)
    batch, probes = task.collate(task.train[:4]), optimizer.ask(0)
    looks = [
        ModuleLook(loaded.model, task.objective, optimizer, probes_per_forward=how) for how in ("all", 1)
    ]
    stacked, alone = ([*look(probes, batch)] for look in looks)
    assert looks[0].sequential_because is None
    assert stacked == alone

    rows, ids, mask, labels = whole_rows(task.train[:4], loaded.pad)

    def reference(model, given):
        return loss_of_whole_rows(model, (rows, ids, mask, labels))

    whole = ModuleLook(loaded.model, reference, optimizer, probes_per_forward=1)(probes, {"labels": labels})
    assert stacked == pytest.approx(whole, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["opt", "mistral"])
def test_an_evaluation_reads_each_distinct_row_once(folder, reviews, name):
    loaded, task = put(folder, reviews, name, OPTIONS["one begins another"][0], train=8, dev=0)
    distinct = sum(len(read_once(e.rows)[0]) for e in task.test)
    with torch.no_grad():
        wanted = loss_of_whole_rows(loaded.model, whole_rows(task.test, loaded.pad)).double().mean()
    seen = model_rows(loaded.model)
    result = evaluate(task, loaded, task.test, 4, share=False)
    assert sum(rows for rows, _ in seen) <= distinct == len(task.test)
    assert result.loss == pytest.approx(float(wanted), rel=1e-6)
    assert shareable(loaded) == (name == "opt")  # a sliding window never shares


def test_rows_that_begin_others_are_read_there():
    rows = [
        Row((1, 2, 3), 1),
        Row((1, 2, 4), 1),
        Row((1, 2, 3, 9), 2),
        Row((1, 5, 6), 2),
        Row((1, 2, 3, 9), 1),
    ]
    assert read_once(rows) == ([(1, 2, 3), (1, 5)], [0, 0, 0, 1, 0])
    assert read_once([Row((1, 2), 1)]) == ([(1,)], [0])


def test_a_batch_says_where_each_token_is_predicted():
    batch = scored_batch([[Row((1, 2, 3), 1), Row((1, 2, 4, 5), 2)], [Row((6, 7), 1)]], pad=0, limit=4)
    assert batch["input_ids"].tolist() == [[[1, 2, 4, 0]], [[6, 0, 0, 0]]]
    assert batch["positions"].tolist() == [[[1, 2]], [[0, 0]]]
    assert batch["targets"].tolist() == [[[3, -100], [4, 5]], [[7, -100], [-100, -100]]]
    assert batch["places"].tolist() == [[[0, 0], [0, 1]], [[0, 0], [0, 0]]]


def test_examples_of_unlike_numbers_of_options_and_rows(folder, reviews):
    """The filler of an example with fewer distinct rows than another changes nothing of it."""
    loaded, task = put(folder, reviews, "opt", OPTIONS["two that part late"][0])
    some = list(task.train[:3])
    some[1] = type(some[1])(**{**vars(some[1]), "rows": some[1].rows[:1], "options": some[1].options[:1]})
    with torch.no_grad():
        together = mean_logprobs(loaded.model, option_batch(some, loaded.pad, 128))
        apart = [mean_logprobs(loaded.model, option_batch([e], loaded.pad, 128))[0] for e in some]
    for one, example, alone in zip(together, some, apart, strict=True):
        torch.testing.assert_close(one[: len(example.rows)], alone, rtol=1e-5, atol=1e-5)
        assert one[len(example.rows) :].eq(-torch.inf).all()


@pytest.mark.parametrize("task", ["sentiment", "entailment"])
def test_a_run_counts_the_tokens_of_one_row_an_example(task):
    config = compose([f"task={task}", "task.train=16", "task.dev=4", "task.test=4", "batch.size=4"]).config
    assert config is not None
    session = build(config)
    prompts = [example.rows[0].ids[:-1] for example in session.task.train]
    assert all(
        {row.ids[:-1] for row in e.rows} == {p} for e, p in zip(session.task.train, prompts, strict=True)
    )
    assert session.token_count()(4) == session.step_cost * sum(map(len, prompts))
    assert session.batch(0)["input_ids"].shape[:2] == (4, 1)


@pytest.mark.parametrize("number", [2, 3])
def test_a_journal_of_an_earlier_specification_is_refused_by_name(tmp_path, number):
    config = compose(["task.train=16", "task.dev=4", "task.test=4", "budget.steps=2"]).config
    assert config is not None
    header, path = build(config).header(), tmp_path / "journal"
    Journal(path, header | {"specification": number}, 2).close()
    with pytest.raises(JournalError, match=rf"specification: the journal has {number}, this run has 4"):
        Journal(path, header, 2)


def test_a_journal_with_padding_is_refused_by_a_run_that_skips_it(tmp_path):
    few = ["task.train=16", "task.dev=4", "task.test=4", "budget.steps=2"]
    whole, skipping = (compose([*few, f"batch.skip_padding={skip}"]).config for skip in ("false", "true"))
    assert whole is not None and skipping is not None
    Journal(tmp_path / "journal", build(whole).header(), 2).close()
    with pytest.raises(JournalError, match='padding: the journal has "evaluated", this run has "skipped"'):
        Journal(tmp_path / "journal", build(skipping).header(), 2)
