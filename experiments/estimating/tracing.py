"""Traces the peak memory of a computation on the meta device: shapes without data.

Every tensor that an operation creates is counted until it is freed, as the allocator does. Attention through the
library's fused kernel counts only its output: the kernel needs no more on a GPU and, except for a few rows, on a CPU.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


def peak_bytes(run: Callable[[], object], existing: Iterable[Tensor]) -> int:
    """Returns the peak bytes of `run`, beyond the tensors `held` before."""
    with _fused_attention(), _Answering(), _Counting(existing) as counted:
        run()
    return counted.peak


class _Counting(TorchDispatchMode):
    """Counts the memory of tensors from creation to release. now, peak: bytes."""

    def __init__(self, existing: Iterable[Tensor]):
        super().__init__()
        self._held = [
            tensor.untyped_storage() for tensor in existing
        ]  # kept alive: a freed storage's address would be reused
        self._known = {storage._cdata for storage in self._held}
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Replaces attention by one fused operation.

    It replaces the function models call, because a mode does not reach into the backward pass.
    """
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Attention.apply(query, key, value)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


class _Answering(TorchFunctionMode):
    """Answers when a program asks for the value of a tensor that has none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__:
            return False  # models ask if a mask is all ones: the costlier answer
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    """Allocates what a fused kernel makes and keeps for its backward pass: query, key, value, output, row sums."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
