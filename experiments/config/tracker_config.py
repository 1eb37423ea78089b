"""Configuration of trackers (conf/tracker): frozen, checked on construction, light to import."""

import importlib.util
from dataclasses import dataclass
from typing import Annotated, Literal

from experiments.config.key import MANY, key
from experiments.config.parsing import check, check_values
from experiments.rundir.code_places import typed_command
from zo.errors import ConfigError


@dataclass(frozen=True)
class Nothing:
    """No tracker; the run's folder has everything."""

    name: Annotated[Literal["none"], key("Name of the tracker.")]


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases."""

    name: Annotated[Literal["wandb"], key("Name of the tracker.")]
    mode: Annotated[
        Literal["online", "offline", "disabled"],
        key("W&B's mode; online falls back to offline without a key or network."),
    ] = "online"
    project: Annotated[str, key("Name of the project.")] = "zo"
    entity: Annotated[str | None, key("User or team; null: the account's default.")] = None
    timeout_seconds: Annotated[
        float, key("Seconds to wait for the server before tracking offline.", gt=0, le=MANY)
    ] = 10.0

    def __post_init__(self) -> None:
        check_values(self, "tracker")
        check(bool(self.project), "tracker.project: it is a name.")


@dataclass(frozen=True)
class TensorBoard:
    """Event files in the run's folder; all runs below a folder are seen with tensorboard --logdir."""

    name: Annotated[Literal["tensorboard"], key("Name of the tracker.")]


@dataclass(frozen=True)
class Trackio:
    """A SQLite file of one's own in TRACKIO_DIR (or trackio's default), seen with trackio show."""

    name: Annotated[Literal["trackio"], key("Name of the tracker.")]
    project: Annotated[str, key("Name of the project.")] = "zo"

    def __post_init__(self) -> None:
        check(bool(self.project), "tracker.project: it is a name.")


Tracking = Nothing | Wandb | TensorBoard | Trackio
TRACKERS: dict[str, type[Tracking]] = {
    "none": Nothing,
    "wandb": Wandb,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
}
EXTRAS = {"wandb": "wandb>=0.31", "tensorboard": "tensorboard>=2.16", "trackio": "trackio>=0.40"}


def need(name: str) -> None:
    """Raises ConfigError with the command that installs the package, unless it is there."""
    if name in EXTRAS and importlib.util.find_spec(name) is None:
        later = typed_command("sync")
        raise ConfigError(
            f"tracker={name}: it needs the package {name}, which is not installed here: "
            f'pip install "{EXTRAS[name]}". Or run without it, tracker=none, and take {later} later.'
        )
