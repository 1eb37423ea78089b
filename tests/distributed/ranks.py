"""Processes that are ranks of one run: forked, so that torch is imported once."""

import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.train import forking
from zo import Ranks
from zo.rank_env import RankInfo


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(size: int, folder: Path, task: Callable[[Ranks], Any], **options: Any) -> list[int]:
    """Starts `task(team)` on every rank; what it returns, or the error it raised, lies in `folder`."""
    port = free_port()

    def rank(number: int) -> None:
        place = RankInfo(number, size, number, size, "127.0.0.1", port)
        began = time.monotonic()
        try:
            with Ranks(place, **{"timeout": 60.0, **options}) as team:
                made = task(team)
        except Exception as error:
            traceback.print_exc()
            made = {"error": type(error).__name__, "message": str(error)}
        torch.save({"made": made, "seconds": time.monotonic() - began}, folder / f"rank{number}")

    return [forking.start(lambda number=number: rank(number)) for number in range(size)]


def results(folder: Path, pids: list[int]) -> list[Any]:
    """What every rank made; None for one that was killed."""
    for pid in pids:
        os.waitpid(pid, 0)
    paths = [folder / f"rank{number}" for number in range(len(pids))]
    return [torch.load(path)["made"] if path.exists() else None for path in paths]


def run(size: int, folder: Path, task: Callable[[Ranks], Any], **options: Any) -> list[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return results(folder, start(size, folder, task, **options))
