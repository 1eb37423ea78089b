"""Notices a forward in which the data decide the order of rows.

Such a model (rows sorted by length, tokens sent to experts) can give right losses for one stack and wrong ones for
the next, so comparing one batch proves nothing. Every torch operation of one evaluation is watched: an ordering of
data (sort, topk, nonzero), or indexing rows by a tensor that was worked out from data, is remembered. A tensor is
data unless it was made of numbers alone: `torch.arange(n)` as a row index orders nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

# Models of transformers that choose among their rows and whose stacked losses were compared: the same bits.
TESTED = {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v3", "phimoe", "gpt_oss"}

_ORDERS = {"sort", "argsort", "msort", "topk", "nonzero", "nonzero_static", "argwhere", "masked_select"}
_ORDERS |= {"_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"}
_INDEX = {"index", "index_put", "index_put_", "_unsafe_index", "_unsafe_index_put", "_index_put_impl_"}
_ALONG = {"index_select", "gather", "scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce"}
_ALONG |= {"scatter_reduce_", "index_add", "index_add_", "index_copy", "index_copy_", "index_reduce_"}
_FLAT = {"take", "put", "put_"}
_CONSTANT = {"new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided"}
_CONSTANT |= {"zeros_like", "ones_like", "empty_like", "full_like"}


def tested(model: nn.Module) -> bool:
    """Returns whether the model is on the tested list of transformers' families, with or without an adapter."""
    for module in model.modules():
        kind = getattr(getattr(module, "config", None), "model_type", None)
        if type(module).__module__.startswith("transformers.models."):
            return kind in TESTED
    return False


class RowOrder(TorchDispatchMode):
    """Watches one evaluation. by: the first operation that lets data order rows, or None."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.by: str | None = None
        self.active = True
        self._constants: dict[
            int, StorageWeakRef
        ] = {}  # the reference keeps the number from being given again
        for buffer in model.buffers():
            self._note(buffer)

    @contextmanager
    def set_active(self, active: bool) -> Iterator[None]:
        """A context in which operations are watched, or not: those of the executor itself order nothing."""
        before, self.active = self.active, active
        try:
            yield
        finally:
            self.active = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.active and self.by is None:
            self._see(func, args, kwargs or {}, result)
        return result

    def _see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        from_data = any(self._is_data(tensor) for tensor in given)
        name = func.__name__.split(".")[0]
        if from_data and self._orders(name, args, kwargs):
            self.by = name
        if name in _CONSTANT or not from_data:
            for leaf in pytree.tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self._note(leaf)
        elif func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    self._forget(value)

    def _orders(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        if name in _ORDERS or name in _FLAT:
            return True
        if name in _INDEX:
            first = args[1][0] if args[1] else None
            if first is None or not self._is_data(first):
                return False
            # One number written where a mask is true leaves every row in its place.
            return not ("put" in name and first.dtype == torch.bool and args[2].numel() == 1)
        if name in _ALONG:
            index = next(value for value in args[2:] if isinstance(value, Tensor))
            return args[1] % max(args[0].dim(), 1) == 0 and self._is_data(index)
        return False

    def _is_data(self, tensor: Tensor) -> bool:
        return _storage(tensor) not in self._constants

    def _note(self, tensor: Tensor) -> None:
        key = _storage(tensor)
        if key is not None:
            self._constants[key] = StorageWeakRef(tensor.untyped_storage())

    def _forget(self, value: Any) -> None:
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, Tensor):
                self._constants.pop(_storage(leaf) or 0, None)


def quiet(order: RowOrder | None, active: bool, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with watching on or off; itself where nothing watches."""
    if order is None:
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        with order.set_active(active):
            return function(*args, **kwargs)

    return call


def _storage(tensor: Tensor) -> int | None:
    """The number of the memory that a tensor lies in; None for one that has none of its own (sparse)."""
    if tensor.layout != torch.strided:
        return None
    return tensor.untyped_storage()._cdata
