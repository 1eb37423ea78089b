"""Reads this process's rank from the environment that torchrun or SLURM's srun gave it.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. A task of srun has SLURM_PROCID,
SLURM_STEP_NUM_TASKS, SLURM_LOCALID and SLURM_STEP_NODELIST: the first node is where rank 0 is met, at a port
that follows from the job's and the step's number. A batch script outside srun is one process, whatever
--ntasks says.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zo.errors import ConfigError

_PORTS = (20000, 32000)  # below what Linux gives to outgoing connections


@dataclass(frozen=True)
class RankInfo:
    """rank of size processes, the local-th of those `here` on its machine; rank 0 listens at address:port."""

    rank: int = 0
    size: int = 1
    local: int = 0
    here: int = 1
    address: str = "127.0.0.1"
    port: int = 29500


def rank_info(environment: Mapping[str, str]) -> RankInfo:
    """The place in the environment; a process that nobody counted is rank 0 of 1.

    Raises ConfigError when the environment names several processes but not where they meet.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _torchrun(environment)
    if "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        return _slurm(environment)
    return RankInfo()


def _torchrun(environment: Mapping[str, str]) -> RankInfo:
    rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if size > 1 and "MASTER_PORT" not in environment:
        raise ConfigError(
            f"WORLD_SIZE = {size} announces several processes, but MASTER_ADDR and MASTER_PORT do not say where they "
            "meet. Start them with torchrun --nproc-per-node N PROGRAM ..., or unset WORLD_SIZE."
        )
    return RankInfo(
        rank,
        size,
        _number(environment, "LOCAL_RANK", rank),
        _number(environment, "LOCAL_WORLD_SIZE", size),
        environment.get("MASTER_ADDR", "127.0.0.1"),
        _number(environment, "MASTER_PORT", RankInfo.port),
    )


def _slurm(environment: Mapping[str, str]) -> RankInfo:
    """srun's own; MASTER_ADDR and MASTER_PORT are taken where someone has set them."""
    size = _number(environment, "SLURM_STEP_NUM_TASKS")
    one_node = environment.get("SLURM_STEP_NUM_NODES", "1") == "1"
    address = "127.0.0.1" if one_node else first_host(environment.get("SLURM_STEP_NODELIST", ""))
    low, high = _PORTS
    number = 64 * _number(environment, "SLURM_JOB_ID", 0) + _number(environment, "SLURM_STEP_ID", 0)
    return RankInfo(
        _number(environment, "SLURM_PROCID"),
        size,
        _number(environment, "SLURM_LOCALID", 0),
        _tasks_here(environment.get("SLURM_STEP_TASKS_PER_NODE", ""), size),
        environment.get("MASTER_ADDR", address),
        _number(environment, "MASTER_PORT", low + number % (high - low)),
    )


def devices_of(place: RankInfo, visible: int, each: int = 1) -> list[int]:
    """The GPUs that a process takes, of the `visible` ones: `each`, from its place on its machine on.

    A process that sees no more than `each` was given its own by what started it, and takes them. Raises ConfigError
    where processes would share some.
    """
    if visible >= place.here * each:
        return list(range(place.local * each, (place.local + 1) * each))
    if visible in (0, each):
        return list(range(visible))
    raise ConfigError(
        f"{place.here} processes here, each with {each} GPU{'s' * (each > 1)}, need {place.here * each} GPUs, of which "
        f"{visible} can be seen. Start {max(1, visible // each)}, or ask for more GPUs (cluster.gpus and "
        "model.resources.gpus are those of one process)."
    )


def shared_devices(everyone: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Pairs of ranks that take the same device; everyone: the names of the devices of each rank."""
    first: dict[str, int] = {}
    pairs = []
    for rank, names in enumerate(everyone):
        for name in names:
            other = first.setdefault(name, rank)
            if other != rank and (other, rank) not in pairs:
                pairs.append((other, rank))
    return pairs


def first_host(nodes: str) -> str:
    """The first name of a SLURM node list: gpu[03-05,09],login1 → gpu03."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if first is None:
        raise ConfigError(
            "SLURM_STEP_NODELIST is empty, so the tasks cannot find rank 0. Set MASTER_ADDR to its host."
        )
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def _tasks_here(tasks: str, size: int) -> int:
    """The most tasks that a machine has: 2(x3),1 → 2."""
    counts = [int(count) for count in re.findall(r"(\d+)(?:\(x\d+\))?", tasks)]
    return max(counts, default=size)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise ConfigError(f"The environment variable {name} = {text!r} must be a whole number.")
    return int(text)
