"""The processes of a run that was started several times over: torchrun, or the tasks of srun.

Rank 0 writes all files and prints. Warnings, errors and tracebacks of the others go to stderr, with the rank before
every line.
"""

import io
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console

from experiments.config.model_config import ModelConfig
from experiments.config.run_config import RunConfig
from experiments.display.console import new_console
from zo.errors import ConfigError
from zo.rank_env import RankInfo, devices_of, rank_info
from zo.team import Solo, Team


class Named(io.TextIOBase):
    """A stream that begins each line with a name."""

    def __init__(self, stream: TextIO, name: str):
        self._stream = stream
        self._name = name
        self._at_line_start = True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self._stream.write(f"{self._name}: {line}" if self._at_line_start else line)
            self._at_line_start = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return False


def name_stderr() -> None:
    """Prefixes every further line of this process's stderr with its rank, unless it is the first."""
    rank = rank_info(os.environ).rank
    if rank and not isinstance(sys.stderr, Named):
        sys.stderr = Named(sys.stderr, f"rank {rank}")


def team_of(config: RunConfig) -> Team:
    """Returns the team of the processes that the environment names; entering it as a context joins them."""
    here, ranks = rank_info(os.environ), config.ranks
    if here.size == 1:
        return Solo()
    gpus = gpus_of(config.model, here)
    if ranks.share is None:
        take_own_device(here, gpus)
        return Solo()
    from zo.distributed import Ranks

    name_stderr()
    return Ranks(
        here,
        share=ranks.share,
        check_every=ranks.check_every,
        backend=ranks.backend,
        timeout=ranks.timeout_seconds,
        gpus=gpus,
    )


def gpus_of(model: ModelConfig, here: RankInfo) -> int:
    """Returns how many GPUs each of several processes takes for itself; 0 if the configuration names the device.

    Raises ConfigError for a map from modules to devices, because all processes of a machine would use the same ones.
    """
    if isinstance(model.device_map, Mapping) and here.here > 1:
        raise ConfigError(
            f"model.device_map names devices, and {here.here} processes of this machine would all take the same. Take "
            "model.device_map=balanced, with which each has model.resources.gpus of its own."
        )
    if model.device not in ("auto", "cuda"):
        return 0
    return max(1, model.resources.gpus) if model.device_map is not None else 1


def take_own_device(here: RankInfo, gpus: int) -> None:
    """Makes `cuda` mean the first of this process's own GPUs; for runs that share nothing."""
    import torch

    if gpus and (devices := devices_of(here, torch.cuda.device_count(), gpus)):
        torch.cuda.set_device(devices[0])


def console_of(team: Team) -> Console:
    """Returns a console that prints on rank 0 and is silent on the others."""
    return new_console(quiet=not team.leads)
