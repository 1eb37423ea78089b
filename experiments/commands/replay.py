"""Weights from a run's journal: the base model, the configuration and the told losses are all it takes."""

import json
import math
import time
from pathlib import Path

from experiments.config.saved import load_config
from experiments.display.console import new_console
from experiments.rundir.folder import RunFolder
from experiments.training import saving
from experiments.training.resume import open_journal, replayed
from experiments.training.session import Session, build
from zo.errors import ConfigError
from zo.snapshots import Snapshots
from zo.training import path_lengths


def replay(path: Path, steps: int | None, lengths: Path | None = None) -> int:
    """Rebuilds and prints the digest; 1 when it is not the one the run reported.

    lengths: a JSON file to write with ‖θ_{t+1} − θ_t‖ of every step, which optimizer.record of MeZO-switch takes.
    """
    if lengths is not None:
        return _measure(path, steps, lengths)
    session, steps, seconds = _rebuilt(path, steps)
    folder, console = RunFolder(path), new_console()
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


def export(path: Path, steps: int | None, out: Path) -> int:
    """Rebuilds and writes the model folder."""
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"--out {out} holds files already. Give a folder that is empty or not there yet.")
    session, steps, _ = _rebuilt(path, steps)
    saving.save(session.loaded, out)
    new_console().print(f"The model after {steps:,} steps is in {out}.", soft_wrap=True)
    return 0


def _measure(path: Path, steps: int | None, out: Path) -> int:
    """Takes the recorded steps again and writes how long each was."""
    session, folder = build(load_config(path)), RunFolder(path)
    if session.optimizer.replays_from != "losses":
        raise ConfigError(f"--lengths: the steps of {session.method} cannot be taken again from its losses.")
    with open_journal(session, folder) as journal:
        wanted = len(journal) if steps is None else min(steps, len(journal))
        found = path_lengths(session.optimizer, journal, wanted)
    out.write_text(json.dumps(found))
    new_console().print(
        f"{wanted:,} steps, a path of length {math.fsum(found):.6g}; each step's is in {out}.",
        soft_wrap=True,
    )  # fmt: skip
    return 0


def _rebuilt(path: Path, steps: int | None) -> tuple[Session, int, float]:
    """The session after `steps` steps (default: those of the reported weights), and the seconds it took."""
    session, folder = build(load_config(path)), RunFolder(path)
    with open_journal(session, folder) as journal:
        result = folder.result()
        reported = len(journal) if result is None else int(result["selected_step"])
        wanted = reported if steps is None else steps
        if not 0 <= wanted <= len(journal):
            raise ConfigError(f"--steps {wanted}: the journal of {path} holds steps 0 to {len(journal)}.")
        began = time.monotonic()
        return (
            replayed(session, journal, Snapshots(folder.snapshots), wanted),
            wanted,
            time.monotonic() - began,
        )
