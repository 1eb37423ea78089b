"""Implements the published recipe plainly, as the baseline of the benchmarks and a check on zo.

Weights are walked in place, one tensor after another; noise of torch's generator is made again from a seed for every
pass; each direction has its own update pass.

    MeZO (Algorithm 1)    + ε z, loss; − 2 ε z, loss; + ε z; then θ ← θ − η p z
    FZOO (Algorithm 1)    loss; for each i: + ε u_i, loss, − ε u_i; then for each i: θ ← θ − η c_i u_i

With zo's named noise in place of torch's, its update equals zo's up to rounding.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Draw = Callable[
    [int, str, Tensor], Tensor
]  # (direction index, parameter's name, tensor) → noise of its shape


class Recipe:
    """A published method on a model.

    method: mezo or fzoo. n: directions a step. directions: gaussian or rademacher.
    draw: noise by name; None draws from torch's generator, seeded for every pass as the authors do.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str,
        directions: str,
        *,
        n: int,
        lr: float,
        eps: float,
        draw: Draw | None = None,
    ):
        self.model, self.method, self.n, self.lr, self.eps = model, method, n, lr, eps
        self.signs = directions == "rademacher"
        self.draw = draw
        self.tensors = [(name, p.data) for name, p in model.named_parameters() if p.requires_grad]

    def step(self, seed: int, loss: Callable[[], float]) -> list[float]:
        """Takes one step; returns the losses it evaluated."""
        return self._mezo(seed, loss) if self.method == "mezo" else self._fzoo(seed, loss)

    def _mezo(self, seed: int, loss: Callable[[], float]) -> list[float]:
        losses, slopes = [], []
        for i in range(self.n):
            self._add(seed, i, self.eps)
            plus = loss()
            self._add(seed, i, -2 * self.eps)
            minus = loss()
            self._add(seed, i, self.eps)
            losses += [plus, minus]
            slopes.append((plus - minus) / (2 * self.eps))
        for i, slope in enumerate(slopes):
            self._add(seed, i, -self.lr * slope / self.n)
        return losses

    def _fzoo(self, seed: int, loss: Callable[[], float]) -> list[float]:
        base, perturbed = loss(), []
        for i in range(self.n):
            self._add(seed, i, self.eps)
            perturbed.append(loss())
            self._add(seed, i, -self.eps)
        mean = math.fsum(perturbed) / self.n
        sigma = math.sqrt(math.fsum((x - mean) ** 2 for x in perturbed) / (self.n - 1))
        for i, x in enumerate(perturbed):
            self._add(seed, i, -self.lr * (x - base) / (self.n * sigma))
        return [base, *perturbed]

    def _add(self, seed: int, i: int, scale: float) -> None:
        """Adds in place: θ ← θ + scale z_i."""
        if self.draw is None:
            torch.manual_seed(seed * 1000 + i)
        for name, w in self.tensors:
            w.add_(self._noise(i, name, w), alpha=scale)

    def _noise(self, i: int, name: str, w: Tensor) -> Tensor:
        if self.draw is not None:
            return self.draw(i, name, w)
        if self.signs:
            return torch.randint(0, 2, w.shape, device=w.device).to(w.dtype) * 2 - 1
        return torch.normal(0.0, 1.0, w.shape, device=w.device, dtype=w.dtype)
