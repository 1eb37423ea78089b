"""The loop, and how it starts again where it was.

    for t in range(start, steps):
        losses = optimizer.step(t, batch, look)     # forward passes
        journal.append(losses)                      # a step begins to exist here
        optimizer.tell(t, losses)                   # the move
        on_step(t, seen)                            # rows, evaluations
        snapshot(t + 1)                             # now and then; all that belongs to step t is done by then

A journaled step is told without looking, so the same loop replays a journal, and calls on_step again. With snapshots
it starts at the newest one that fits and replays the tail.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zo.errors import ConfigError, DataError, JournalError, RanksDiverged
from zo.journal import Copy, Journal
from zo.kernels.adam_window import f32
from zo.kernels.sums import squares
from zo.optimizers import Optimizer
from zo.optimizers.optimizer import Looker
from zo.snapshots import Snapshots
from zo.team import Solo, Team

Batches = Callable[[int], Any] | Iterable[Any]
OnStep = Callable[[int, dict[str, float], bool], bool | None]


def train(
    optimizer: Optimizer,
    look: Looker,
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

    batches: a function of the step (exact on resuming), or an iterable that is gone through again and again.
    journal: where steps are recorded, and from which they are taken again without looking.
    snapshots: where weights are kept so that replaying takes at most about max_replay_seconds.
    rate: learning rate decided when a step is taken (a budget of time); it is journaled, not computed again.
    on_step: called after step t with what tell saw and whether the step was replayed.
    team: the processes that take the steps together (zo.distributed.Ranks); all but the first write nothing,
        and hold a Copy of the first one's journal.
    Raises ConfigError when the journal's with_lr does not fit `rate`, or the method cannot be shared; RanksDiverged
    with the journal cut to where all ranks agreed.
    """
    team = team or Solo()
    look = team.over(look, optimizer)
    if journal is not None and len(journal) < steps and (rate is not None) != journal.header["with_lr"]:
        raise ConfigError(
            "A learning rate decided by `rate` cannot be computed again, so the journal must hold it, and only then: "
            f"make the journal with with_lr={rate is not None}."
        )
    start = _restore(optimizer, journal, snapshots, team)
    batch_of = _by_step(batches, start)
    replay_seconds = 0.0
    for t in range(start, steps):
        record = journal[t] if journal is not None and t < len(journal) else None
        replayed = record is not None
        began = time.monotonic()
        if record is not None:
            losses, lr = record.losses, record.lr
            batch_of(t, False)
        else:
            team.begin(t)
            lr = None if rate is None else f32(rate(t))  # as the journal will hold it
            with back_to_agreement(team, journal, snapshots):
                losses = optimizer.step(t, batch_of(t, True), look, lr)
            if journal is not None:
                journal.append(losses, lr)
        if optimizer.replays_from == "losses":
            began = time.monotonic()
        seen = optimizer.tell(t, losses, lr)
        replay_seconds += time.monotonic() - began
        start = t + 1
        over = on_step is not None and on_step(t, seen, replayed)
        # Behind on_step: from its snapshot on a step is never told again, so what on_step does must be done by then.
        if snapshots is not None and replay_seconds > max_replay_seconds and not replayed:
            if team.leads:
                snapshot(optimizer, snapshots, start, journal)
            replay_seconds = 0.0
        if over:
            break
    with back_to_agreement(team, journal, snapshots):
        team.verify(start, optimizer.weights)
    return start


def path_lengths(optimizer: Optimizer, journal: Journal | Copy, steps: int) -> list[float]:
    """Returns ‖θ_{t+1} − θ_t‖ of the first `steps` recorded steps, replayed by an optimizer at its start."""
    weights = optimizer.weights

    def here() -> dict[str, Tensor]:
        return {name: weights.source(name).to("cpu", torch.float32, copy=True) for name in weights.tensors}

    lengths, before = [], here()
    for t in range(steps):
        optimizer.tell(t, journal[t].losses, journal[t].lr)
        after = here()
        moved = (part for name in after for part in squares(after[name] - before[name]))
        lengths.append(math.sqrt(math.fsum(moved)))
        before = after
    return lengths


def snapshot(
    optimizer: Optimizer, snapshots: Snapshots, step: int, journal: Journal | Copy | None = None
) -> None:
    """Saves weights and optimizer after `step` steps, bound to the journal's records that led there."""
    if isinstance(journal, Journal):
        journal.sync()  # after a power cut a journal that is shorter than its snapshot would make it useless
    snapshots.save(step, state_of(optimizer), None if journal is None else journal.digest(step))


def state_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """Returns all that `load_snapshot` needs: the tensors themselves, so copy them before the next move."""
    state = {f"weights:{name}": tensor for name, tensor in optimizer.weights.state().items()}
    state |= {f"optimizer:{name}": tensor for name, tensor in optimizer.state().items()}
    state["counts"] = torch.tensor([optimizer.skipped, optimizer.idle], dtype=torch.int64, device="cpu")
    return state


def load_snapshot(optimizer: Optimizer, state: dict[str, Tensor]) -> None:
    """Puts weights and optimizer where they were when `state_of` gave this state, or `snapshot` saved it."""
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
    found = None if snapshots is None else _newest(snapshots, journal, team)
    step = 0
    if found is not None:
        step, state = found
        load_snapshot(optimizer, state)
    if optimizer.replays_from != "losses":
        journal.truncate(step)  # these steps cannot be rebuilt from their losses and are taken again
    return step


def _newest(
    snapshots: Snapshots, journal: Journal | Copy, team: Team
) -> tuple[int, dict[str, Tensor]] | None:
    """Returns (step, state) of the snapshot that rank 0 picks, or None; every rank reads the file itself.

    Rank 0 removes those that this journal did not lead to: they would be taken for its own once it is long enough.
    """
    found: tuple[int, dict[str, Tensor]] | None = None

    def pick() -> int | None:
        nonlocal found
        snapshots.drop_from(len(journal), journal.digest)
        found = snapshots.newest(len(journal), journal.digest)
        return None if found is None else found[0]

    step = team.first(pick)
    if step is not None and not team.leads:
        found = snapshots.newest(step)
        if found is None or found[0] != step:
            raise JournalError(
                f"Rank {team.rank} cannot read the snapshot of step {step} in {snapshots.folder}, which rank 0 read. "
                "All processes need the same folder: put paths.runs on a disk that all machines share."
            )
    return found


@contextmanager
def back_to_agreement(
    team: Team, journal: Journal | Copy | None, snapshots: Snapshots | None
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


def _by_step(batches: Batches, start: int) -> Callable[[int, bool], Any]:
    """The batch of step t; the second argument says whether it is needed or only passed over."""
    if callable(batches):
        return lambda t, needed: batches(t) if needed else None
    endless = _again_and_again(batches)
    for _ in range(start):
        next(endless)
    return lambda t, needed: next(endless)


def _again_and_again(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise DataError(
                "The batches came to an end: give a loader that can be gone through more than once."
            )
