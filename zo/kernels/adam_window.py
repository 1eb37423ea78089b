"""The step of AdaMeZO over some numbers of a tensor: moments made of the directions of its last steps.

    g_k = Σ_i c_ki z_ki                    the gradient of step k, from the oldest step of the window on
    m = Σ_k a_k g_k,  v = Σ_k b_k g_k²     fp32, in this order, each product and sum rounded by itself
    step = s · m / (√v + ε)                or s · m / √(v + ε) with `inside`

Nothing is kept: m and v exist for one block at a time. This is the reference; native.cpp keeps both in registers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny  # where the divisor is 0, m is 0 as well, and 0 is the step


class Noisy(Protocol):
    """A block of one tensor (zo.weights.Block): what is read of it is the noise."""

    @property
    def noise(self) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class Moments:
    """The rule. Its keys are those of all g, in the order of `gradients`.

    gradients: c of each direction of each step, oldest step first. first, second: a and b of each step.
    scale: s. eps: ε. inside: ε under the root.
    """

    gradients: tuple[tuple[float, ...], ...]
    first: tuple[float, ...]
    second: tuple[float, ...]
    scale: float
    eps: float
    inside: bool

    def __call__(self, block: Noisy) -> Tensor:
        noise = iter(block.noise)
        m = v = None
        for coefficients, a, b in zip(self.gradients, self.first, self.second, strict=True):
            g = next(noise) * f32(coefficients[0])
            for c in coefficients[1:]:
                g += next(noise) * f32(c)
            square = (g * g).mul_(f32(b))
            m, v = (
                (g.mul_(f32(a)), square)
                if m is None or v is None
                else (m.add_(g.mul_(f32(a))), v.add_(square))
            )
        if m is None or v is None:
            raise ValueError("A window without steps has no moments.")
        return m.div_(self._divisor(v)).mul_(f32(self.scale))

    def _divisor(self, v: Tensor) -> Tensor:
        if self.inside:
            return roots(v.add_(f32(self.eps))).clamp_(min=TINY)
        return roots(v).add_(f32(self.eps)).clamp_(min=TINY)


def roots(x: Tensor) -> Tensor:
    """Returns √x of fp32 numbers as IEEE rounds it; torch's fp32 root differs on some CPUs (zo/noise/philox.py)."""
    return x.double().sqrt_().float()


def f32(x: float) -> float:
    """x rounded to fp32, as every form must see it."""
    return torch.tensor(x, dtype=torch.float32, device="cpu").item()
