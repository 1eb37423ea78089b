"""Opens the journal of a run, rebuilds weights from it, and removes rows and snapshots that belong to another one."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from experiments.rundir.folder import RunFolder
from experiments.rundir.metric_rows import JOURNAL, rank_key
from experiments.training.recorder import covers
from experiments.training.session import Session
from zo.errors import DataError, Diverged
from zo.journal import Copy, Journal, opened
from zo.snapshots import Snapshots
from zo.team import Solo, Team
from zo.training import load_snapshot, train


def open_journal(
    session: Session, folder: RunFolder, team: Team | None = None, *, read_only: bool = False
) -> Journal | Copy:
    """Returns the run's journal, created or checked against the session, and locked; other ranks get a copy.

    read_only: the journal must exist and is not changed.
    """
    team = team or Solo()
    header, losses = session.header(), session.optimizer.losses_per_step
    if (parts := team.parts(losses)) > 1:
        header["parts"] = parts  # the number of parts that a batch is cut into
    team.agree({name: json.dumps(value) for name, value in header.items()})
    return opened(
        team,
        lambda: Journal(
            folder.journal,
            header,
            losses,
            with_lr=session.config.trains_until_clock,
            accept=session.config.checkpoint.accept,
            read_only=read_only,
        ),
    )


@dataclass
class Earlier:
    """The state that earlier processes of a run left.

    rows: those of metrics.jsonl that belong to the journal. steps: the number of steps in the journal.
    notes: sentences about what was removed.
    """

    rows: list[dict[str, Any]]
    steps: int
    notes: list[str] = field(default_factory=list)


def settle(
    session: Session, folder: RunFolder, journal: Journal | Copy, snapshots: Snapshots, team: Team
) -> Earlier:
    """Removes rows and snapshots that do not belong to the run's journal; returns what is left, to every rank.

    A row or snapshot belongs to the journal if it was written after the same records. A run may resume from a snapshot
    only if all rows up to it are there, because the steps before it are not taken again.
    """
    earlier = team.first(lambda: _settle(session, folder, journal, snapshots))
    journal.truncate(earlier.steps)
    return earlier


def _settle(session: Session, folder: RunFolder, journal: Journal | Copy, snapshots: Snapshots) -> Earlier:
    notes: list[str] = []
    if isinstance(journal, Journal) and journal.created:
        folder.clear_beside()  # the files of a journal that was moved away
    rows, damaged = folder.rows_before_damage()
    if damaged is not None:
        notes.append(
            f"Line {damaged} of metrics.jsonl is damaged. The rows from there on are made again; the file as it was is "
            f"{folder.keep_damaged_metrics()}."
        )
    rows = [
        row
        for row in rows
        if row["kind"] != "after"  # left by a process that died before it wrote the result
        and row["steps"] <= len(journal)
        and row.get(JOURNAL) in (None, journal.digest(row["steps"]))
    ]
    snapshots.drop_from(len(journal), journal.digest)
    for step in snapshots.steps():
        if not covers(rows, session, step):
            snapshots.drop(step)
    steps = len(journal)
    if session.optimizer.replays_from != "losses":
        steps = _checkpoint(session, journal, snapshots, rows)
        rows = [row for row in rows if row["steps"] <= steps]
    folder.replace_metrics(rows)
    return Earlier(rows, steps, notes)


def _checkpoint(
    session: Session, journal: Journal | Copy, snapshots: Snapshots, rows: list[dict[str, Any]]
) -> int:
    """Returns the step of the newest snapshot from which the run can resume, or 0; removes newer ones.

    With select=best, the snapshot of the best weights so far must be there too, because losses cannot rebuild them.
    """
    while (step := snapshots.newest_step(len(journal), journal.digest)) is not None:
        evaluations = [row for row in rows if row["kind"] == "dev" and row["steps"] <= step]
        best = max(evaluations, key=lambda row: rank_key(row["value"], row["loss"]), default=None)
        if session.config.select != "best" or best is None or snapshots.has(best["steps"], journal.digest):
            break
        snapshots.drop(step)
    snapshots.drop_from(step or 0)
    return step or 0


def replayed(session: Session, journal: Journal | Copy, snapshots: Snapshots, steps: int) -> Session:
    """Returns the session, which was just built, with its weights after `steps` recorded steps; no forward passes.

    Raises DataError for a first-order run without a snapshot of that step.
    """
    optimizer = session.optimizer
    if optimizer.replays_from == "losses":
        with suppress(Diverged):  # the last losses of a diverged run, which made no move
            train(optimizer, session.look, session.batch, steps, journal=journal)
        return session
    newest = snapshots.newest(steps)
    if newest is None or newest[0] != steps:
        raise DataError(
            f"The weights after {steps} steps of {session.method} were not kept: no snapshot of them is left."
        )
    load_snapshot(optimizer, newest[1])
    return session
