"""Configuration of launchers (conf/launcher, conf/cluster): frozen, checked on construction, light to import."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from experiments.config.key import MANY, key
from experiments.config.parsing import check_values


@dataclass(frozen=True)
class Local:
    """Runs on this machine, each with its own GPUs where there are any."""

    name: Annotated[Literal["local"], key("Name of the launcher.")]
    parallel: Annotated[int, key("Runs at the same time.", ge=1, le=4096)] = 1
    threads: Annotated[
        int | None, key("CPU threads per run; null divides the cores among the runs.", ge=1, le=65_536)
    ] = None
    fork: Annotated[
        bool, key("Runs without GPUs are forks of one process, which imports once; false: each imports anew.")
    ] = True

    def __post_init__(self) -> None:
        check_values(self, "launcher")


@dataclass(frozen=True)
class Slurm:
    """Arrays of SLURM jobs, submitted by submitit."""

    name: Annotated[Literal["slurm"], key("Name of the launcher.")]
    wait: Annotated[bool, key("Wait until all runs have ended.")] = False
    requeues: Annotated[int, key("Most times that a run is requeued.", ge=0, le=MANY)] = 100

    def __post_init__(self) -> None:
        check_values(self, "launcher")


@dataclass(frozen=True)
class Cluster:
    """A site, in sbatch's words; null leaves a flag away, and gpus, mem, minutes to model.resources.

    GPUs and memory are of one process; a node gets `tasks` times as much.
    """

    partition: Annotated[str | None, key("Partition.")] = None
    account: Annotated[str | None, key("Account.")] = None
    qos: Annotated[str | None, key("Quality of service.")] = None
    constraint: Annotated[str | None, key("Features that a node must have.")] = None
    exclude: Annotated[str | None, key("Nodes to avoid.")] = None
    nodelist: Annotated[str | None, key("Nodes to use.")] = None
    gpus: Annotated[int | None, key("GPUs per process; null: as in model.resources.", ge=0, le=4096)] = None
    mem: Annotated[
        int | None, key("GiB of memory per process; null: as in model.resources.", ge=1, le=MANY)
    ] = None
    minutes: Annotated[
        int | None, key("Minutes of wall clock; null: as in model.resources.", ge=1, le=MANY)
    ] = None
    cpus: Annotated[int | None, key("CPUs per task.", ge=1, le=MANY)] = None
    nodes: Annotated[int, key("Nodes per run.", ge=1, le=MANY)] = 1
    tasks: Annotated[int, key("Processes per node, which share the run.", ge=1, le=4096)] = 1
    parallel: Annotated[int, key("Jobs of an array that run at the same time.", ge=1, le=MANY)] = 64
    max_array: Annotated[
        int, key("Most jobs in an array; more runs become several arrays.", ge=1, le=MANY)
    ] = 1000
    signal_seconds: Annotated[
        int, key("Seconds between SLURM's signal and the end of the job's time.", ge=1, le=MANY)
    ] = 120
    setup: Annotated[Sequence[str], key("Shell lines to execute before the run.")] = ()
    python: Annotated[
        str | None, key("Command that starts Python, such as a container's; null: this Python.")
    ] = None
    more: Annotated[Mapping[str, Any], key("Other flags of sbatch.")] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_values(self, "cluster")


Launcher = Local | Slurm
LAUNCHERS: dict[str, type[Launcher]] = {"local": Local, "slurm": Slurm}
