"""Tests the library alone: journals cut, damaged or continued differently; ranks that die; dtypes."""

import importlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import zo
from benchmarks.faults import child, start
from benchmarks.trials import Try
from zo.distributed import Ranks
from zo.journal import Journal, opened
from zo.rank_env import RankInfo
from zo.snapshots import Snapshots

YAMLS = sorted((Path(__file__).parents[1] / "conf" / "optimizer").glob("*.yaml"))
STEPS = 12


def _model(seed: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).float()


def _batch(t: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(t)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float32)
    return x, torch.randint(0, 3, (5,), generator=generator)


def _losses(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    x = batch[0].to(next(model.parameters()).dtype)
    return nn.functional.cross_entropy(model(x).float(), batch[1], reduction="none")


def _train(folder: Path, rate: float, every: float = 0.0, snapshots: bool = True, steps: int = STEPS) -> str:
    """Trains FZOO at a rate recorded in the journal, as under a budget of time; returns its weights' digest."""
    optimizer = zo.FZOO(model := _model(), lr=1e-2)
    with Journal(folder / "journal", {}, optimizer.losses_per_step, with_lr=True) as journal:
        zo.train(
            optimizer, zo.ModuleLook(model, _losses, optimizer), _batch, steps, journal=journal, rate=lambda t: rate,
            snapshots=Snapshots(folder / "snapshots") if snapshots else None, max_replay_seconds=every,
        )  # fmt: skip
    return optimizer.weights.sha256()


def futures(folder: Path) -> Iterator[Try]:
    """Cuts a journal after each record, continues at another rate, dies, and continues once more."""
    for kept in range(STEPS):
        for every in (0.0, 1e9):
            runs = folder / f"future-{kept}-{every:g}"
            runs.mkdir()
            _train(runs, 1e-2)
            with Journal(runs / "journal", {}, 9, with_lr=True) as journal:
                journal.truncate(kept)
            other = _train(runs, 3e-3, every)
            again, alone = _train(runs, 0.0), _train(runs, 0.0, snapshots=False)
            problem = None if other == again == alone else "weights of the future that was cut"
            yield Try("two futures of a cut journal", f"cut to {kept}, snapshots every {every:g} s", problem)


def journals(folder: Path) -> Iterator[Try]:
    """Cuts a journal at every third byte or flips a bit: it must give the same weights, or an error and no change."""
    folder = folder / "journals"
    folder.mkdir()
    whole = _train(folder, 1e-2, snapshots=False)
    path = folder / "journal"
    content = path.read_bytes()
    for at in range(0, len(content), 3):
        for name, data in (("cut", content[:at]), ("a bit flipped", _flipped(content, at))):
            path.write_bytes(data)
            try:
                reached = _train(folder, 1e-2, snapshots=False)
                problem = None if reached == whole else "other weights"
            except zo.JournalError:
                problem = None if path.read_bytes() == data else "a journal that was refused has changed"
            yield Try(f"journal, {name}", f"at byte {at}", problem)


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 8]) + content[at + 1 :]


def ranks(folder: Path) -> Iterator[Try]:
    """Runs two processes on one run and kills one: the other stops, and one process resumes to the same bits."""
    alone = folder / "alone"
    alone.mkdir()
    solo = _shared(alone, None)()
    for number in range(4):
        runs = folder / f"ranks-{number}"
        runs.mkdir()
        port = _port()
        pids = [start(_shared(runs, (rank, port))) for rank in (0, 1)]
        while not (runs / "begun").exists():
            time.sleep(0.01)
        os.kill(pids[number % 2], signal.SIGKILL)
        began, problem = time.monotonic(), None
        for pid in pids:
            os.waitpid(pid, 0)
        if time.monotonic() - began > 30:
            problem = "the other process did not end within 30 s"
        digest = runs / "digest"
        last = child(_shared(runs, None))
        if last.code != 0 or digest.read_text(encoding="utf-8") != (alone / "digest").read_text(
            encoding="utf-8"
        ):
            problem = problem or f"other weights than one process alone: {last.text[-200:]}"
        yield Try("dead ranks", f"rank {number % 2} killed", problem)
    assert solo == 0


def _shared(folder: Path, rank: tuple[int, int] | None) -> Callable[[], int]:
    """Runs a process of a run: alone, or one of two."""

    def task() -> int:
        if rank is None:
            return _steps(folder, None)
        with Ranks(RankInfo(rank[0], 2, rank[0], 2, "127.0.0.1", rank[1]), timeout=20.0) as team:
            return _steps(folder, team)

    return task


def _steps(folder: Path, team: Any) -> int:
    optimizer = zo.FZOO(model := _model(), lr=1e-2)

    def file() -> Journal:
        return Journal(folder / "journal", {}, optimizer.losses_per_step)

    def on_step(t: int, seen: dict[str, float], replayed: bool) -> None:
        if t == 3 and team is not None:
            (folder / "begun").touch()
        if t > 3 and team is not None:
            time.sleep(0.05)

    with file() if team is None else opened(team, file) as journal:
        zo.train(
            optimizer,
            zo.ModuleLook(model, _losses, optimizer),
            _batch,
            40,
            journal=journal,
            team=team,
            on_step=on_step,
        )
    if team is None:
        (folder / "digest").write_text(optimizer.weights.sha256(), encoding="utf-8")
    return 0


def _port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def dtypes() -> Iterator[Try]:
    """Compares every method under torch's default dtype float64 with float32, and after load_state_dict in bfloat16."""
    for path in YAMLS:
        arguments = yaml.safe_load(path.read_text(encoding="utf-8"))
        module, _, name = arguments.pop("_target_").rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        if not issubclass(kind, zo.optimizers.Optimizer) or module.startswith("experiments"):
            continue
        plain = {key: value for key, value in arguments.items() if not str(value).startswith("${")}
        if "record" in plain and plain["record"] is None:
            continue  # MeZO-switch needs a file
        plain = {key: float(value) if _is_number(value) else value for key, value in plain.items()}
        yield Try("torch's default dtype is float64", path.stem, _default_dtype(kind, plain))
        yield Try("load_state_dict after construction", path.stem, _loaded_later(kind, plain))


def _is_number(value: Any) -> bool:
    """Returns True for numbers, also as text: YAML 1.1 reads 1e-3 as a string."""
    return isinstance(value, str) and value[:1].isdigit()


def _default_dtype(kind: Any, arguments: dict[str, Any]) -> str | None:
    digests = []
    before = torch.get_default_dtype()
    for dtype in (torch.float32, torch.float64):
        model = _model()
        torch.set_default_dtype(dtype)
        try:
            optimizer = kind(model, **arguments)
            zo.train(optimizer, zo.ModuleLook(model, _losses, optimizer), _batch, 3)
            digests.append(optimizer.weights.sha256())
        except (RuntimeError, ValueError, TypeError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        finally:
            torch.set_default_dtype(before)
    return None if digests[0] == digests[1] else "other bits"


def _loaded_later(kind: Any, arguments: dict[str, Any]) -> str | None:
    """Compares torch's usual order (construct, load, train) with load, construct, train."""
    digests = []
    for late in (False, True):
        model, other = _model(1).bfloat16(), _model(2).bfloat16()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.5)
        if not late:
            model.load_state_dict(other.state_dict())
        try:
            optimizer = kind(model, **arguments)
            look = zo.ModuleLook(model, _losses, optimizer)
            if late:
                model.load_state_dict(other.state_dict())
            zo.train(optimizer, look, _batch, 3)
        except zo.ConfigError:
            return None  # refused, with a sentence
        except (RuntimeError, ValueError, TypeError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        digests.append(optimizer.weights.sha256())
    return None if digests[0] == digests[1] else "what was loaded is not what is trained"
