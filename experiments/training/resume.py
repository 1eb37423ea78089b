"""The journal of a run, and the weights that it gives back."""

import json
from contextlib import suppress

from experiments.rundir.folder import RunFolder
from experiments.training.session import Session
from zo.errors import DataError, Diverged
from zo.journal import Copy, Journal, opened
from zo.snapshots import Snapshots
from zo.team import Solo, Team
from zo.training import load_snapshot, train


def open_journal(session: Session, folder: RunFolder, team: Team | None = None) -> Journal | Copy:
    """The journal of the run, made or checked against the session and locked; all ranks but the first get a copy."""
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
            with_lr=session.config["budget"]["minutes"] is not None,
            accept=session.config["checkpoint"]["accept"],
        ),
    )


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
