"""Snapshots of weights and optimizer state, for when replaying the whole journal would take long.

A snapshot is two files: step-<t>.pt, and step-<t>.json with its SHA-256, written last. Either is written
beside its name and moved there, so a process killed while saving leaves the older snapshot valid.
"""

import hashlib
import json
import os
from pathlib import Path

import torch
from torch import Tensor

from zo.errors import JournalError


class Snapshots:
    """The snapshots in one folder; the newest `keep` stay, and the one of step `pinned`."""

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2):
        self.folder = Path(folder)
        self.keep = keep
        self.pinned: int | None = None

    def steps(self) -> list[int]:
        """Steps of which a snapshot is complete, ascending."""
        return sorted(int(path.stem.removeprefix("step-")) for path in self.folder.glob("step-*.json"))

    def save(self, step: int, state: dict[str, Tensor]) -> None:
        """Writes the state after `step` steps, then drops the oldest beyond `keep`.

        Raises JournalError when it cannot be written; older snapshots stay.
        """
        payload, card = self._paths(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            temporary = payload.with_suffix(f".{os.getpid()}.tmp")
            torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, temporary)
            text = json.dumps({"step": step, "sha256": _sha256(temporary)})
            _settle(temporary, payload)
            temporary = card.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(text)
            _settle(temporary, card)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            self._sweep()
            raise JournalError(
                f"The snapshot {payload} could not be written: {error}. Free space and run again."
            ) from error
        for old in self.steps()[: -self.keep]:
            if old != self.pinned:
                self.drop(old)

    def _sweep(self) -> None:
        """Removes what a process that was killed while saving left behind; a run has one process at a time."""
        leftovers = list(self.folder.glob("step-*.tmp"))
        leftovers += [
            path for path in self.folder.glob("step-*.pt") if not path.with_suffix(".json").exists()
        ]
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)

    def newest(self, limit: int) -> tuple[int, dict[str, Tensor]] | None:
        """(step, state) of the newest snapshot of at most `limit` steps whose digest is right, or None."""
        for step in reversed([step for step in self.steps() if step <= limit]):
            payload, card = self._paths(step)
            if payload.exists() and _sha256(payload) == _digest_of(card):
                return step, torch.load(payload, weights_only=True)
        return None

    def drop(self, step: int) -> None:
        """Removes a snapshot, its card first."""
        payload, card = self._paths(step)
        card.unlink(missing_ok=True)
        payload.unlink(missing_ok=True)

    def _paths(self, step: int) -> tuple[Path, Path]:
        return self.folder / f"step-{step:08d}.pt", self.folder / f"step-{step:08d}.json"


def _settle(temporary: Path, path: Path) -> None:
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _digest_of(card: Path) -> str | None:
    """The digest a card states, or None if it is damaged."""
    try:
        return json.loads(card.read_text())["sha256"]
    except (ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
