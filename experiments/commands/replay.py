"""Rebuilds weights from the base model, the configuration and the losses in a run's journal."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.config.saved import load_config
from experiments.config.trusted import check_targets
from experiments.display.console import new_console
from experiments.rundir.folder import RunFolder
from experiments.training import saving
from experiments.training.resume import open_journal, replayed
from experiments.training.session import Session, build
from zo.errors import ConfigError, JournalError
from zo.journal import Copy, Journal, open_unchecked
from zo.snapshots import Snapshots
from zo.training import path_lengths


def replay(path: Path, steps: int | None, lengths: Path | None = None, allowed: Sequence[str] = ()) -> int:
    """Rebuilds and prints the digest; 1 when it is not the one the run reported.

    lengths: a JSON file to write with ‖θ_{t+1} − θ_t‖ of every step, which optimizer.record of MeZO-switch takes.
    allowed: modules beside zo's own that the run's configuration may name.
    """
    if lengths is not None:
        return _measure(path, steps, lengths, allowed)
    session, steps, seconds = _rebuilt(path, steps, allowed)
    folder, console = RunFolder(path, writes=False), new_console()
    digest = session.optimizer.weights.sha256()
    console.print(
        f"{steps:,} steps replayed in {seconds:.1f} s with {session.look.forward_passes} forward passes.\n"
        f"sha256 {digest}", soft_wrap=True,
    )  # fmt: skip
    result = folder.result()
    reported = (
        {}
        if result is None
        else {result["steps"]: result["last_sha256"], result["selected_step"]: result["model_sha256"]}
    )
    if steps not in reported:
        return 0
    same = reported[steps] == digest
    console.print("The bits are those of the run." if same else f"The run reported {reported[steps]}.")
    return 0 if same else 1


def export(path: Path, steps: int | None, out: Path, allowed: Sequence[str] = ()) -> int:
    """Rebuilds and writes the model folder."""
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"--out {out} holds files already. Give a folder that is empty or not there yet.")
    session, steps, _ = _rebuilt(path, steps, allowed)
    saving.save(session.loaded, out)
    new_console().print(f"The model after {steps:,} steps is in {out}.", soft_wrap=True)
    return 0


def cut(path: Path) -> int:
    """Cuts a journal before its damaged record, so that the run can go on from there; the old file is kept."""
    folder = RunFolder(path)
    with folder.locked(), open_unchecked(folder.journal) as journal:
        if journal.damage is None:
            raise ConfigError(
                f"{folder.journal} has no damaged record with whole ones behind it: nothing is to be cut."
            )
        kept = folder.journal.with_name(f"journal.damaged-{time.time_ns()}")
        shutil.copy2(folder.journal, kept)
        os.truncate(folder.journal, journal.bytes)
        new_console().print(
            f"{len(journal):,} steps are left. Rerun the run's command to resume there; it removes the rows and "
            f"snapshots of the steps that are cut. The whole file as it was is {kept}.", soft_wrap=True,
        )  # fmt: skip
    return 0


def _check_whole(journal: Journal | Copy, wanted: int, requested: int | None) -> None:
    """Raises JournalError if a record before the wanted steps is damaged, or any is and no number was given."""
    damage = journal.damage if isinstance(journal, Journal) else None
    if damage is not None and (requested is None or wanted > len(journal)):
        raise JournalError(damage)


def _built(path: Path, allowed: Sequence[str]) -> tuple[Session, RunFolder]:
    """The session of a run's folder, which may be another's, at its first step."""
    config = load_config(path)
    check_targets(config, allowed)
    if allowed:
        sys.path.append(os.getcwd())  # behind all that is installed; see experiments.__init__
    return build(config), RunFolder(path, writes=False)


def _measure(path: Path, steps: int | None, out: Path, allowed: Sequence[str]) -> int:
    """Takes the recorded steps again and writes how long each was."""
    session, folder = _built(path, allowed)
    if session.optimizer.replays_from != "losses":
        raise ConfigError(f"--lengths: the steps of {session.method} cannot be taken again from its losses.")
    with open_journal(session, folder, read_only=True) as journal:
        wanted = len(journal) if steps is None else min(steps, len(journal))
        _check_whole(journal, wanted if steps is None else steps, steps)
        lengths = path_lengths(session.optimizer, journal, wanted)
    out.write_text(json.dumps(lengths), encoding="utf-8")
    new_console().print(
        f"{wanted:,} steps, a path of length {math.fsum(lengths):.6g}; each step's is in {out}.",
        soft_wrap=True,
    )  # fmt: skip
    return 0


def _rebuilt(path: Path, steps: int | None, allowed: Sequence[str]) -> tuple[Session, int, float]:
    """The session after `steps` steps (default: those of the reported weights), and the seconds it took."""
    session, folder = _built(path, allowed)
    with open_journal(session, folder, read_only=True) as journal:
        result = folder.result()
        reported = len(journal) if result is None else int(result["selected_step"])
        wanted = reported if steps is None else steps
        _check_whole(journal, wanted, steps if result is None else wanted)
        if not 0 <= wanted <= len(journal):
            raise ConfigError(f"--steps {wanted}: the journal of {path} holds steps 0 to {len(journal)}.")
        began = time.monotonic()
        return (
            replayed(session, journal, Snapshots(folder.snapshots), wanted),
            wanted,
            time.monotonic() - began,
        )
