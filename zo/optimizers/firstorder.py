"""torch.optim's first-order methods behind the same interface, for comparison.

A step is one forward and one backward pass; by the FZOO paper's convention it costs 1 + 3 forward passes
(`BACKWARD_COST`). Dropout is on, as these methods are usually run, and seeded by (seed, step), so a step
is a function of the weights, the state and the batch alone. Gradients and moments cannot be rebuilt from
losses: such a run resumes from its newest snapshot.

16 bits: forward and backward pass are in the model's dtype. torch moves fp32 master weights by fp32 gradients, with
fp32 moments, and the model holds the masters rounded to nearest. By AdamW at a rate of 1e-5 a bfloat16 weight of 0.02
would not move, and in float16 eps = 1e-8 is 0. In float16 the loss is scaled (`LossScale`).
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, final

import torch
from torch import Tensor

from zo.backward import Backward
from zo.directions import Probe
from zo.errors import ConfigError, Diverged, JournalError
from zo.fields import Positive, Range, Share
from zo.kernels import eager
from zo.noise import key_of
from zo.optimizers.optimizer import NO_DECAY, Looker, Optimizer, Rate
from zo.weights import Weights

BACKWARD_COST = 3
TINY = 1.1754943508222875e-38  # the smallest normal number of fp32
_SCALE = "scale"  # the name of the loss scale in a snapshot


class LossScale:
    """The factor of a float16 model's loss: halved when a gradient overflows, doubled after `PATIENCE` steps without.

    value: a power of two. steps: taken since it last changed.
    """

    PATIENCE = 2000

    def __init__(self) -> None:
        self.value = 65536.0
        self.steps = 0

    def lower(self) -> bool:
        """Halves the scale; False when it is 1 already, so that the gradients themselves are not finite."""
        if self.value <= 1.0:
            return False
        self.value, self.steps = self.value / 2, 0
        return True

    def count(self) -> None:
        """Counts a step with finite gradients."""
        self.steps += 1
        if self.steps == self.PATIENCE:
            self.value, self.steps = self.value * 2, 0


@dataclass(eq=False, kw_only=True)
class FirstOrder(Optimizer):
    """One backward pass a step, then torch's update.

    dropout: True evaluates the model in train mode with seeded dropout, False in eval mode.
    clip: bound on the gradient's norm, or None.
    gradient_checkpointing: keep the inputs of layers alone for the backward pass, and compute the rest again.

    update_copies: how many numbers torch's update makes for a while: for each trained weight on a GPU, for each of the
        largest tensor on a CPU.
    loss_scale: of float16 models; None in other dtypes.
    """

    replays_from = "checkpoint"
    backward_passes = 1
    update_copies = (0, 0)

    dropout: bool = True
    clip: Positive | None = None
    gradient_checkpointing: bool = False

    @property
    def losses_per_step(self) -> int:
        return 1

    def begin(self) -> None:
        super().begin()
        self.weights = _with_masters(self.weights, type(self).__name__)
        self.loss_scale = LossScale() if self.weights.half else None
        self._torch: torch.optim.Optimizer | None = None

    @property
    def moved(self) -> dict[str, Tensor]:
        """The tensors that torch moves, by name: the parameters, or the fp32 masters of those of 16 bits."""
        return {name: self.weights.copies.get(name, tensor) for name, tensor in self.weights.tensors.items()}

    @abstractmethod
    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer: ...

    @property
    def inner(self) -> torch.optim.Optimizer:
        """The torch optimizer, made at first use; decayed tensors are its first group."""
        if self._torch is None:
            spared = [any(part in name for part in NO_DECAY) for name in self.weights.tensors]
            tensors = list(self.moved.values())
            self._torch = self._build(
                [
                    {
                        "params": [t for t, s in zip(tensors, spared, strict=True) if s == group],
                        "weight_decay": decay,
                    }
                    for group, decay in ((False, self.weight_decay), (True, 0.0))
                ]
            )
        return self._torch

    def ask(self, t: int) -> list[Probe]:
        return [Probe()]

    def step(self, t: int, batch: Any, look: Looker, lr: float | None = None) -> list[float]:
        self._drop_gradients()
        self.weights.refresh()  # masters follow what others wrote into the model
        seed = key_of(self.seed, t, 0) >> 1 if self.dropout else None
        how = Backward(
            masters={self.weights.tensors[name]: master for name, master in self.weights.copies.items()},
            scale=None if self.loss_scale is None else self.loss_scale.value,
            checkpointing=self.gradient_checkpointing,
        )
        return [look.gradient(batch, seed=seed, how=how)]

    def _drop_gradients(self) -> None:
        for tensor in (*self.weights.tensors.values(), *self.weights.copies.values()):
            tensor.grad = None

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        for name, master in self.weights.copies.items():
            tensor = self.weights.tensors[name]  # has a gradient where a look leaves it there
            if tensor.grad is not None:
                master.grad, tensor.grad = tensor.grad.float(), None
        trained = [tensor for tensor in self.moved.values() if tensor.grad is not None]
        norm = total_norm([tensor.grad for tensor in trained if tensor.grad is not None])
        if not math.isfinite(norm.item()):
            return {"loss": losses[0]} | self._overflowed(t, losses[0])
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.clip, norm)
        for group in self.inner.param_groups:
            group["lr"] = lr
        self.inner.step()
        self._drop_gradients()
        for name, master in self.weights.copies.items():
            self.weights.tensors[name].detach().copy_(master)
        if self.loss_scale is not None:
            self.loss_scale.count()
        return {"loss": losses[0], "gradient_norm": norm.item()} | self._scaling()

    def _overflowed(self, t: int, loss: float) -> dict[str, float]:
        """Makes no move because the gradient is not finite, and lowers the loss scale where there is one."""
        self._drop_gradients()
        scaled = self.loss_scale is not None and self.loss_scale.lower()
        if not scaled and self.on_nan == "stop":
            raise Diverged(
                f"Step {t}: the loss is {loss:.4g} and its gradient holds numbers that are not finite. The "
                "learning rate is too large for this model, or its dtype too narrow for a backward pass (float16 "
                "ends at 65504: take bfloat16 or float32)."
            )
        self.skipped += 1
        return {"gradient_norm": math.nan} | self._scaling() if scaled else {}

    def skipped_because(self) -> str:
        if self.loss_scale is None:
            return "its loss or gradient is not finite"
        return f"its loss or gradient left float16's range; the loss scale is now {self.loss_scale.value:g}"

    def _scaling(self) -> dict[str, float]:
        """Returns the metrics of the scaling: the scale of the next step, and steps skipped so far."""
        if self.loss_scale is None:
            return {}
        return {"loss_scale": self.loss_scale.value, "skipped": float(self.skipped)}

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        return super().state_bytes(tensors) + masters_of(tensors)

    def state(self) -> dict[str, Tensor]:
        """torch's state by parameter number and name, and the loss scale with its counter."""
        state = self.inner.state_dict()["state"]
        scaling: dict[str, Tensor] = {}
        if self.loss_scale is not None:
            numbers = [self.loss_scale.value, self.loss_scale.steps]
            scaling[_SCALE] = torch.tensor(numbers, dtype=torch.float64, device="cpu")
        return scaling | {
            f"{i}:{name}": value
            if isinstance(value, Tensor)
            else torch.tensor(value, dtype=torch.float32, device="cpu")
            for i, slots in state.items()
            for name, value in slots.items()
            if value is not None
        }

    def load(self, state: dict[str, Tensor]) -> None:
        if (self.loss_scale is None) != (_SCALE not in state):
            raise JournalError(
                f"The snapshot holds {'a' if _SCALE in state else 'no'} loss scale, which float16 models alone have: "
                "it belongs to another model, or to an older version."
            )
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key == _SCALE and self.loss_scale is not None:
                self.loss_scale.value, self.loss_scale.steps = value[0].item(), int(value[1])
                continue
            number, name = key.split(":", 1)
            slots.setdefault(int(number), {})[name] = value
        full = self.inner.state_dict()
        full["state"] = slots
        self.inner.load_state_dict(full)


def _with_masters(weights: Weights, method: str) -> Weights:
    """The same weights with an fp32 master for every 16-bit tensor; raises ConfigError for another way of rounding."""
    weights = copy.copy(weights)  # the weights handed in may be another method's too
    narrow = [name for name, tensor in weights.tensors.items() if tensor.dtype != torch.float32]
    if narrow and weights.stated and weights.update != "master":
        raise ConfigError(
            f"update = {weights.update!r} rounds every move, and {narrow[0]} has 16 bits, in which moves of {method} "
            f"are lost and the numbers of its state vanish. {method} keeps fp32 master weights: use update = 'auto' or "
            "'master'. To see the loss, round a zeroth-order method's moves."
        )
    masters = {}
    for name in narrow:
        wide = eager.read(weights.source(name), weights.low.get(name))
        masters[name] = wide.clone() if name in weights.copies else wide
    weights.copies, weights.low = masters, {}
    return weights


def masters_of(tensors: Sequence[Tensor]) -> int:
    """Bytes of the fp32 masters of 16-bit tensors."""
    return sum(4 * tensor.numel() for tensor in tensors if tensor.dtype != torch.float32)


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together, fp32: in float16 one above 65504 would be infinite."""
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
    if not norms:
        return torch.zeros((), dtype=torch.float32, device="cpu")
    return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))


@final
@dataclass(eq=False, kw_only=True)
class AdamW(FirstOrder):
    """Loshchilov & Hutter, "Decoupled weight decay regularization" (ICLR 2019)."""

    state_copies = 2.0  # m and v
    update_copies = (1, 2)  # √v; on a CPU what is divided by it too

    lr: Rate = 1e-5
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Annotated[
        float, Range(ge=TINY, of="below it fp32 holds 0, and a weight without gradient becomes NaN")
    ] = 1e-8

    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=0.0, betas=self.betas, eps=self.eps)


@final
@dataclass(eq=False, kw_only=True)
class SGD(FirstOrder):
    """Stochastic gradient descent, with momentum if asked; weight decay is torch's, a part of the gradient."""

    lr: Rate = 1e-3
    momentum: Share = 0.0

    def begin(self) -> None:
        super().begin()
        self.state_copies = 1.0 if self.momentum else 0.0
        self.update_copies = (1, 1) if self.weight_decay else (0, 0)  # the gradient with decay

    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=0.0, momentum=self.momentum)
