"""What a user chooses of trackers: conf/tracker. Frozen, checked when made, light."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from experiments.config.parsing import check, check_literals, read
from zo.errors import ConfigError


@dataclass(frozen=True)
class Nothing:
    """No tracker; the run's folder has everything."""

    name: Literal["none"]


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases. entity: the user or team; null: the account's own.

    timeout_seconds: that the server is waited for at the start; then the run is tracked offline.
    """

    name: Literal["wandb"]
    mode: Literal["online", "offline", "disabled"] = "online"
    project: str = "zo"
    entity: str | None = None
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_literals(self, "tracker")
        check(bool(self.project), "tracker.project: it is a name.")
        check(self.timeout_seconds > 0, f"tracker.timeout_seconds={self.timeout_seconds}: it is above 0.")


@dataclass(frozen=True)
class TensorBoard:
    """Event files in the run's folder; all runs below a folder are seen with tensorboard --logdir."""

    name: Literal["tensorboard"]


@dataclass(frozen=True)
class Trackio:
    """A SQLite file of one's own in TRACKIO_DIR (or trackio's default), seen with trackio show."""

    name: Literal["trackio"]
    project: str = "zo"

    def __post_init__(self) -> None:
        check(bool(self.project), "tracker.project: it is a name.")


Choice = Nothing | Wandb | TensorBoard | Trackio
TRACKERS: dict[str, type[Choice]] = {
    "none": Nothing,
    "wandb": Wandb,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
}
EXTRAS = {"wandb": "wandb>=0.31", "tensorboard": "tensorboard>=2.16", "trackio": "trackio>=0.40"}


def choice_of(config: Mapping[str, Any]) -> Choice:
    """The tracker a run asks for; none for a configuration that is older than trackers.

    Raises ConfigError where its package is missing.
    """
    section = config.get("tracker") or {"name": "none"}
    chosen = read(TRACKERS[section["name"]], section, "tracker")
    need(chosen.name)
    return chosen


def need(name: str) -> None:
    """Raises ConfigError with the command that installs the package, unless it is there."""
    if name in EXTRAS and importlib.util.find_spec(name) is None:
        raise ConfigError(
            f"tracker={name} needs the package {name}, which is not installed here: "
            f'pip install "{EXTRAS[name]}". Or run without it, tracker=none, and take python -m experiments sync later.'
        )
