"""How many bytes a computation holds at its highest, reckoned on the meta device: shapes without numbers.

Every tensor that an operation makes is counted from there until it is dropped, as the allocator would. Attention
through the library's fused kernel is counted as its output alone, as that kernel needs no more on a GPU and, but
for a few rows, on a CPU.
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


def peak_bytes(run: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Bytes that `run` holds at most, beside the tensors `held` before."""
    with _fused_attention(), _Asked(), _Counting(held) as counted:
        run()
    return counted.peak


class _Counting(TorchDispatchMode):
    """Counts the memory of tensors from their making to their end. now, peak: bytes."""

    def __init__(self, held: Iterable[Tensor]):
        super().__init__()
        self._held = [
            tensor.untyped_storage() for tensor in held
        ]  # alive, or their places would be given again
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
    """Attention in one piece; by the name that models call, since a mode does not reach into the backward pass."""
    whole = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Attention.apply(query, key, value)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = whole


class _Asked(TorchFunctionMode):
    """An answer where a program asks a number of a tensor that has none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__:
            return False  # asked whether a mask masks nothing: the costlier answer
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    """What a fused kernel makes and keeps for its backward pass: query, key, value, output, a number a row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
