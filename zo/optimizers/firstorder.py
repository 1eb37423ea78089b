"""torch.optim's first-order methods behind the same interface, for comparison.

A step is one forward and one backward pass; by the FZOO paper's convention it costs 1 + 3 forward passes
(`BACKWARD_COST`). Dropout is on, as these methods are usually run, and seeded by (seed, step), so a step
is a function of the weights, the state and the batch alone. Gradients and moments cannot be rebuilt from
losses: such a run resumes from its newest snapshot.
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zo.checks import two_betas
from zo.directions import Probe
from zo.errors import ConfigError, Diverged
from zo.names import Parameters
from zo.noise import key_of
from zo.optimizers.optimizer import NO_DECAY, Looker, Optimizer, Rate
from zo.weights import Weights, as_weights

BACKWARD_COST = 3


class FirstOrder(Optimizer):
    """One backward pass a step, then torch's update.

    dropout: True evaluates the model in train mode with seeded dropout, False in eval mode.
    clip: bound on the gradient's norm, or None.
    """

    replays_from = "checkpoint"
    losses_per_step = 1
    forward_passes = 1
    backward_passes = 1

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate,
        weight_decay: float,
        dropout: bool,
        clip: float | None,
        seed: int,
        on_nan: str,
    ):
        weights = copy.copy(as_weights(params))
        weights.copies = {}  # the parameters themselves are trained, as torch would
        narrow = [name for name, tensor in weights.tensors.items() if tensor.dtype != torch.float32]
        if narrow and weights.update != "nearest":
            raise ConfigError(
                f"update = {weights.update!r} says how moves of zeroth-order methods are rounded, and {narrow[0]} has "
                f"16 bits. {type(self).__name__} moves by torch, which rounds to nearest: use update = 'nearest', or "
                "load the model in float32."
            )
        super().__init__(weights, lr, weight_decay, seed, on_nan)
        if clip is not None and not clip > 0:
            raise ConfigError(f"optimizer.clip = {clip} must be above 0, or null for no bound.")
        self.dropout = dropout
        self.clip = clip
        self._torch: torch.optim.Optimizer | None = None

    @abstractmethod
    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer: ...

    @property
    def inner(self) -> torch.optim.Optimizer:
        """The torch optimizer, made at first use; decayed tensors are its first group."""
        if self._torch is None:
            spared = [any(part in name for part in NO_DECAY) for name in self.weights.tensors]
            tensors = list(self.weights.tensors.values())
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
        self.inner.zero_grad(set_to_none=True)
        return [look.gradient(batch, seed=key_of(self.seed, t, 0) >> 1 if self.dropout else None)]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        trained = [tensor for tensor in self.weights.tensors.values() if tensor.grad is not None]
        norm = total_norm([tensor.grad for tensor in trained if tensor.grad is not None])
        if not math.isfinite(norm.item()):
            self.inner.zero_grad(set_to_none=True)
            if self.on_nan == "stop":
                raise Diverged(
                    f"Step {t}: the loss is {losses[0]:.4g} and its gradient holds numbers that are not finite. The "
                    "learning rate is too large for this model, or its dtype too narrow for a backward pass (float16 "
                    "ends at 65504: take bfloat16 or float32)."
                )
            self.skipped += 1
            return {"loss": losses[0]}
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.clip, norm)
        for group in self.inner.param_groups:
            group["lr"] = lr
        self.inner.step()
        self.inner.zero_grad(set_to_none=True)
        return {"loss": losses[0], "gradient_norm": norm.item()}

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        return int(self.state_copies * sum(tensor.nbytes for tensor in tensors))

    def state(self) -> dict[str, Tensor]:
        """torch's state by parameter number and name."""
        state = self.inner.state_dict()["state"]
        return {
            f"{i}:{name}": value
            if isinstance(value, Tensor)
            else torch.tensor(value, dtype=torch.float32, device="cpu")
            for i, slots in state.items()
            for name, value in slots.items()
            if value is not None
        }

    def load(self, state: dict[str, Tensor]) -> None:
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            number, name = key.split(":", 1)
            slots.setdefault(int(number), {})[name] = value
        full = self.inner.state_dict()
        full["state"] = slots
        self.inner.load_state_dict(full)


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together, fp32: in float16 one above 65504 would be infinite."""
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
    if not norms:
        return torch.zeros((), dtype=torch.float32, device="cpu")
    return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))


class AdamW(FirstOrder):
    """Loshchilov & Hutter, "Decoupled weight decay regularization" (ICLR 2019)."""

    state_copies = 2.0  # m and v

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        dropout: bool = True,
        clip: float | None = None,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        super().__init__(params, lr, weight_decay, dropout, clip, seed, on_nan)
        self.betas = two_betas(betas)
        if not (math.isfinite(eps) and eps > 0):
            raise ConfigError(f"optimizer.eps = {eps} must be above 0.")
        self.eps = eps

    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=0.0, betas=self.betas, eps=self.eps)


class SGD(FirstOrder):
    """Stochastic gradient descent, with momentum if asked; weight decay is torch's, a part of the gradient."""

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dropout: bool = True,
        clip: float | None = None,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        super().__init__(params, lr, weight_decay, dropout, clip, seed, on_nan)
        if not 0.0 <= momentum < 1.0:
            raise ConfigError(f"optimizer.momentum = {momentum} must lie in [0, 1).")
        self.momentum = momentum
        self.state_copies = 1.0 if momentum else 0.0

    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=0.0, momentum=self.momentum)
