"""The processes of a run as one of them sees them: alone (Solo), or several (zo.distributed.Ranks)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from zo.optimizers import Optimizer
from zo.optimizers.optimizer import Looker
from zo.weights import Weights

Report = Callable[[], tuple[int, float]]
T = TypeVar("T")
S = TypeVar("S")


class Team(ABC):
    """The processes of a run, seen from one of them.

    rank, size: which one, of how many. report: asked for (stop code, seconds); 0 is no wish to stop.
    agreed: steps after which the weights of all were last found equal; None before the first check.
    """

    rank: int
    size: int
    report: Report
    agreed: int | None = None

    @property
    def leads(self) -> bool:
        """Returns whether this process writes the run's files."""
        return self.rank == 0

    @property
    @abstractmethod
    def stop(self) -> int:
        """The stop code that all go by, at the same step; 0 for none."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """The clock that all go by: rank 0's."""

    @abstractmethod
    def parts(self, probes: int) -> int:
        """Returns into how many parts a batch is cut if a step has this many probes."""

    @abstractmethod
    def check(self, optimizer: Optimizer) -> None:
        """Raises ConfigError for a method that cannot be shared."""

    @abstractmethod
    def over(self, look: Looker, optimizer: Optimizer) -> Looker:
        """A look that does this rank's share and gives the losses of all."""

    @abstractmethod
    def begin(self, t: int) -> None:
        """Step t is looked at next."""

    @abstractmethod
    def verify(self, t: int, weights: Weights) -> None:
        """Raises RanksDiverged unless the weights after t steps are the same everywhere."""

    @abstractmethod
    def every(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""

    @abstractmethod
    def first(self, make: Callable[[], T]) -> T:
        """Returns the value that rank 0 computes; the others get a copy, or RankLost with its error."""

    @abstractmethod
    def agree(self, what: Mapping[str, Hashable]) -> None:
        """Raises RanksDiverged, with ranks and names, unless all ranks have the same values."""

    def map(self, function: Callable[[S], T], items: Sequence[S]) -> list[T]:
        """function of every item, in their order; item i is done by rank i modulo size."""
        mine = [function(item) for item in items[self.rank :: self.size]]
        parts = self.every(mine)
        return [parts[i % self.size][i // self.size] for i in range(len(items))]

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Solo(Team):
    """One process."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.report: Report = lambda: (0, 0.0)

    @property
    def stop(self) -> int:
        return self.report()[0]

    @property
    def seconds(self) -> float:
        return self.report()[1]

    def parts(self, probes: int) -> int:
        return 1

    def check(self, optimizer: Optimizer) -> None:
        return None

    def over(self, look: Looker, optimizer: Optimizer) -> Looker:
        return look

    def begin(self, t: int) -> None:
        return None

    def verify(self, t: int, weights: Weights) -> None:
        return None

    def every(self, value: T) -> list[T]:
        return [value]

    def first(self, make: Callable[[], T]) -> T:
        return make()

    def agree(self, what: Mapping[str, Hashable]) -> None:
        return None
