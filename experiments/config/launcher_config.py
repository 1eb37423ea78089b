"""What a user chooses about where runs go: conf/launcher and conf/cluster. Frozen, checked when made, light."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from experiments.config.parsing import check


@dataclass(frozen=True)
class Local:
    """Runs on this machine, `parallel` at once, each with its own GPUs where there are any.

    threads: of the CPU, a run; null shares the cores out.
    """

    name: Literal["local"]
    parallel: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        check(self.parallel >= 1, f"launcher.parallel={self.parallel}: it is at least 1.")
        check(
            self.threads is None or self.threads >= 1, f"launcher.threads={self.threads}: it is at least 1."
        )


@dataclass(frozen=True)
class Slurm:
    """Arrays of SLURM jobs, submitted by submitit. wait: until all have ended. requeues: of a run, at most."""

    name: Literal["slurm"]
    wait: bool = False
    requeues: int = 100

    def __post_init__(self) -> None:
        check(self.requeues >= 0, f"launcher.requeues={self.requeues}: it is at least 0.")


@dataclass(frozen=True)
class Cluster:
    """A site, in sbatch's words; null leaves a flag away, and gpus, mem, minutes to model.resources.

    gpus, mem: of one process, mem in GiB; a node gets `tasks` times as much. cpus: a task. nodes: of a run. tasks:
    processes on each node, which share the run. parallel: jobs of an array at once.
    max_array: jobs of an array. signal_seconds: from the signal to the end of the time. setup: shell lines before
    the run. python: what starts Python, such as a container's; null: this one. more: other flags of sbatch.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    gpus: int | None = None
    mem: int | None = None
    minutes: int | None = None
    cpus: int | None = None
    nodes: int = 1
    tasks: int = 1
    parallel: int = 64
    max_array: int = 1000
    signal_seconds: int = 120
    setup: Sequence[str] = ()
    python: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = {"gpus": 0, "mem": 1, "minutes": 1, "cpus": 1, "nodes": 1, "tasks": 1, "parallel": 1}
        least["max_array"] = 1
        low = [
            f"cluster.{spec.name}={value}: it is at least {least[spec.name]}."
            for spec in fields(self)
            if spec.name in least
            and (value := getattr(self, spec.name)) is not None
            and value < least[spec.name]
        ]
        if self.signal_seconds < 1:
            low.append(f"cluster.signal_seconds={self.signal_seconds}: it is at least 1.")
        check(not low, "\n".join(low))


LAUNCHERS = {"local": Local, "slurm": Slurm}
