"""Linear layers that multiply only the positions that an attention mask shows.

    y[mask] = x[mask] Wᵀ + b,   y = 0 elsewhere                  x [rows, T, in], mask [rows, T] of 0 and 1

A batch pads its rows to the longest one. No needed position depends on a padded one, so the padded ones of a matrix
product need not be computed; a padded batch of sst2 holds 2.7 positions for each that is needed. Everything else
(attention, norms, activations) still sees the padded shape. Losses change by the rounding of a product of another
shape. `zo.look.ModuleLook` repeats now and then a probe with its padding and compares.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Multiplications that must be saved for the copies to pay. Measured on one thread of a CPU in fp32 and bfloat16:
# at 3e6 as fast as padded, at 1.7e7 1.5 times as fast, at 1e8 twice. It decides bits, so it is the same everywhere.
MIN_SAVED = 1 << 23


class Positions:
    """The positions of one model call that its attention mask shows, for each of its groups of rows.

    mask: [groups · rows, T].
    """

    def __init__(self, mask: Tensor, groups: int):
        self.rows, self.width = mask.shape[0] // groups, mask.shape[1]
        shown = mask.bool().view(groups, -1).cpu()
        self._mask = shown
        self._device = mask.device
        self._indices: list[Tensor] | None = None
        self._hidden = (~shown).sum(1).tolist()

    @classmethod
    def of_call(cls, kwargs: dict[str, Any], groups: int) -> "Positions | None":
        """Returns the positions of a model call with these keywords, or None where it has no mask of rows × T."""
        mask = kwargs.get("attention_mask")
        if (
            not isinstance(mask, Tensor)
            or mask.dim() != 2
            or mask.is_floating_point()
            or mask.shape[0] % groups
        ):
            return None
        found = cls(mask, groups)
        return found if any(found._hidden) else None

    def index(self, group: int, x: Tensor, outputs: int) -> Tensor | None:
        """Returns which of the rows · T positions of a layer's input are needed, or None to multiply all.

        x: the group's input. All are multiplied where it is not [rows, T, in], or where too little is saved.
        """
        if x.dim() != 3 or x.shape[0] != self.rows or x.shape[1] != self.width:
            return None
        if self._hidden[group] * x.shape[2] * outputs < MIN_SAVED:
            return None
        if self._indices is None:
            self._indices = [shown.nonzero()[:, 0].to(self._device) for shown in self._mask]
        return self._indices[group]


def gather(x: Tensor, index: Tensor) -> Tensor:
    """The needed positions [P, in] of x [rows, T, in]."""
    return x.reshape(-1, x.shape[-1]).index_select(0, index)


def scatter(y: Tensor, index: Tensor, shape: torch.Size) -> Tensor:
    """The output [rows, T, out] of a layer whose input had `shape`, from that of its needed positions y [P, out]."""
    return y.new_zeros(shape[0] * shape[1], y.shape[-1]).index_copy_(0, index, y).view(*shape[:2], -1)


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """A context in which the model's nn.Linear multiply only needed positions; gradients pass through."""
    now: list[Positions | None] = [None]

    def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        now[0] = Positions.of_call(kwargs, 1)

    def forward(layer: nn.Linear, original: Any, input: Tensor) -> Tensor:
        index = None if now[0] is None else now[0].index(0, input, layer.out_features)
        return (
            original(input) if index is None else scatter(original(gather(input, index)), index, input.shape)
        )

    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and "forward" not in module.__dict__
    ]
    hook = model.register_forward_pre_hook(called, with_kwargs=True, prepend=True)
    try:
        for layer in layers:
            layer.__dict__["forward"] = partial(forward, layer, layer.forward)
        yield
    finally:
        hook.remove()
        for layer in layers:
            layer.__dict__.pop("forward", None)
