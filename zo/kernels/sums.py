"""Sums of squares whose bits do not depend on the number of threads, or on how a tensor is cut."""

import torch
from torch import Tensor

_ROW = 1024


def squares(x: Tensor) -> list[float]:
    """Parts of Σ x², in fp64: a row of 1024 numbers each, and what is left one by one. math.fsum adds them exactly."""
    flat = x.reshape(-1).to(torch.float64)
    whole = flat.numel() // _ROW * _ROW
    rows, rest = flat[:whole].view(-1, _ROW), flat[whole:]
    return rows.square().sum(1).tolist() + rest.square().tolist()
