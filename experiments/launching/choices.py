"""What a user chooses about where runs go: conf/launcher and conf/cluster. Frozen, checked when made, light."""

from dataclasses import dataclass
from typing import Literal

from experiments.choices import check


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


LAUNCHERS = {"local": Local}
