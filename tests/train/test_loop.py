"""The loop: resuming and replaying give the bits of an undisturbed run."""

from typing import Any

import pytest
import torch
from torch import nn

from zo import (
    FZOO,
    AdamW,
    ConfigError,
    DataError,
    Diverged,
    Journal,
    Linear,
    MeZO,
    ModuleLook,
    Snapshots,
    Weights,
    train,
)
from zo.training import Loop

STEPS = 12


def make_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))


def objective(model, batch):
    return (model(batch["x"])[:, 0] - batch["x"].sum(1)).square()


def batches(t):
    return {"x": torch.randn(5, 6, generator=torch.Generator().manual_seed(t))}


METHODS = {
    "fzoo": lambda weights: FZOO(weights, lr=Linear().over(0.02, STEPS), n=4, weight_decay=0.1),
    "mezo": lambda weights: MeZO(weights, lr=1e-3, n=2),
    "mezo-stochastic": lambda weights: MeZO(weights, lr=1e-3, eps=0.05),
    "fzoo-master": lambda weights: FZOO(weights, lr=1e-3, eps=0.05, n=4),
    "adamw": lambda weights: AdamW(weights, lr=0.02, weight_decay=0.1),
    "adamw-master": lambda weights: AdamW(weights, lr=0.02, weight_decay=0.1),
    "adamw-auto": lambda weights: AdamW(weights, lr=0.02, weight_decay=0.1),
}
FIRST_ORDER = {"adamw", "adamw-master", "adamw-auto"}


class Run:
    """A process, as far as the run can tell: a fresh model, optimizer and look on the same folder."""

    def __init__(self, method, folder=None, journal_options=None, **look_options):
        model = make_model()
        update = method.partition("-")[2] or "nearest"
        dtype = torch.float16 if update == "auto" else torch.bfloat16 if "-" in method else torch.float32
        model = model.to(dtype)
        self.optimizer = METHODS[method](Weights(model, update=update))
        cast = lambda batch: {"x": batch["x"].to(dtype)}  # noqa: E731
        self.look: Any = ModuleLook(
            model, lambda m, b: objective(m, cast(b)).float(), self.optimizer, **look_options
        )
        self.journal: Any = None
        self.snapshots: Any = None
        if folder is not None:
            losses = self.optimizer.losses_per_step
            self.journal = Journal(folder / "journal", {"method": method}, losses, **(journal_options or {}))
            self.snapshots = Snapshots(folder / "snapshots")

    def train(self, steps, batches=batches, **options):
        try:
            return train(self.optimizer, self.look, batches, steps, journal=self.journal, **options)
        finally:
            if self.journal is not None:
                self.journal.close()

    @property
    def bits(self):
        return {name: tensor.clone() for name, tensor in self.optimizer.weights.state().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def undisturbed():
    results = {}
    for method in METHODS:
        run = Run(method)
        assert run.train(STEPS) == STEPS
        results[method] = run.bits
        assert not equal(run.bits, Run(method).bits)
    return results


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", range(STEPS + 1))
def test_resuming_at_any_step(method, first, undisturbed, tmp_path):
    run = Run(method, tmp_path)
    assert run.train(STEPS, on_step=lambda t, seen, replayed: t + 1 >= first) == max(first, 1)
    again = Run(method, tmp_path)
    assert again.train(STEPS) == STEPS
    assert equal(again.bits, undisturbed[method])
    if method not in FIRST_ORDER:  # no step is looked at twice
        assert run.look.forward_passes + again.look.forward_passes == STEPS * run.optimizer.forward_passes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first, every", [(1, 0.0), (5, 0.0), (12, 0.0)])
def test_resuming_from_a_snapshot(method, first, every, undisturbed, tmp_path):
    run = Run(method, tmp_path)
    run.train(STEPS, snapshots=run.snapshots, max_replay_seconds=every, on_step=lambda t, *_: t + 1 >= first)
    assert run.snapshots.steps()[-1] == first
    again = Run(method, tmp_path)
    seen = []
    again.train(
        STEPS, snapshots=again.snapshots, max_replay_seconds=1e9, on_step=lambda t, s, r: seen.append((t, r))
    )
    assert seen == [(t, False) for t in range(first, STEPS)]  # nothing was done again
    assert equal(again.bits, undisturbed[method])
    assert run.look.forward_passes + again.look.forward_passes == STEPS * run.optimizer.forward_passes


@pytest.mark.parametrize("method", METHODS)
def test_resuming_from_an_old_snapshot_and_the_tail(method, undisturbed, tmp_path):
    run = Run(method, tmp_path)
    run.train(STEPS, snapshots=run.snapshots, max_replay_seconds=0.0, on_step=lambda t, *_: t + 1 >= 7)
    for step in run.snapshots.steps()[1:]:
        run.snapshots.drop(step)
    (left,) = run.snapshots.steps()
    assert left < 7
    again = Run(method, tmp_path)
    seen = []
    again.train(STEPS, snapshots=again.snapshots, on_step=lambda t, s, replayed: seen.append((t, replayed)))
    replays = method not in FIRST_ORDER
    assert seen == [(t, replays and t < 7) for t in range(left, STEPS)]
    assert equal(again.bits, undisturbed[method])


def test_a_method_that_keeps_no_snapshot_starts_anew(undisturbed, tmp_path):
    Run("adamw", tmp_path).train(5)
    again = Run("adamw", tmp_path)
    again.train(STEPS)
    assert again.look.forward_passes == STEPS
    assert equal(again.bits, undisturbed["adamw"])


@pytest.mark.parametrize("method", [name for name in METHODS if name not in FIRST_ORDER])
def test_replay_needs_no_forward_pass(method, undisturbed, tmp_path):
    Run(method, tmp_path).train(STEPS)

    def no_batch(t):
        raise AssertionError("a replayed step asked for its batch")

    again = Run(method, tmp_path)
    seen = []
    assert again.train(STEPS, batches=no_batch, on_step=lambda t, s, replayed: seen.append(replayed)) == STEPS
    assert again.look.forward_passes == again.look.calls == 0
    assert seen == [True] * STEPS
    assert equal(again.bits, undisturbed[method])


def test_part_of_a_journal_is_the_model_of_then(tmp_path):
    half = Run("fzoo")
    half.train(STEPS, on_step=lambda t, *_: t == 4)
    Run("fzoo", tmp_path).train(STEPS)
    again = Run("fzoo", tmp_path)
    again.train(5)
    assert equal(again.bits, half.bits)


def test_a_journal_longer_than_the_budget(tmp_path):
    Run("fzoo", tmp_path).train(STEPS)
    again = Run("fzoo", tmp_path)
    assert again.train(0) == 0
    assert equal(again.bits, Run("fzoo").bits)


def test_stacked_micro_and_sequential_write_the_same_journal(tmp_path):
    contents = []
    for name, options in (("one", {"probes_per_forward": 1}), ("all", {"probes_per_forward": "all"})):
        folder = tmp_path / name
        folder.mkdir()
        Run("fzoo", folder, **options).train(STEPS)
        contents.append((folder / "journal").read_bytes())
    assert contents[0] == contents[1]


def test_a_rate_of_the_clock_is_replayed(tmp_path):
    rates = [0.1 / (t + 1) for t in range(STEPS)]  # fp64 numbers that fp32 does not hold
    told = iter(rates)
    options = {"with_lr": True}
    run = Run("mezo", tmp_path, options)
    run.train(6, rate=lambda t: next(told))
    again = Run("mezo", tmp_path, options)

    def later(t):
        assert t >= 6, "a journaled rate was asked for again"
        return rates[t]

    again.train(STEPS, rate=later)
    once = Run("mezo", tmp_path, options)
    once.train(STEPS)  # a replay needs no rate at all
    assert equal(once.bits, again.bits)
    whole = Run("mezo")
    whole.train(STEPS, rate=lambda t: rates[t])
    assert equal(whole.bits, again.bits)
    assert not equal(whole.bits, Run("mezo").bits)


@pytest.mark.parametrize("rate, with_lr", [(lambda t: 0.1, False), (None, True)])
def test_a_rate_the_journal_does_not_hold_is_refused(rate, with_lr, tmp_path):
    run = Run("mezo", tmp_path, {"with_lr": with_lr})
    with pytest.raises(ConfigError, match=f"with_lr={not with_lr}"):
        run.train(3, rate=rate)


class Loader:
    """A DataLoader, as far as the loop can tell: it can be gone through again and again."""

    def __init__(self, length):
        self.length = length
        self.served = 0

    def __iter__(self):
        for t in range(self.length):
            self.served += 1
            yield batches(t)


@pytest.mark.parametrize("kind", ["list", "loader", "DataLoader"])
@pytest.mark.parametrize("first", [0, 2, 5, 7])
def test_batches_of_all_kinds(kind, first, tmp_path):
    def given():
        if kind == "list":
            return [batches(t) for t in range(5)]
        if kind == "loader":
            return Loader(5)
        from torch.utils.data import DataLoader

        data: Any = [batches(t) for t in range(5)]
        return DataLoader(data, batch_size=None)

    whole = Run("fzoo")
    whole.train(STEPS, batches=lambda t: batches(t % 5))
    if first:
        Run("fzoo", tmp_path).train(first, batches=given())
    again = Run("fzoo", tmp_path)
    again.train(STEPS, batches=given())
    assert equal(again.bits, whole.bits)


@pytest.mark.parametrize("method", ["fzoo", "adamw"])
def test_an_iterable_goes_on_where_a_snapshot_stopped(method, tmp_path):
    whole = Run(method)
    whole.train(STEPS, batches=Loader(5))
    run = Run(method, tmp_path)
    run.train(7, batches=Loader(5), snapshots=run.snapshots, max_replay_seconds=0.0)
    again = Run(method, tmp_path)
    again.train(STEPS, batches=Loader(5), snapshots=again.snapshots)
    assert equal(again.bits, whole.bits)


def test_batches_that_end_are_named():
    with pytest.raises(DataError, match="gone through more than once"):
        Run("fzoo").train(9, batches=(batches(t) for t in range(4)))
    with pytest.raises(DataError):
        Run("fzoo").train(1, batches=[])


def test_a_diverged_run_is_journaled_and_diverges_again(tmp_path):
    def bad(t):
        return {"x": batches(t)["x"] * (float("nan") if t == 3 else 1.0)}

    run = Run("fzoo", tmp_path)
    with pytest.raises(Diverged, match="Step 3"):
        run.train(STEPS, batches=bad)
    again = Run("fzoo", tmp_path)
    with pytest.raises(Diverged, match="Step 3"):
        again.train(STEPS, batches=bad)
    assert again.look.forward_passes == 0
    assert equal(run.bits, again.bits)


@pytest.mark.parametrize("method", ["fzoo", "mezo", "adamw"])
def test_skipped_steps_replay_and_resume(method, tmp_path):
    def bad(t):
        return {"x": batches(t)["x"] * (float("nan") if t in (3, 5) else 1.0)}

    whole = Run(method)
    whole.optimizer.on_nan = "skip"
    whole.train(STEPS, batches=bad)
    assert whole.optimizer.skipped == 2
    run = Run(method, tmp_path)
    run.optimizer.on_nan = "skip"
    run.train(5, batches=bad, snapshots=run.snapshots, max_replay_seconds=0.0)
    again = Run(method, tmp_path)
    again.optimizer.on_nan = "skip"
    again.train(STEPS, batches=bad, snapshots=again.snapshots)
    assert equal(again.bits, whole.bits)
    assert again.optimizer.skipped == 2


def test_losses_alone_are_looked_at_on_the_module_of_the_optimizer(undisturbed):
    model = make_model()
    optimizer = METHODS["fzoo"](model)
    assert train(optimizer, objective, batches, STEPS) == STEPS
    assert equal(optimizer.weights.state(), undisturbed["fzoo"])


def test_losses_alone_need_the_module():
    optimizer = MeZO(list(make_model().named_parameters()))
    with pytest.raises(
        ConfigError, match=r"made of named parameters.*zo\.ModuleLook\(model, losses, optimizer\)"
    ):
        train(optimizer, objective, batches, 1)


def test_a_loop_ends_with_the_step_that_is_made_the_last(undisturbed, tmp_path):
    """As a program of its own would go through it, with work between the steps."""
    run, taken = Run("fzoo", tmp_path), []
    loop = Loop(run.optimizer, run.look, batches, STEPS, journal=run.journal)
    for step in loop:
        taken.append((step.t, step.replayed, run.optimizer.weights.sha256()))
        if step.t == 4:
            step.end()
    run.journal.close()
    assert loop.done == len(taken) == 5 and taken[-1][2] == run.optimizer.weights.sha256()
    again = Run("fzoo", tmp_path)
    replay = [
        (step.t, step.replayed, again.optimizer.weights.sha256())
        for step in Loop(again.optimizer, again.look, batches, STEPS, journal=again.journal)
    ]
    again.journal.close()
    assert [(t, bits) for t, _, bits in replay[:5]] == [(t, bits) for t, _, bits in taken]
    assert [replayed for _, replayed, _ in replay] == [True] * 5 + [False] * (STEPS - 5)
    assert equal(again.bits, undisturbed["fzoo"])


def test_an_exception_between_journal_and_move(tmp_path, undisturbed):
    """What is journaled has happened: the step is told again, not looked at again."""
    run = Run("fzoo", tmp_path)
    tell = run.optimizer.tell

    def fails(t, *rest):
        if t == 4:
            raise KeyboardInterrupt
        return tell(t, *rest)

    run.optimizer.tell = fails
    with pytest.raises(KeyboardInterrupt):
        run.train(STEPS)
    again = Run("fzoo", tmp_path)
    again.train(STEPS)
    assert equal(again.bits, undisturbed["fzoo"])
    assert again.look.forward_passes == (STEPS - 5) * 5
