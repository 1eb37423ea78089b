"""The journal of a run, the weights that it gives back, and what of the files beside it belongs to it."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.rundir.folder import RunFolder
from experiments.rundir.metric_rows import JOURNAL, rank_key
from experiments.training.recorder import covers
from experiments.training.session import Session
from zo.errors import DataError, Diverged
from zo.journal import Copy, Journal, opened
from zo.records import read_header
from zo.snapshots import Snapshots
from zo.team import Solo, Team
from zo.training import load_snapshot, train


def open_journal(
    session: Session, folder: RunFolder, team: Team | None = None, *, read_only: bool = False
) -> Journal | Copy:
    """The journal of the run, made or checked against the session and locked; all ranks but the first get a copy.

    read_only: it must be there, and nothing of it is changed.
    """
    team = team or Solo()
    header, losses = session.header(), session.optimizer.losses_per_step
    if (parts := team.parts(losses)) > 1:
        header["parts"] = parts  # into which batches are cut
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


def open_unchecked(path: Path) -> Journal:
    """The journal as a reader sees it, whatever run it is of: its own header says what it holds."""
    header = read_header(path)
    return Journal(path, header, header["losses"], with_lr=header["with_lr"], read_only=True)


@dataclass
class Earlier:
    """Rows and notes of earlier processes of a run that belong to its journal.

    rows: of metrics.jsonl. steps: that the journal holds. notes: sentences about what was removed.
    """

    rows: list[dict[str, Any]]
    steps: int
    notes: list[str] = field(default_factory=list)


def settle(
    session: Session, folder: RunFolder, journal: Journal | Copy, snapshots: Snapshots, team: Team
) -> Earlier:
    """Removes from a run's folder what does not belong to its journal; every rank gets what is left.

    A row or snapshot belongs to the journal if the records up to its step are those that it was written after. A
    snapshot is one to start from only if all rows up to it are there: what it skips is not made again.
    """
    earlier = team.first(lambda: _settle(session, folder, journal, snapshots))
    journal.truncate(earlier.steps)
    return earlier


def _settle(session: Session, folder: RunFolder, journal: Journal | Copy, snapshots: Snapshots) -> Earlier:
    notes: list[str] = []
    if isinstance(journal, Journal) and journal.created:
        folder.clear_beside()  # of a journal that was moved away
    rows, damaged = folder.rows_before_damage()
    if damaged is not None:
        notes.append(
            f"Line {damaged} of metrics.jsonl is damaged. The rows from there on are made again; the file as it was is "
            f"{folder.keep_damaged_metrics()}."
        )
    rows = [
        row
        for row in rows
        if row["kind"] != "after"  # of a process that died before it wrote the result
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
    """Returns the step of the newest snapshot from which the run can end as if undisturbed, or 0; newer ones go.

    With select=best that takes the best weights so far too, for losses cannot rebuild them.
    """
    while (step := snapshots.newest_step(len(journal), journal.digest)) is not None:
        looks = [row for row in rows if row["kind"] == "dev" and row["steps"] <= step]
        best = max(looks, key=lambda row: rank_key(row["value"], row["loss"]), default=None)
        if session.config.select != "best" or best is None or snapshots.has(best["steps"], journal.digest):
            break
        snapshots.drop(step)
    snapshots.drop_from(step or 0)
    return step or 0


def replayed(session: Session, journal: Journal | Copy, snapshots: Snapshots, steps: int) -> Session:
    """A session just built, taken to where it was after `steps` recorded steps: no forward pass.

    Raises DataError for a first-order run of which no snapshot of that step is left.
    """
    optimizer = session.optimizer
    if optimizer.replays_from == "losses":
        with suppress(Diverged):  # by the losses a run ended with, which made no move
            train(optimizer, session.look, session.batch, steps, journal=journal)
        return session
    found = snapshots.newest(steps)
    if found is None or found[0] != steps:
        raise DataError(
            f"The weights after {steps} steps of {session.method} were not kept: no snapshot of them is left."
        )
    load_snapshot(optimizer, found[1])
    return session
