"""Ask, look, tell: what every optimizer is.

    for t in range(steps):
        probes = optimizer.ask(t)          # points at which a loss is wanted
        losses = look(probes, batch)       # forward passes, by zo.look
        optimizer.tell(t, losses)          # the paper's move

An optimizer never sees the model, the batch or the rank; `tell` is a function of floats, so a journal of
losses rebuilds the weights.
"""

import math
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypedDict, overload, runtime_checkable

from torch import Tensor

from zo.backward import Backward
from zo.directions import Directions, Key, Probe, Spec
from zo.directions import directions as kind
from zo.errors import ConfigError, Diverged, Idle, JournalError, ZOWarning
from zo.fields import NonNegative, Range, Seed, problems_of
from zo.kernels.adam_window import Moments
from zo.kernels.formulas import Formula
from zo.names import Parameters
from zo.noise import SIGNS
from zo.precision import check_eps, check_move, unseen
from zo.weights import Rule, Weights, as_weights

Rate = Annotated[float, Range(ge=0)] | Callable[[int], float]
Radius = Annotated[
    float, Range(gt=0, of="the distance between the points that are compared; 1e-3 suits most models")
]
NO_DECAY = ("bias", "layer_norm", "layernorm", "norm.weight", "LayerNorm")
IDLE_STEPS = 20  # of the beginning; a metric over few examples (objective=metric) can be equal for some
_ROUNDING = -1  # the index of the key that names a step's rounding bits; directions count from 0


class PassOptions(TypedDict):
    """Arguments that Weights.move and Weights.elementwise share."""

    decay: float
    no_decay: Sequence[str]
    rounding_key: Key


@runtime_checkable
class Looker(Protocol):
    """The interface of zo.look, which evaluates losses."""

    def __call__(self, probes: Sequence[Probe], batch: Any) -> list[float]: ...

    def gradient(self, batch: Any, *, seed: int | None, how: Backward) -> float: ...

    def slopes(self, keys: Sequence[Key], batch: Any) -> list[float]: ...


@dataclass(eq=False, kw_only=True)
class Optimizer(ABC):
    """Holds the fields, the state and the checks that all methods share.

    A method is a dataclass: its options are fields, whose closed sets and ranges stand in the annotations
    (zo/fields.py). What it keeps is made in `begin`, its update is `_move`. A class is either abstract or final.

    params: weights, a module, or named parameters.
    lr: learning rate, a number or a function of the step (Schedule.over).
    weight_decay: λ; tensors whose name contains one of NO_DECAY are spared. The first three of them are those of
        MeZO's code for decoders; the others are the norms of Llama and RoBERTa, which its names miss.
    seed: names all random numbers together with step and index.
    on_nan: "stop" raises Diverged at losses that are no finite numbers; "skip" makes no move and goes on.

    rule: how the move reads the directions: "direction" one after another, as a sum; "element" all numbers
        of a coordinate together (Weights.elementwise); "matrix" all of a matrix together.
    state_tensors: fp32 tensors like θ that the method keeps, by its own name for them; part of every snapshot.
    replays_from: "losses" when the told losses determine the weights, "checkpoint" when they do not.
    state_copies: numbers of 4 bytes kept between steps for each trained weight (2: two moments). State whose size is no
        multiple of the weights is added by `state_bytes`.
    skipped, idle: steps without a move because of such losses or gradients, or because the losses said nothing.
    acts_when: options that have an effect under some values of the others alone, each with that condition, such as
        {"horizon": "momentum != 0"}; all others always have one. Read from the source, so a literal.

    Facts that the battery of tests asks every method for (tests/optimizers/test_battery.py):
    one_sided: the loss at θ is one of the points of each slope, so that one that differs from the others is a slope.
    looks_twice: what is evaluated second depends on the first losses, so `ask` names the first points alone.
    tells_slopes: `tell` takes exact slopes behind the loss at θ, so a constant added to all means something.
    moves_all: a step moves every trained tensor.
    small_problem: options with which it descends a problem of a dozen weights, where its defaults are for millions.
    """

    acts_when: ClassVar[Mapping[str, str]] = {}
    small_problem: ClassVar[Mapping[str, Any]] = {}
    rule = "direction"
    replays_from = "losses"
    backward_passes = 0
    state_copies = 0.0
    one_sided = False
    looks_twice = False
    tells_slopes = False
    moves_all = True

    params: InitVar[Weights | Parameters] = field(kw_only=False)
    lr: Rate = 1e-6
    weight_decay: NonNegative = 0.0
    # kw_only on the field itself: these are passed by the program, and no YAML of conf/optimizer names them.
    seed: Seed = field(default=0, kw_only=True)
    on_nan: Literal["stop", "skip"] = field(default="stop", kw_only=True)

    def __post_init__(self, params: Weights | Parameters) -> None:
        problems = list(problems_of(self, "optimizer.", outside=("seed", "on_nan"))) or list(self.problems())
        if problems:
            raise ConfigError("\n".join(problems))
        self.weights = as_weights(params)
        self.state_tensors: dict[str, dict[str, Tensor]] = {}
        self.skipped = 0
        self.idle = 0
        self._silent = 0  # steps from the first on whose losses said nothing
        self.begin()

    def problems(self) -> Iterator[str]:
        """Yields a sentence for each combination of options that does not work; every option alone is in range."""
        if not callable(self.lr) and self.lr * self.weight_decay > 1.0:
            yield (
                f"optimizer.lr = {self.lr} times optimizer.weight_decay = {self.weight_decay} is the part of a weight "
                "that a step takes away, and above 1, more than there is. Lower one of them."
            )

    def begin(self) -> None:  # noqa: B027  most methods keep nothing
        """Makes what the method keeps between steps; self.weights and all options are there."""

    @property
    @abstractmethod
    def losses_per_step(self) -> int:
        """The number of floats that `tell` takes."""

    @property
    def forward_passes(self) -> int:
        """Forward passes of a step."""
        return self.losses_per_step

    def rate(self, t: int) -> float:
        """The learning rate of step t."""
        return self.lr(t) if callable(self.lr) else self.lr

    @abstractmethod
    def ask(self, t: int) -> list[Probe]:
        """The points at which step t wants the loss."""

    def tell(self, t: int, losses: Sequence[float], lr: float | None = None) -> dict[str, float]:
        """Makes the move of step t and returns what it saw (loss, slopes or spread, learning rate).

        losses: one a probe, in order. lr: used instead of the schedule's (a budget of minutes).
        Raises Diverged when a loss that counts is no finite number and on_nan is "stop", and Idle when none of the
        first steps says anything.
        """
        if not all(math.isfinite(loss) for loss in self.required_losses(losses)):
            if self.on_nan == "stop":
                raise Diverged(
                    f"Step {t}: losses {', '.join(f'{loss:.4g}' for loss in losses)}. {self.suspicion()}"
                )
            self.skipped += 1
            return {"loss": math.nan}
        lr = self.rate(t) if lr is None else lr
        idle = self.idle
        seen = self._move(t, losses, lr) | {"lr": lr}
        self._count_silent(t, self.idle > idle or (len(losses) > 1 and len(set(losses)) == 1))
        return seen

    def _count_silent(self, t: int, silent: bool) -> None:
        """Raises Idle when the first IDLE_STEPS steps all had losses that said nothing."""
        if silent and self._silent == t:
            self._silent += 1
            if self._silent == IDLE_STEPS:
                raise Idle(
                    f"None of the first {IDLE_STEPS} steps made a move, because the losses of each were equal: what is "
                    "perturbed does not reach them. Raise optimizer.eps, load a 16-bit model in float32, or check that "
                    "the loss depends on the trained weights (a metric over few examples changes too rarely)."
                )

    def suspicion(self) -> str:
        """Sentences that say what probably makes losses no finite numbers."""
        return (
            "The learning rate is too large for this model, its dtype too narrow (float16 ends at 65504: take bfloat16 "
            "or float32), or the data hold an example without a token to predict."
        )

    def no_move(self, **seen: float) -> dict[str, float]:
        """Counts a step whose losses say nothing, and returns what it saw."""
        self.idle += 1
        return seen

    def skipped_because(self) -> str:
        """The reason for the last skipped step, as a clause."""
        return "a loss is no finite number"

    def required_losses(self, losses: Sequence[float]) -> Sequence[float]:
        """Returns the losses that must be finite for this step; by default all of them."""
        return losses

    @abstractmethod
    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        """The paper's update from finite losses."""

    def step(self, t: int, batch: Any, look: Looker, lr: float | None = None) -> list[float]:
        """Looks for step t and returns the losses to tell; methods that do not fit ask-look override it.

        lr: as `tell` will get it, for a method that looks where its step would end.
        """
        return look(self.ask(t), batch)

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        """Bytes that this method would keep between steps for these trained tensors, of which only shapes count."""
        return int(4 * self.state_copies * sum(tensor.numel() for tensor in tensors))

    def state(self) -> dict[str, Tensor]:
        """Returns what a snapshot must hold beside the weights: the state tensors."""
        return {
            f"{slot}:{name}": t for slot, tensors in self.state_tensors.items() for name, t in tensors.items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes what `state` gave; raises JournalError when it is the state of something else."""
        mine = self.state()
        if mine.keys() != state.keys() or any(mine[name].shape != state[name].shape for name in mine):
            raise JournalError(
                f"The snapshot holds the state {sorted(state)[:4]} and {type(self).__name__} keeps "
                f"{sorted(mine)[:4]}: it belongs to another method or model."
            )
        for name, tensor in mine.items():
            tensor.copy_(state[name])


class DirectionKind:
    """A field that takes a kind of direction by name, as a mapping with options or as an object, and holds the object.

    What no kind can be made of is held as the ConfigError that says why, until all fields are checked together.
    """

    def __init__(self, default: Spec = "gaussian"):
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = "_" + name

    @overload
    def __get__(self, optimizer: None, owner: type) -> Spec: ...
    @overload
    def __get__(self, optimizer: object, owner: type) -> Directions: ...
    def __get__(self, optimizer: object | None, owner: type) -> Spec | Directions:
        return self.default if optimizer is None else vars(optimizer)[self.name]

    def __set__(self, optimizer: object, value: Spec | Directions) -> None:
        try:
            vars(optimizer)[self.name] = value if isinstance(value, Directions) else kind(value)
        except ConfigError as error:
            vars(optimizer)[self.name] = error


@dataclass(eq=False, kw_only=True)
class Probing(Optimizer):
    """An optimizer that moves along sums of the directions of its own step.

    eps: perturbation radius ε. n: number of directions a step. directions: their kind. Each is a field where it is an
        option; a method with one kind of its own sets it in `begin`.
    settled: the first step of the size that most steps have, at which the size is judged; later than 0 after a warm-up.
    """

    settled = 0
    eps = 1.0
    n = 1
    directions = DirectionKind()

    def begin(self) -> None:
        super().begin()
        self.state_tensors.update(self.directions.bind(self.weights))
        check_eps(self.weights, self.eps)
        self._moved = False

    def keys(self, t: int) -> list[Key]:
        """The names of the n directions of step t."""
        return [Key(self.seed, t, i) for i in range(self.n)]

    def noise(self) -> str:
        """The noise that the bits depend on: signs agree among all kernels, Gaussians among two of them on a CPU."""
        name, backends = self.directions.name, set(self.weights.backend.split("+"))
        exact = self.directions.stream == SIGNS or backends <= {"eager", "native"}
        return name if exact else f"{name} by {self.weights.backend}"

    def suspicion(self) -> str:
        lost = unseen(self.weights, self.eps)
        if lost:
            return (
                f"eps = {self.eps} is below the resolution of most entries of {lost[0]}, so that slopes are rounding "
                "errors divided by eps. Raise eps, or load the model in float32."
            )
        return (
            "The learning rate is too large for this model; or eps is too large, and probes leave the region in which "
            "the model works; or eps is too small, and rounding errors divided by it are taken for slopes; or the data "
            "hold an example without a token to predict."
        )

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        return super().state_bytes(tensors) + 4 * self.directions.state_bytes(tensors)

    def apply(self, t: int, terms: Sequence[tuple[Key, float]], lr: float) -> None:
        """θ ← (1 − lr λ) θ + Σ c z, one pass."""
        if t >= self.settled:
            self.check_size(math.sqrt(math.fsum(c * c for _, c in terms)))
        self.weights.warm([key for key, _ in terms], self.directions)
        self.weights.move(terms, self.directions, **self.pass_options(t, lr))

    def apply_rule(self, t: int, rule: Rule | Moments | Formula, keys: Sequence[Key], lr: float) -> None:
        """θ ← (1 − lr λ) θ + rule(block), one pass over θ and the slots; the rule gets the noise of the keys."""
        self.weights.warm(keys, self.directions)
        self.weights.elementwise(rule, keys, self.directions, self.state_tensors, **self.pass_options(t, lr))

    def check_size(self, size: float) -> None:
        """Warns at the first move of usual size if a move of about `size` an entry would be rounded away."""
        if size > 0.0 and not self._moved:
            check_move(self.weights, size)
            self._moved = True

    def pass_options(self, t: int, lr: float) -> PassOptions:
        """Decay and rounding of step t."""
        return PassOptions(
            decay=lr * self.weight_decay, no_decay=NO_DECAY, rounding_key=Key(self.seed, t, _ROUNDING)
        )


def warn(message: str) -> None:
    """Gives a warning that points at whoever constructs the optimizer."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("zo."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ZOWarning, stacklevel=level)
