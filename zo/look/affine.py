"""A linear layer at one probe: whole matrices, and matrices that differ by thin factors.

`affine` and `affine_into` give the same bits; the second writes where a stacked output wants its rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b; an fp32 bias beside 16-bit weights is added in fp32."""
    if weight.dtype != x.dtype:  # a 16-bit layer whose weight is an fp32 copy
        return affine(x.to(weight.dtype), weight, bias).to(x.dtype)
    x = x.contiguous()  # of a slice torch would copy W once a row, when W needs no gradient
    if bias is None or bias.dtype == x.dtype:
        return F.linear(x, weight, bias)
    y = F.linear(x, weight)
    return torch.add(y, bias, out=y)


def add_thin(y: Tensor, x: Tensor, factors: tuple[Tensor, Tensor] | None) -> Tensor:
    """y ← y + (x B) Aᵀ in place, where y [..., m] is the layer's output for x [..., n]."""
    if factors is not None:
        a, b = (factor.to(x.dtype) for factor in factors)
        y.view(-1, y.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]) @ b, a.T)
    return y


def affine_into(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """affine of a matrix x, the same bits, written where the stacked output wants it."""
    if weight.dtype != x.dtype:
        y.copy_(affine(x, weight, bias))
        return
    if bias is not None and bias.dtype == x.dtype:
        torch.addmm(bias, x, weight.t(), out=y)
        return
    torch.mm(x, weight.t(), out=y)
    if bias is not None:
        torch.add(y, bias, out=y)
