"""Options scored with the prompt they share encoded once.

The rows of an example's options are equal up to where the options differ. That part goes through the model once,
padded on the left; the rest of every option then reads its keys and values, which are repeated for the options of
one layer at a time only. Options of one token need no second pass: the prompt's last position scores them all.

    row:    prompt ............ | option        P: how many first tokens all rows of the example share
            0             P - 1 | P ... L - 1   the tokens from P on, but for the last, are fed after the prompt

The scores are those of whole rows to the rounding of fp32 sums. Generated answers go on from the same keys and values
(experiments.evaluation.generate). Evaluation alone: training reads each distinct row once (`batches.read_once`).
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from experiments.evaluation.call_cost import call_cost, cut_by_length
from experiments.models.head import base_of, head_at
from experiments.models.loading import Loaded
from experiments.tasks.batches import NOTHING, padded, read_once, span
from experiments.tasks.prompts import Ids, Row

_CACHE = 1 << 30  # bytes that the keys and values of prompts may take; what would be more goes in parts
ROWS = 4  # options an example, at most, that go through the model together
_WORTH = 0.5  # of a row, at least, must be shared: rows that lost their beginning share next to nothing


def shareable(loaded: Loaded) -> bool:
    """Returns whether the model's keys and values can be kept and read again by longer rows.

    Not those of adapters with virtual tokens, of sliding windows, of recurrent models, or of models that do not
    take positions.
    """
    if loaded.family != "causal":
        return False
    adapter: Any = getattr(loaded.model, "active_peft_config", None)
    base: Any = base_of(loaded.model)
    taken = inspect.signature(base.forward).parameters
    if (adapter is not None and adapter.is_prompt_learning) or not {"position_ids", "past_key_values"} <= {
        *taken
    }:
        return False
    try:
        return all(type(layer) is DynamicLayer for layer in DynamicCache(config=base.config).layers)
    except (KeyError, AttributeError):  # layers of a kind of their own
        return False


def common(rows: Sequence[Row]) -> int:
    """Returns how many first tokens all rows share; each row has at least one more."""
    shortest = min(len(row.ids) for row in rows) - 1
    first = rows[0].ids
    return next(
        (place for place in range(shortest) if any(row.ids[place] != first[place] for row in rows)), shortest
    )


def worth_sharing(rows: Sequence[Row]) -> bool:
    """Returns whether enough of an example's rows is equal."""
    return len(rows) > 1 and common(rows) >= _WORTH * max(len(row.ids) for row in rows)


def sharing_pays(examples: Sequence[Sequence[Row]], call: int) -> bool:
    """Returns whether prompts encoded once are fewer positions than whole rows, a call counted as `call` of them.

    Options of one token need no second call. Those of a few tokens after a prompt of ten (COPA) cost the same in both
    ways: what is saved of the prompt goes into a second call, and into tails that are padded to the longest.
    """
    lengths = [common(rows) for rows in examples]
    tails = [len(row.ids) - 1 - n for rows, n in zip(examples, lengths, strict=True) for row in rows]
    longer = [tail for tail in tails if tail > 0]
    if not longer:
        return True
    whole = [len(ids) for rows in examples for ids in read_once(rows)[0]]
    together = ROWS * len(examples)
    once = (
        len(examples) * max(lengths) + len(longer) * max(longer) + call * (1 + ceil(len(longer) / together))
    )
    return once < len(whole) * max(whole) + call * ceil(len(whole) / together)


@dataclass(frozen=True)
class Prompts:
    """Holds prompts that went through the model: their mask [E, T], padded on the left, and their keys and values."""

    mask: Tensor
    cache: DynamicCache | None


def shared_logprobs(loaded: Loaded, examples: Sequence[Sequence[Row]]) -> list[Tensor]:
    """Sums of the log-probabilities of every example's options, from few calls of the model."""
    lengths = [common(rows) for rows in examples]
    rows = [(number, row) for number, some in enumerate(examples) for row in some]
    longer = [at for at, (number, row) in enumerate(rows) if len(row.ids) - 1 > lengths[number]]
    if longer and len(examples) > 1 and cache_bytes(loaded) * max(lengths) * len(examples) > _CACHE:
        half = len(examples) // 2
        return [s for some in (examples[:half], examples[half:]) for s in shared_logprobs(loaded, some)]
    # Tokens that the prompt scores.
    inside = [max(0, lengths[number] - span(row).start) for number, row in rows]
    starts = [some[0].ids[:length] for some, length in zip(examples, lengths, strict=True)]
    prompts, logits = _encode(loaded, starts, max(inside), cache=bool(longer))
    logprobs = logits.float().log_softmax(-1)
    width = logprobs.shape[1]
    targets = torch.full((len(rows), width), NOTHING)
    for at, (_, row) in enumerate(rows):
        first = span(row).start + 1
        targets[at, width - inside[at] :] = torch.tensor(row.ids[first : first + inside[at]])
    owners = torch.tensor([number for number, _ in rows])
    sums = _picked(logprobs, owners, torch.arange(width).expand(len(rows), -1), targets)
    for begin in range(0, len(longer), ROWS * len(examples)):
        some = longer[begin : begin + ROWS * len(examples)]
        tails = [(lengths[rows[at][0]], rows[at][1]) for at in some]
        sums[some] += tail_logprobs(loaded, prompts, owners[some], tails)
    return list(sums.split([len(some) for some in examples]))


def cache_bytes(loaded: Loaded) -> int:
    """Bytes of all layers' keys and values of one token."""
    config: Any = base_of(loaded.model).config  # type: ignore[union-attr]  # of transformers
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = next(loaded.model.parameters()).element_size()
    return 2 * config.num_hidden_layers * heads * width * size


def encode_by_length(loaded: Loaded, prompts: Sequence[Ids]) -> Prompts:
    """Reads prompts in groups of like length, as many as spare padding for more than they cost in calls."""
    groups = cut_by_length([len(ids) for ids in prompts], call_cost(loaded.device))
    parts = [_encode(loaded, [prompts[number] for number in group], 1, cache=True)[0] for group in groups]
    if len(parts) == 1:
        return parts[0]
    _, mask = padded(prompts, loaded.pad, None, left=True)
    caches = [part.cache for part in parts if part.cache is not None]
    return Prompts(mask.to(loaded.device), DynamicCache(_joined(caches, groups, mask.shape[1])))


def _joined(
    caches: Sequence[DynamicCache], groups: Sequence[Sequence[int]], width: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each layer's keys and values [E, heads, width, ·] of all rows in their own order; empties the groups'."""
    rows = sum(map(len, groups))
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        joined: list[Tensor] = []
        for kind in ("keys", "values"):
            parts = [getattr(layer, kind) for layer in layers]
            whole = parts[0].new_zeros(rows, parts[0].shape[1], width, parts[0].shape[-1])
            for group, part in zip(groups, parts, strict=True):
                whole[group, :, width - part.shape[-2] :] = part
            joined.append(whole)
        for layer in layers:
            layer.reset()
        yield joined[0], joined[1]


def _encode(loaded: Loaded, prompts: Sequence[Ids], width: int, *, cache: bool) -> tuple[Prompts, Tensor]:
    """Reads all prompts in one call; returns also the logits [E, width, V] after their last `width` tokens."""
    ids, mask = (t.to(loaded.device) for t in padded(prompts, loaded.pad, None, left=True))
    places = torch.arange(ids.shape[1] - max(width, 1), ids.shape[1], device=ids.device).expand(len(ids), -1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with head_at(loaded.model, places):
        made = loaded.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=cache)
    return Prompts(mask, made.past_key_values), made.logits


def tail_logprobs(
    loaded: Loaded, prompts: Prompts, owners: Tensor, tails: Sequence[tuple[int, Row]]
) -> Tensor:
    """Returns the sums of the log-probabilities of what stands behind the prompts.

    owners: for each row the number of its prompt. tails: how many first tokens of the row are in the prompt, and the
    row.
    """
    device = loaded.device
    rest = [row.ids[length:-1] for length, row in tails]
    ids = torch.full((len(rest), max(map(len, rest))), loaded.pad)
    mask = torch.zeros_like(ids)
    targets = torch.full_like(ids, NOTHING)  # after every place; those that are no option's stay out
    for at, (length, row) in enumerate(tails):
        ids[at, : len(rest[at])] = torch.tensor(rest[at])
        mask[at, : len(rest[at])] = 1
        first = max(span(row).start, length)
        targets[at, first - length : len(rest[at])] = torch.tensor(row.ids[first + 1 :])
    starts = torch.tensor([length for length, _ in tails])
    places = torch.arange(ids.shape[1]).expand(len(ids), -1)
    owners = owners.to(device)
    with head_at(loaded.model, places.to(device)):
        made = loaded.model(
            input_ids=ids.to(device),
            attention_mask=torch.cat([prompts.mask[owners], mask.to(device)], 1),
            # Padding repeats a row's last position: those behind it may be more than the model has.
            position_ids=(starts[:, None] + mask.cumsum(1) - 1).to(device),
            past_key_values=_read(prompts.cache, owners),
            use_cache=True,
        )
    return _picked(made.logits.float().log_softmax(-1), torch.arange(len(ids)), places, targets)


def _picked(logprobs: Tensor, owners: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """Σ logprobs[owner, place, target] over the targets [R, K] that are there."""
    device = logprobs.device
    each = logprobs[owners[:, None].to(device), places.to(device), targets.clamp(min=0).to(device)]
    return torch.where((targets >= 0).to(device), each, 0.0).sum(-1)


class _Read(DynamicLayer):
    """A layer's keys and values, of which each row reads those of its owner; nothing is added to them."""

    def __init__(self, layer: Any, owners: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.owners = layer.keys, layer.values, owners
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The rows' keys and values, and the new ones behind them."""
        assert self.keys is not None and self.values is not None
        owners = self.owners.to(self.keys.device)
        return (
            torch.cat([self.keys[owners], key_states], dim=-2),
            torch.cat([self.values[owners], value_states], dim=-2),
        )


def _read(cache: DynamicCache | None, owners: Tensor) -> DynamicCache:
    assert cache is not None
    shown = DynamicCache()
    shown.layers = list[Any](_Read(layer, owners) for layer in cache.layers)
    return shown
