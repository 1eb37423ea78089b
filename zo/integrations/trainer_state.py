"""Keeps a ZOTrainer on disk: its journal in the output folder, and in each checkpoint a copy and a snapshot.

    output_dir/zo-journal                     every step so far; 4 bytes a loss, 12 a step
    output_dir/checkpoint-N/zo-journal        the same, up to step N at least
    output_dir/checkpoint-N/zo/step-N.pt      weights and the method's state, to the bit

A resumed run starts at the snapshot. Steps that were recorded after it are taken from the journal, without forward
passes, if the journal in the output folder is the one that the checkpoint was written from.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from zo.errors import JournalError
from zo.journal import Copy, Journal, open_unchecked, opened
from zo.optimizers import Optimizer
from zo.records import read_header
from zo.snapshots import Snapshots
from zo.team import Team
from zo.training import identity_of, load_snapshot, snapshot

JOURNAL = "zo-journal"
SNAPSHOTS = "zo"


def header_of(optimizer: Optimizer, options: dict[str, Any]) -> dict[str, Any]:
    """Returns what a run is, on which its journal must agree: all that decides a step, but the losses and rates."""
    return {
        "method": type(optimizer).__name__,
        "options": {name: repr(value) for name, value in sorted(options.items())},
        "update": optimizer.weights.update,
        **identity_of(optimizer),
    }


def open_journal(
    folder: Path, checkpoint: Path | None, step: int, header: dict[str, Any], losses: int, team: Team
) -> Journal | Copy:
    """Opens the journal of a run that starts at `step`; an earlier run's is kept under another name.

    checkpoint: the folder that the run is resumed from, or None. Its journal says how the run began, and that of the
    output folder is continued if it is the same up to `step`.
    """
    if checkpoint is not None:
        header = header | {"start": team.first(lambda: read_header(checkpoint / JOURNAL))["start"]}
    team.agree({name: json.dumps(value) for name, value in header.items()})

    def open_file() -> Journal:
        path = folder / JOURNAL
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint is None or _digest(path, step) != _digest(checkpoint / JOURNAL, step):
            _set_aside(path)
            if checkpoint is not None:
                shutil.copyfile(checkpoint / JOURNAL, path)
        return Journal(path, header, losses, with_lr=True)

    return opened(team, open_file)


def save_state(folder: Path, optimizer: Optimizer, journal: Journal | Copy, step: int) -> None:
    """Writes a checkpoint's snapshot and its copy of the journal."""
    snapshot(optimizer, Snapshots(folder / SNAPSHOTS, keep=1), step, journal)
    if isinstance(journal, Journal):
        shutil.copyfile(journal.path, folder / JOURNAL)


def load_state(folder: Path, optimizer: Optimizer, step: int) -> None:
    """Puts weights and method where they were when the checkpoint was written. Raises JournalError if it cannot."""
    found = Snapshots(folder / SNAPSHOTS).newest(step)
    if found is None or found[0] != step:
        raise JournalError(
            f"{folder} holds no state of zo after {step} steps: another trainer wrote it, or with save_only_model. "
            "Load its model with from_pretrained, and train without resume_from_checkpoint."
        )
    if Snapshots(folder / SNAPSHOTS).journal_of(step) != _digest(folder / JOURNAL, step):
        raise JournalError(
            f"The journal in {folder} is damaged, or not the one that its snapshot was written with. Resume from "
            "another checkpoint."
        )
    load_snapshot(optimizer, found[1])


def _digest(path: Path, steps: int) -> str | None:
    """Returns the digest of a journal's first steps; None where it is damaged, or has fewer."""
    if not path.is_file():
        return None
    try:
        with open_unchecked(path) as journal:
            return None if journal.damage or len(journal) < steps else journal.digest(steps)
    except JournalError:
        return None


def _set_aside(path: Path) -> None:
    """Renames an earlier run's journal to the first free of zo-journal.1, zo-journal.2, ..."""
    if path.exists():
        number = next(n for n in range(1, 1 << 20) if not path.with_name(f"{path.name}.{n}").exists())
        path.rename(path.with_name(f"{path.name}.{number}"))
