"""ZOTrainer takes the steps of zo.train, by transformers' schedules, and resumes to the same bits."""

import math
import os
import shutil
import signal
from typing import Any

import pytest
import torch

from tests.integrations.tiny_trainer import At, again, model, rows, trainer
from tests.train import forking
from zo import FZOO, ConfigError, Diverged, JournalError, MeZO, Weights, ZOAdam
from zo.integrations.trainer_state import JOURNAL
from zo.journal import open_unchecked
from zo.kernels.adam_window import f32

LR = 1e-2


def journal_of(folder):
    return open_unchecked(folder / JOURNAL)


def rates(folder):
    with journal_of(folder) as journal:
        return [journal[t].lr for t in range(len(journal))]


def linear(t, steps=6, warmup=0):
    """transformers' get_linear_schedule_with_warmup: up from 0, then down to 0 behind the last step."""
    return LR * (t / warmup if t < warmup else (steps - t) / (steps - warmup))


def cosine(t, steps=6, warmup=2):
    """transformers' get_cosine_schedule_with_warmup, half a wave."""
    return LR * (
        t / warmup if t < warmup else 0.5 * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup)))
    )


@pytest.mark.parametrize(
    "method, dtype, accumulated",
    [
        (MeZO, torch.float32, 1),
        (MeZO, torch.float32, 2),
        (FZOO, torch.bfloat16, 3),
        (ZOAdam, torch.float32, 1),
    ],
)
def test_the_steps_are_those_of_a_plain_loop_to_the_bit(method, dtype, accumulated, tmp_path):
    """Three to nine rows a step; 20 rows, so that epochs end with a shorter batch, in the middle of an accumulation."""
    options = {"gradient_accumulation_steps": accumulated, "seed": 5, "weight_decay": 0.1}
    one = trainer(tmp_path / "a", method, model(dtype), **options)
    one.train()
    fresh = model(dtype)
    optimizer = method(fresh, lr=LR, seed=5, weight_decay=0.1)
    path = again(one, tmp_path / "b", optimizer, fresh, linear)
    assert path.read_bytes() == (tmp_path / "a" / JOURNAL).read_bytes()
    assert optimizer.weights.sha256() == one.zo.weights.sha256()
    assert one.look.forward_passes == 6 * optimizer.forward_passes


@pytest.mark.parametrize(
    "options, formula",
    [
        ({"lr_scheduler_type": "linear", "warmup_steps": 3}, lambda t: linear(t, warmup=3)),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 2}, cosine),
        ({"lr_scheduler_type": "constant"}, lambda t: LR),
    ],
)
def test_the_rate_is_that_of_the_schedules_closed_form(options, formula, tmp_path):
    one = trainer(tmp_path, MeZO, **options)
    one.train()
    assert rates(tmp_path) == [f32(formula(t)) for t in range(6)]
    assert [row["learning_rate"] for row in one.state.log_history if "loss" in row] == rates(tmp_path)


def test_what_is_logged_is_what_the_method_saw(tmp_path):
    """MeZO's loss is the mean of both sides, and its slope their difference over 2ε."""
    one = trainer(tmp_path, MeZO, method_options={"eps": 1e-2})
    one.train()
    shown = [row for row in one.state.log_history if "loss" in row]
    with journal_of(tmp_path) as journal:
        for t, row in enumerate(shown):
            plus, minus = journal[t].losses
            assert row["loss"] == (plus + minus) / 2
            assert row["grad_norm"] == pytest.approx(abs(plus - minus) / 2e-2, rel=1e-12)
            assert row["forward_passes"] == 2 * (t + 1)


def test_a_loss_that_is_no_number_stops_the_run_or_is_shown(tmp_path):
    def losses(model, batch):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return logits.mean((1, 2)) * (math.nan if one.state.global_step == 3 else 1.0)

    one = trainer(tmp_path / "a", MeZO, losses=losses)
    with pytest.raises(Diverged, match="Step 3: losses nan, nan"):
        one.train()
    one = trainer(tmp_path / "b", MeZO, losses=losses, method_options={"on_nan": "skip"})
    one.train()
    shown = [row["loss"] for row in one.state.log_history if "loss" in row]
    assert [math.isnan(loss) for loss in shown] == [t == 3 for t in range(6)]
    assert one.zo.skipped == 1


def die():
    os.kill(os.getpid(), signal.SIGKILL)


SAVED = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}


def stochastic(trained):
    """Masters of the low bits: a state that the model's own file does not hold."""
    return ZOAdam(Weights(trained, update="master"), lr=LR)


@pytest.mark.parametrize("case", ["mezo", "zoadam", "master"])
def test_killed_and_resumed_it_has_the_same_bits(case, tmp_path):
    """Killed at step 5, resumed from the checkpoint of step 4; step 5 is replayed, so one step is looked at."""
    dtype = torch.bfloat16 if case == "master" else torch.float32

    def make(folder, **options):
        trained = model(dtype)
        method = {"mezo": MeZO, "zoadam": ZOAdam}.get(case) or stochastic(trained)
        watched = {"eval_strategy": "steps", "eval_steps": 3, "eval_dataset": rows(4)}
        return trainer(folder, method, trained, gradient_accumulation_steps=2, **SAVED, **watched, **options)

    whole = make(tmp_path / "whole")
    whole.train()
    killed = tmp_path / "killed"
    pid = forking.start(lambda: make(killed, callbacks=[At(5, die)]).train())
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    with journal_of(killed) as journal:
        assert len(journal) == 5
    shutil.copytree(killed, tmp_path / "moved", ignore=lambda _, names: {JOURNAL} & set(names))
    rest = make(killed)
    rest.train(resume_from_checkpoint=True)
    assert rest.look.forward_passes == whole.zo.forward_passes
    assert (killed / JOURNAL).read_bytes() == (tmp_path / "whole" / JOURNAL).read_bytes()
    assert rest.zo.weights.sha256() == whole.zo.weights.sha256()
    assert all(torch.equal(one, other) for one, other in
               zip(rest.zo.state().values(), whole.zo.state().values(), strict=True))  # fmt: skip
    # Without the journal beside it, but with the checkpoint's own copy, both steps are looked at again.
    shutil.copy(killed / "checkpoint-4" / JOURNAL, tmp_path / "moved" / "checkpoint-4" / JOURNAL)
    rest = make(tmp_path / "moved")
    rest.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-4"))
    assert rest.look.forward_passes == 2 * whole.zo.forward_passes
    assert rest.zo.weights.sha256() == whole.zo.weights.sha256()


def test_a_replayed_journal_gives_the_weights(tmp_path):
    """The journal and the base model are the trained model."""
    one = trainer(tmp_path, FZOO)
    one.train()
    fresh = model()
    optimizer = FZOO(fresh, lr=LR, seed=one.args.seed)
    with journal_of(tmp_path) as journal:
        assert journal.header["start"] == optimizer.weights.sha256()
        for t in range(len(journal)):
            optimizer.tell(t, journal[t].losses, journal[t].lr)
    assert optimizer.weights.sha256() == one.zo.weights.sha256()


def test_a_run_that_begins_anew_keeps_the_journal_of_the_earlier_one(tmp_path):
    first = trainer(tmp_path, MeZO, max_steps=2, **SAVED)
    first.train()
    earlier = (tmp_path / JOURNAL).read_bytes()
    trainer(tmp_path, FZOO, max_steps=2).train()
    assert (tmp_path / f"{JOURNAL}.1").read_bytes() == earlier
    # Another method cannot continue that checkpoint: the line that differs is named.
    with pytest.raises(JournalError, match=r"belongs to another method|method: the journal has"):
        trainer(tmp_path, FZOO).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_another_trainer_is_refused(tmp_path):
    one = trainer(tmp_path, MeZO, max_steps=2, **SAVED)
    one.train()
    shutil.rmtree(tmp_path / "checkpoint-2" / "zo")
    with pytest.raises(JournalError, match="holds no state of zo after 2 steps"):
        trainer(tmp_path, MeZO).train(resume_from_checkpoint=True)
    trainer(tmp_path / "b", MeZO, max_steps=1, **SAVED | {"save_steps": 1}).train()
    path = tmp_path / "b" / "checkpoint-1" / JOURNAL
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(JournalError, match="is damaged, or not the one"):
        trainer(tmp_path / "b", MeZO).train(resume_from_checkpoint=True)


def test_an_optimizer_is_of_the_model_as_it_is_trained_and_trains_once(tmp_path):
    trained = model()
    one = trainer(tmp_path / "a", MeZO(trained, lr=LR), trained, max_steps=1)
    one.train()
    with pytest.raises(ConfigError, match="has trained already"):
        one.train()
    other = trainer(tmp_path / "b", MeZO(model(), lr=LR), max_steps=1)
    with pytest.raises(ConfigError, match="holds other tensors"):
        other.train()


def test_the_card_names_the_method(tmp_path):
    one = trainer(tmp_path, FZOO, method_options={"n": 4}, max_steps=2)
    one.train()
    one.create_model_card(model_name="tuned")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "- optimizer: FZOO of zo\n" in text and "adamw" not in text
    assert "n = 4" in text and "2 steps of 5 forward passes, 10 in all" in text
    one.create_model_card()
    assert (tmp_path / "README.md").read_text(encoding="utf-8").count("## Method") == 1


def test_the_work_counted_is_that_of_forward_passes(tmp_path):
    """Two operations a weight and token in a forward pass; transformers' figure of a step of training is six."""
    one = trainer(tmp_path, FZOO, max_steps=1)
    one.train()
    collator: Any = one.data_collator
    (batch,) = collator.batches[:1]
    weights = one.model.num_parameters(exclude_embeddings=True)
    assert one.state.total_flos == 2 * weights * batch["input_ids"].numel() * 9
