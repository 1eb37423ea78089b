"""Ask, look, tell: what every optimizer is.

    for t in range(steps):
        probes = optimizer.ask(t)          # points at which a loss is wanted
        losses = look(probes, batch)       # forward passes, by zo.look
        optimizer.tell(t, losses)          # the paper's move

An optimizer never sees the model, the batch or the rank; `tell` is a function of floats, so a journal of
losses rebuilds the weights.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypedDict

from torch import Tensor

from zo.backward import Backward
from zo.checks import check_int
from zo.directions import Directions, Key, Probe
from zo.errors import ConfigError, Diverged, Idle, JournalError, ZOWarning
from zo.kernels.adam_window import Moments
from zo.kernels.formulas import Formula
from zo.names import Parameters
from zo.precision import check_eps, check_move, unseen
from zo.weights import Rule, Weights, as_weights

Rate = float | Callable[[int], float]
NO_DECAY = ("bias", "layer_norm", "layernorm", "norm.weight", "LayerNorm")
IDLE_STEPS = 20  # of the beginning; a metric over few examples (objective=metric) can be equal for some
_ROUNDING = -1  # the index of the key that names a step's rounding bits; directions count from 0


class PassOptions(TypedDict):
    """Arguments that Weights.move and Weights.elementwise share."""

    decay: float
    no_decay: Sequence[str]
    rounding_key: Key


class Looker(Protocol):
    """What evaluates losses: zo.look."""

    def __call__(self, probes: Sequence[Probe], batch: Any) -> list[float]: ...

    def gradient(self, batch: Any, *, seed: int | None, how: Backward) -> float: ...

    def slopes(self, keys: Sequence[Key], batch: Any) -> list[float]: ...


class Optimizer(ABC):
    """State and checks that all methods share.

    params: Weights, a module, or named parameters.
    lr: learning rate, a number or a function of the step (zo.schedules).
    weight_decay: λ; tensors whose name contains one of NO_DECAY are spared. The first three of them are those of
        MeZO's code for decoders; the others are the norms of Llama and RoBERTa, which its names miss.
    seed: names all random numbers together with step and index.
    on_nan: "stop" raises Diverged at losses that are no finite numbers; "skip" makes no move and goes on.

    rule: how the move reads the directions: "direction" one after another, as a sum; "element" all numbers
        of a coordinate together (Weights.elementwise); "matrix" all of a matrix together.
    state_tensors: fp32 tensors like θ that the method keeps, by its own name for them; part of every snapshot.
    replays_from: "losses" when the told losses determine the weights, "checkpoint" when they do not.
    losses_per_step: how many floats `tell` takes. forward_passes, backward_passes: cost of a step.
    state_copies: numbers of 4 bytes kept between steps for each trained weight (2: two moments). State whose size is no
        multiple of the weights is added by `state_bytes`.
    skipped, idle: steps without a move because of such losses or gradients, or because the losses said nothing.
    acts_when: arguments that have an effect under some values of the others alone, each with that condition, such as
        {"horizon": "momentum != 0"}; all others always have one. Read from the source, so a literal.
    """

    acts_when: ClassVar[Mapping[str, str]] = {}
    rule: Literal["direction", "element", "matrix"] = "direction"
    replays_from = "losses"
    losses_per_step: int
    forward_passes: int
    backward_passes = 0
    state_copies: float = 0.0

    def __init__(self, params: Weights | Parameters, lr: Rate, weight_decay: float, seed: int, on_nan: str):
        if not callable(lr) and not (math.isfinite(lr) and lr >= 0):
            raise ConfigError(f"optimizer.lr = {lr} must be a finite number of at least 0.")
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise ConfigError(
                f"optimizer.weight_decay = {weight_decay} must be a finite number of at least 0."
            )
        if not callable(lr) and lr * weight_decay > 1.0:
            raise ConfigError(
                f"optimizer.lr = {lr} times optimizer.weight_decay = {weight_decay} is the part of a weight that a "
                "step takes away, and above 1, more than there is. Lower one of them."
            )
        check_int("seed", seed, -(1 << 63), most=(1 << 63) - 1)
        if on_nan not in ("stop", "skip"):
            raise ConfigError(f"on_nan = {on_nan!r} must be 'stop' or 'skip'.")
        self.weights = as_weights(params)
        self.lr = lr
        self.weight_decay = weight_decay
        self.seed = seed
        self.on_nan = on_nan
        self.state_tensors: dict[str, dict[str, Tensor]] = {}
        self.skipped = 0
        self.idle = 0
        self._silent = 0  # steps from the first on whose losses said nothing

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

    def skipped_because(self) -> str:
        """The reason for the last skipped step, as a clause."""
        return "a loss is no finite number"

    def required_losses(self, losses: Sequence[float]) -> Sequence[float]:
        """Those losses without which there is no move: all, but in methods that can leave a point be."""
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
        """What a snapshot must keep beside the weights: the slots."""
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


class Probing(Optimizer):
    """An optimizer that moves along sums of the directions of its own step.

    eps: perturbation radius ε. n: number of directions a step.
    settled: the first step of the size that most steps have, at which the size is judged; later than 0 after a warm-up.
    """

    settled = 0

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate,
        eps: float,
        n: int,
        directions: Directions,
        weight_decay: float,
        seed: int,
        on_nan: str,
    ):
        super().__init__(params, lr, weight_decay, seed, on_nan)
        if not (math.isfinite(eps) and eps > 0):
            raise ConfigError(
                f"optimizer.eps = {eps} must be a finite number above 0: it is the distance between the points "
                "that are compared. 1e-3 suits most models."
            )
        check_int("optimizer.n", n, 1, "direction a step")
        self.eps = eps
        self.n = n
        self.directions = directions
        self.state_tensors.update(directions.bind(self.weights))
        check_eps(self.weights, eps)
        self._moved = False

    def keys(self, t: int) -> list[Key]:
        """The names of the n directions of step t."""
        return [Key(self.seed, t, i) for i in range(self.n)]

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
        """At the first move of a usual size, warns when one of about `size` an entry would be rounded away."""
        if size > 0.0 and not self._moved:
            check_move(self.weights, size)
            self._moved = True

    def pass_options(self, t: int, lr: float) -> PassOptions:
        """Decay and rounding of step t."""
        return PassOptions(
            decay=lr * self.weight_decay, no_decay=NO_DECAY, rounding_key=Key(self.seed, t, _ROUNDING)
        )


def warn(message: str) -> None:
    """A warning that points at whoever constructs the optimizer."""
    warnings.warn(message, ZOWarning, stacklevel=3)
