"""Declares the sections that every run has, whatever model, task and optimizer it takes. Frozen, light to import."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from experiments.config.key import LARGE, MANY, UNHASHED, key
from experiments.config.parsing import check, check_values


@dataclass(frozen=True)
class Seeds:
    """A number for each part of what a run draws; null follows `seed`."""

    split: Annotated[
        int | None, key("Which examples are train and dev, and so the demonstrations.", ge=0, lt=2**32)
    ] = None
    test: Annotated[int | None, key("Which examples are test.", ge=0, lt=2**32)] = 0
    order: Annotated[int | None, key("The order of the training examples.", ge=0, lt=2**32)] = None
    init: Annotated[int | None, key("New parameters: adapters, a classifier's head.", ge=0, lt=2**32)] = None
    directions: Annotated[
        int | None, key("Random directions, and the rounding of moves.", ge=0, lt=2**32)
    ] = None
    dropout: Annotated[int | None, key("Dropout of first-order methods.", ge=0, lt=2**32)] = None

    def __post_init__(self) -> None:
        check_values(self, "seeds")


@dataclass(frozen=True)
class Budget:
    """The length of training; exactly one is set, and one on the command line replaces that of the files."""

    steps: Annotated[int | None, key("Steps of training.", ge=1, le=MANY)] = None
    forward_passes: Annotated[
        int | None, key("Forward passes of training; a backward pass counts as three.", ge=1, le=10**12)
    ] = None
    minutes: Annotated[
        float | None, key("Minutes of training and evaluation; outside the promise of equal bits.", gt=0)
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
    """Examples a step, and how many of them go through the model at once."""

    size: Annotated[int, key("Examples a step.", ge=1, le=LARGE)] = 16
    micro: Annotated[int | None, key("Examples in the model at once; null: all.", ge=1, le=LARGE)] = None
    skip_padding: Annotated[
        bool,
        key("Whether linear layers leave padded positions out; losses differ by rounding."),
        UNHASHED,
    ] = True

    def __post_init__(self) -> None:
        check_values(self, "batch")


@dataclass(frozen=True)
class Evaluate:
    """Evaluation on dev and test."""

    batch: Annotated[int, key("Examples in the model at once when evaluating.", ge=1, le=LARGE)] = 64

    def __post_init__(self) -> None:
        check_values(self, "evaluate")


@dataclass(frozen=True)
class Stop:
    """Sets when dev is evaluated, and when training ends early."""

    every: Annotated[
        int | None, key("Steps between evaluations on dev; null: a tenth of the run.", ge=1, le=MANY)
    ] = None
    patience: Annotated[
        int | None, key("Evaluations without a better one that end the run; null: never.", ge=1, le=MANY)
    ] = None
    by: Annotated[Literal["metric", "loss"], key("What makes an evaluation on dev better, for patience.")] = (
        "metric"
    )
    on_nan: Annotated[Literal["stop", "skip"], key("What to do when a loss is no finite number.")] = "stop"

    def __post_init__(self) -> None:
        check_values(self, "stop")


@dataclass(frozen=True)
class Checkpoint:
    """Snapshots beside the journal."""

    max_replay_minutes: Annotated[
        float, key("A snapshot is taken when replaying the journal would take longer.", gt=0)
    ] = 10.0
    accept: Annotated[Sequence[str], key("Lines of the journal's header that may differ on resuming.")] = ()

    def __post_init__(self) -> None:
        check_values(self, "checkpoint")


@dataclass(frozen=True)
class Ranks:
    """Sets how several processes share a run."""

    share: Annotated[
        Literal["probes", "batch", "both"] | None,
        key("What the processes share; probes: same bits as one process; null: each is a run of its own."),
    ] = "probes"
    check_every: Annotated[int, key("Steps between comparisons of the weights.", ge=1, le=MANY)] = 100
    backend: Annotated[Literal["auto", "gloo", "nccl"], key("What carries the numbers.")] = "auto"
    timeout_seconds: Annotated[float, key("Seconds that a process is waited for.", gt=0)] = 600.0

    def __post_init__(self) -> None:
        check_values(self, "ranks")


@dataclass(frozen=True)
class Paths:
    """The folders of runs and models."""

    runs: Annotated[str, key("The folder of all runs.")] = "runs"
    models: Annotated[str, key("Where prefetch puts models that it had to convert.")] = "models"
