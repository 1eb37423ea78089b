"""Declares the sections that do not depend on model, task or optimizer. Frozen, light to import."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from experiments.config.key import LARGE, MANY, UNHASHED, key
from experiments.config.parsing import check, check_values


@dataclass(frozen=True)
class Seeds:
    """Seeds of the parts of a run; null follows `seed`."""

    split: Annotated[
        int | None,
        key("Seed that draws the examples of train and dev, and so the demonstrations.", ge=0, lt=2**32),
    ] = None
    test: Annotated[int | None, key("Seed that draws the examples of test.", ge=0, lt=2**32)] = 0
    order: Annotated[int | None, key("Seed of the order of training examples.", ge=0, lt=2**32)] = None
    init: Annotated[
        int | None, key("Seed of new parameters: adapters, a classifier's head.", ge=0, lt=2**32)
    ] = None
    directions: Annotated[
        int | None, key("Seed of random directions and of stochastic rounding.", ge=0, lt=2**32)
    ] = None
    dropout: Annotated[int | None, key("Seed of dropout in first-order methods.", ge=0, lt=2**32)] = None

    def __post_init__(self) -> None:
        check_values(self, "seeds")


@dataclass(frozen=True)
class Budget:
    """The length of training; exactly one is set, and one on the command line replaces that of the files."""

    steps: Annotated[int | None, key("Training steps.", ge=1, le=MANY)] = None
    forward_passes: Annotated[
        int | None, key("Forward passes of training; a backward pass counts as three.", ge=1, le=10**12)
    ] = None
    minutes: Annotated[
        float | None,
        key("Minutes of training and evaluation; such runs are not bit-reproducible.", gt=0, le=MANY),
    ] = None

    def __post_init__(self) -> None:
        check_values(self, "budget")
        given = [name for name in ("steps", "forward_passes", "minutes") if getattr(self, name) is not None]
        state = f"{' and '.join(given)} are set" if given else "none is set"
        check(
            len(given) == 1,
            f"budget: exactly one of steps, forward_passes and minutes is set, the others are null; {state}.",
        )


@dataclass(frozen=True)
class Batch:
    """The size of a batch and of its micro-batches."""

    size: Annotated[int, key("Examples per step.", ge=1, le=LARGE)] = 16
    micro: Annotated[int | None, key("Examples per forward pass; null: the whole batch.", ge=1, le=LARGE)] = (
        None
    )
    skip_padding: Annotated[
        bool, key("Leave padded positions out of matrix products; losses change by rounding."), UNHASHED
    ] = True

    def __post_init__(self) -> None:
        check_values(self, "batch")


@dataclass(frozen=True)
class Evaluate:
    """Evaluation on dev and test."""

    batch: Annotated[int, key("Examples per forward pass in evaluation.", ge=1, le=LARGE)] = 64

    def __post_init__(self) -> None:
        check_values(self, "evaluate")


@dataclass(frozen=True)
class Stop:
    """Sets when dev is evaluated, and when training ends early."""

    every: Annotated[
        int | None, key("Steps between evaluations on dev; null: a tenth of the run.", ge=1, le=MANY)
    ] = None
    patience: Annotated[
        int | None,
        key("Evaluations without improvement before the run stops; null: never stop early.", ge=1, le=MANY),
    ] = None
    by: Annotated[Literal["metric", "loss"], key("What patience compares on dev.")] = "metric"
    on_nan: Annotated[Literal["stop", "skip"], key("What to do when a loss is not finite.")] = "stop"

    def __post_init__(self) -> None:
        check_values(self, "stop")


@dataclass(frozen=True)
class Checkpoint:
    """Snapshots of the weights beside the journal."""

    max_replay_minutes: Annotated[
        float,
        key(
            "Take a snapshot when replaying the journal would take longer than this, in minutes.",
            gt=0,
            le=MANY,
        ),
    ] = 10.0
    accept: Annotated[Sequence[str], key("Lines of the journal's header that may differ on resume.")] = ()

    def __post_init__(self) -> None:
        check_values(self, "checkpoint")


@dataclass(frozen=True)
class Ranks:
    """Sets how several processes share a run."""

    share: Annotated[
        Literal["probes", "batch", "both"] | None,
        key(
            "What the processes divide; probes: same bits as one process; null: each process is a run of its own."
        ),
    ] = "probes"
    check_every: Annotated[
        int, key("Steps between comparisons of the processes' weights.", ge=1, le=MANY)
    ] = 100
    backend: Annotated[Literal["auto", "gloo", "nccl"], key("Backend of torch.distributed.")] = "auto"
    timeout_seconds: Annotated[float, key("Seconds to wait for another process.", gt=0, le=MANY)] = 600.0

    def __post_init__(self) -> None:
        check_values(self, "ranks")


@dataclass(frozen=True)
class Paths:
    """The folders of runs and models."""

    runs: Annotated[str, key("Folder of all runs.")] = "runs"
    models: Annotated[str, key("Folder for models that prefetch converts.")] = "models"
