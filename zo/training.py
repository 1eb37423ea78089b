"""The training loop, and how it resumes.

    for t in range(start, steps):
        losses = optimizer.step(t, batch, look)     # forward passes
        journal.append(losses)                      # the step exists from here on
        optimizer.tell(t, losses)                   # the move
        yield Step(t, seen)                         # the caller writes rows and evaluates
        snapshot(t + 1)                             # now and then; whatever belongs to step t is done by then

Steps in the journal need no forward pass, so the same loop replays a journal, and yields its steps again. With
snapshots it starts at the newest one that fits and replays the rest.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zo.errors import ConfigError, DataError, JournalError, RanksDiverged
from zo.journal import Copy, Journal
from zo.kernels.adam_window import f32
from zo.kernels.sums import squares
from zo.look import ModuleLook
from zo.look.look import Objective
from zo.noise import SPECIFICATION
from zo.optimizers import Optimizer, Probing
from zo.optimizers.optimizer import Looker
from zo.snapshots import Snapshots
from zo.team import Solo, Team

Batches = Callable[[int], Any] | Iterable[Any]
OnStep = Callable[[int, dict[str, float], bool], bool | None]


def train(
    optimizer: Optimizer,
    losses: Objective | Looker,
    batches: Batches,
    steps: int,
    *,
    journal: Journal | Copy | None = None,
    snapshots: Snapshots | None = None,
    max_replay_seconds: float = 600.0,
    rate: Callable[[int], float] | None = None,
    on_step: OnStep | None = None,
    team: Team | None = None,
) -> int:
    """Takes steps until `steps` are done or on_step returns True; returns how many are done.

    losses: a function (model, batch) → one loss an example, of the module that the optimizer was given; or a look,
        such as zo.ModuleLook(model, losses, optimizer, micro=8), to choose how probes are evaluated.
    on_step: called after step t with what `tell` measured and True if the step was replayed from the journal.
    All other arguments, and what is raised: Loop.
    """
    loop = Loop(
        optimizer,
        _look_of(optimizer, losses),
        batches,
        steps,
        journal=journal,
        snapshots=snapshots,
        max_replay_seconds=max_replay_seconds,
        rate=rate,
        team=team,
    )
    for step in loop:
        if on_step is not None and on_step(step.t, step.seen, step.replayed):
            step.end()
    return loop.done


@dataclass
class Step:
    """A step that was taken.

    t: its number, from 0. seen: what `tell` measured. replayed: True if its losses came from the journal.
    """

    t: int
    seen: dict[str, float]
    replayed: bool
    is_last: bool = False

    def end(self) -> None:
        """Ends the training after this step."""
        self.is_last = True


class Loop:
    """Takes one step an iteration until `steps` are done or a step is made the last (Step.end).

    batches: a function of the step (exact on resuming), or an iterable that is repeated when it ends.
    journal: records the steps; those that it holds already are replayed without looking.
    snapshots: keep weights so that replaying takes at most about max_replay_seconds.
    rate: the learning rate, decided when a step is taken (a budget of time); it is journaled, not computed again.
    team: the processes that take the steps together (zo.distributed.Ranks); all but the first write nothing,
        and hold a Copy of the first one's journal.
    done: steps taken so far, those of the snapshot that it started from included.
    Raises ConfigError when the journal's with_lr does not fit `rate`, or the method cannot be shared; RanksDiverged
    with the journal cut to where all ranks agreed.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        look: Looker,
        batches: Batches,
        steps: int,
        *,
        journal: Journal | Copy | None = None,
        snapshots: Snapshots | None = None,
        max_replay_seconds: float = 600.0,
        rate: Callable[[int], float] | None = None,
        team: Team | None = None,
    ):
        self._optimizer = optimizer
        self._team = team or Solo()
        self._look = self._team.over(look, optimizer)
        self._steps = steps
        self._journal = journal
        self._snapshots = snapshots
        self._max_replay_seconds = max_replay_seconds
        self._rate = rate
        if journal is not None and len(journal) < steps and (rate is not None) != journal.header["with_lr"]:
            raise ConfigError(
                "A learning rate decided by `rate` cannot be computed again, so the journal must hold it, and only "
                f"then: make the journal with with_lr={rate is not None}."
            )
        self.done = _restore(optimizer, journal, snapshots, self._team)
        self._batch_of = _by_step(batches, self.done)

    def __iter__(self) -> Iterator[Step]:
        replay_seconds = 0.0  # what a resumed process would need to get here from the last snapshot
        for t in range(self.done, self._steps):
            began = time.monotonic()
            replayed, losses, lr = self._losses(t)
            if self._optimizer.replays_from == "losses":
                began = time.monotonic()  # a replay does not look again
            step = Step(t, self._optimizer.tell(t, losses, lr), replayed)
            replay_seconds += time.monotonic() - began
            self.done = t + 1
            yield step
            # Behind the yield: steps before a snapshot are never replayed, so their rows must be written by now.
            if self._snapshots is not None and replay_seconds > self._max_replay_seconds and not replayed:
                if self._team.leads:
                    snapshot(self._optimizer, self._snapshots, self.done, self._journal)
                replay_seconds = 0.0
            if step.is_last:
                break
        with back_to_agreement(self._team, self._journal, self._snapshots):
            self._team.verify(self.done, self._optimizer.weights)

    def _losses(self, t: int) -> tuple[bool, Sequence[float], float | None]:
        """Returns (replayed, losses, learning rate) of step t: from the journal, or by looking, which is journaled."""
        if self._journal is not None and t < len(self._journal):
            record = self._journal[t]
            self._batch_of(t, False)
            return True, record.losses, record.lr
        self._team.begin(t)
        lr = None if self._rate is None else f32(self._rate(t))  # rounded as the journal will hold it
        with back_to_agreement(self._team, self._journal, self._snapshots):
            losses = self._optimizer.step(t, self._batch_of(t, True), self._look, lr)
        if self._journal is not None:
            self._journal.append(losses, lr)
        return False, losses, lr


@contextmanager
def back_to_agreement(
    team: Team, journal: Journal | Copy | None, snapshots: Snapshots | None = None
) -> Iterator[None]:
    """Drops the steps since ranks last agreed, if they diverged: their losses are of different weights."""
    try:
        yield
    except RanksDiverged:
        if journal is not None and team.agreed is not None:
            journal.truncate(team.agreed)
            if snapshots is not None and team.leads:
                snapshots.drop_from(team.agreed)
        raise


def _look_of(optimizer: Optimizer, losses: Objective | Looker) -> Looker:
    """Returns the look itself, or a ModuleLook of the objective on the optimizer's own module."""
    if isinstance(losses, Looker):
        return losses
    model = optimizer.weights.model
    if model is None:
        raise ConfigError(
            f"{type(optimizer).__name__} was made of named parameters, so the model of the losses is unknown. Make "
            "the optimizer of the module, or give zo.ModuleLook(model, losses, optimizer) in place of the losses."
        )
    return ModuleLook(model, losses, optimizer)


def identity_of(optimizer: Optimizer) -> dict[str, Any]:
    """Returns the lines of a journal's header that an optimizer decides: on other ones its steps have other bits."""
    weights = optimizer.weights
    return {
        "start": weights.sha256(),
        "tensors": [
            [name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            for name, tensor in weights.tensors.items()
        ],
        "specification": SPECIFICATION,
        "noise": optimizer.noise() if isinstance(optimizer, Probing) else "none",
        "device": next(iter(weights.tensors.values())).device.type,
        "torch": torch.__version__,
    }


def path_lengths(optimizer: Optimizer, journal: Journal | Copy, steps: int) -> list[float]:
    """Returns ‖θ_{t+1} − θ_t‖ of the first `steps` recorded steps, replayed by an optimizer at its start."""
    weights = optimizer.weights

    def copied() -> dict[str, Tensor]:
        return {name: weights.source(name).to("cpu", torch.float32, copy=True) for name in weights.tensors}

    lengths, before = [], copied()
    for t in range(steps):
        optimizer.tell(t, journal[t].losses, journal[t].lr)
        after = copied()
        summands = (square for name in after for square in squares(after[name] - before[name]))
        lengths.append(math.sqrt(math.fsum(summands)))
        before = after
    return lengths


def snapshot(
    optimizer: Optimizer, snapshots: Snapshots, step: int, journal: Journal | Copy | None = None
) -> None:
    """Saves weights and optimizer state after `step` steps, with the digest of the journal's records up to there."""
    if isinstance(journal, Journal):
        journal.sync()  # if a power cut shortened the journal, the snapshot would be useless
    snapshots.save(step, state_of(optimizer), None if journal is None else journal.digest(step))


def state_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """Returns all that `load_snapshot` needs: the tensors themselves, so copy them before the next move."""
    state: dict[str, Tensor] = {
        f"weights:{name}": tensor for name, tensor in optimizer.weights.state().items()
    }
    state |= {f"optimizer:{name}": tensor for name, tensor in optimizer.state().items()}
    state["counts"] = torch.tensor([optimizer.skipped, optimizer.idle], dtype=torch.int64, device="cpu")
    return state


def load_snapshot(optimizer: Optimizer, state: dict[str, Tensor]) -> None:
    """Restores weights and optimizer from what `state_of` gave, or `snapshot` saved."""
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}}
    for name, tensor in state.items():
        if name != "counts":
            kind, name = name.split(":", 1)
            parts[kind][name] = tensor
    optimizer.weights.load(parts["weights"])
    optimizer.load(parts["optimizer"])
    optimizer.skipped, optimizer.idle = state["counts"].tolist()


def _restore(
    optimizer: Optimizer, journal: Journal | Copy | None, snapshots: Snapshots | None, team: Team
) -> int:
    """Loads the newest snapshot that the journal covers; returns its step, or 0."""
    if journal is None:
        return 0
    newest = None if snapshots is None else _newest(snapshots, journal, team)
    step = 0
    if newest is not None:
        step, state = newest
        load_snapshot(optimizer, state)
    if optimizer.replays_from != "losses":
        journal.truncate(step)  # losses cannot rebuild the steps behind it, so they are taken again
    return step


def _newest(
    snapshots: Snapshots, journal: Journal | Copy, team: Team
) -> tuple[int, dict[str, Tensor]] | None:
    """Returns (step, state) of the snapshot that rank 0 picks, or None; every rank reads the file itself.

    Rank 0 removes the snapshots of other journals: once this journal is as long, they would pass for its own.
    """
    newest: tuple[int, dict[str, Tensor]] | None = None

    def pick() -> int | None:
        nonlocal newest
        snapshots.drop_from(len(journal), journal.digest)
        newest = snapshots.newest(len(journal), journal.digest)
        return None if newest is None else newest[0]

    step = team.first(pick)
    if step is not None and not team.leads:
        newest = snapshots.newest(step)
        if newest is None or newest[0] != step:
            raise JournalError(
                f"Rank {team.rank} cannot read the snapshot of step {step} in {snapshots.folder}, which rank 0 read. "
                "All processes need the same folder: put paths.runs on a disk that all machines share."
            )
    return newest


def _by_step(batches: Batches, start: int) -> Callable[[int, bool], Any]:
    """Returns a function that gives the batch of step t; its second argument is False to pass over the batch."""
    if callable(batches):
        return lambda t, needed: batches(t) if needed else None
    endless = _repeated(batches)
    for _ in range(start):
        next(endless)
    return lambda t, needed: next(endless)


def _repeated(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise DataError(
                "The batches ended before the last step. Give a list, a DataLoader or a function of the step: a "
                "generator cannot be gone through more than once."
            )
