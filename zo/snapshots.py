"""Saves weights and optimizer state, for runs whose whole journal would take long to replay.

A snapshot is two files: step-<t>.pt, and a card step-<t>.json with its SHA-256, which is written last. Each file is
written under another name and renamed, so a process that is killed while saving leaves the older snapshot valid. The
card also holds the digest of the journal's records up to the snapshot (zo.Journal.digest). If a journal was cut and
continued differently, snapshots of its old records may still exist; their digest shows that they are not of this run.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zo.errors import JournalError

_CARD = re.compile(r"step-(\d{8,})\.json")


class Snapshots:
    """The snapshots in one folder; keeps the newest `keep` and the one of step `pinned`."""

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2):
        self.folder = Path(folder)
        self.keep = keep
        self.pinned: int | None = None
        # Cached, because reading a large payload for its digest takes long.
        self._whole: dict[int, bool] = {}

    def steps(self) -> list[int]:
        """Returns the steps of the complete snapshots, ascending; files with other names do not count."""
        names = (_CARD.fullmatch(path.name) for path in self.folder.glob("step-*.json"))
        return sorted(int(name[1]) for name in names if name)

    def save(self, step: int, state: dict[str, Tensor], journal: str | None = None) -> None:
        """Writes the state after `step` steps, then removes all but the newest `keep`.

        journal: digest of the records up to here. Raises JournalError when the snapshot cannot be written; older ones
        stay.
        """
        payload, card = self._paths(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            temporary = payload.with_suffix(f".{os.getpid()}.tmp")
            torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, temporary)
            text = json.dumps({"step": step, "sha256": _sha256(temporary), "journal": journal})
            _settle(temporary, payload)
            temporary = card.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(text, encoding="utf-8")
            _settle(temporary, card)
            self._whole.pop(step, None)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            with suppress(OSError):
                self._sweep()
            raise JournalError(
                f"The snapshot {payload} could not be written: {error}. Free space and run again."
            ) from error
        for old in self.steps()[: -self.keep]:
            if old != self.pinned:
                self.drop(old)

    def _sweep(self) -> None:
        """Removes files that a process left when it was killed while saving; only one process writes at a time."""
        leftovers = list(self.folder.glob("step-*.tmp"))
        leftovers += [
            path for path in self.folder.glob("step-*.pt") if not path.with_suffix(".json").exists()
        ]
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)

    def newest_step(self, limit: int, digest: Callable[[int], str] | None = None) -> int | None:
        """Returns the step of the newest whole snapshot of this run up to step `limit`, or None.

        digest: gives the digest of the journal's first records. Cards of older versions hold none and always match.
        """
        steps = [step for step in self.steps() if step <= limit]
        return next((step for step in reversed(steps) if self.has(step, digest)), None)

    def has(self, step: int, digest: Callable[[int], str] | None = None) -> bool:
        """Returns True if there is a whole snapshot of this step that belongs to the journal of the digest."""
        belongs = digest is None or self.journal_of(step) in (None, digest(step))
        return belongs and self._is_whole(step)

    def newest(
        self, limit: int, digest: Callable[[int], str] | None = None
    ) -> tuple[int, dict[str, Tensor]] | None:
        """Returns (step, state) of the snapshot of `newest_step`, or None."""
        step = self.newest_step(limit, digest)
        return None if step is None else (step, torch.load(self._paths(step)[0], weights_only=True))

    def journal_of(self, step: int) -> str | None:
        """Returns the digest of the journal's records up to a snapshot, or None if its card holds none."""
        digest = _card(self._paths(step)[1]).get("journal")
        return digest if isinstance(digest, str) else None

    def _is_whole(self, step: int) -> bool:
        if step not in self._whole:
            payload, card = self._paths(step)
            self._whole[step] = payload.exists() and _sha256(payload) == _card(card).get("sha256")
        return self._whole[step]

    def drop_from(self, step: int, digest: Callable[[int], str] | None = None) -> None:
        """Removes the snapshots beyond `step`, and with a `digest` those of other journals."""
        for other in self.steps():
            if other > step or (digest is not None and self.journal_of(other) not in (None, digest(other))):
                self.drop(other)

    def drop(self, step: int) -> None:
        """Removes a snapshot, its card first."""
        payload, card = self._paths(step)
        try:
            card.unlink(missing_ok=True)
            payload.unlink(missing_ok=True)
        except OSError as error:
            raise JournalError(f"The snapshot {payload} could not be removed: {error.strerror}.") from error
        self._whole.pop(step, None)

    def _paths(self, step: int) -> tuple[Path, Path]:
        return self.folder / f"step-{step:08d}.pt", self.folder / f"step-{step:08d}.json"


def _settle(temporary: Path, path: Path) -> None:
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _card(path: Path) -> dict[str, Any]:
    """Returns the contents of a card, or an empty dict if it is damaged."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
