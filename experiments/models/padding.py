"""Tries whether a model's rows depend on the padding beside them, as those that ignore the attention mask do.

A batch holds rows of several lengths. The shorter ones are filled on the right where they are scored and on the left
where answers are generated; the attention mask hides what fills. Nothing tells whether an architecture heeds it, so a
short row is evaluated alone and beside a longer one.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from experiments.config.model_config import Family
from experiments.models.head import base_of
from experiments.models.hushed import quiet
from zo.errors import ConfigError

SHORT, LONG = 5, 16  # tokens of the two rows
# Of the largest logit: what a wrong mask changes is near all of it, what rounding changes in so short a row far less.
_RIGHT = {torch.float32: 1e-3, torch.float64: 1e-3}
# Of 16 bits and of quantised weights; or ten times what another row of the same length changes.
_RIGHT_16 = 0.1
_LEFT_16 = 0.03  # smaller, because nothing is refused by it
_NOISE = 10.0
_by_length: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def check_right_padding(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pad: int,
    vocabulary: int | None,
    name: str,
    family: Family,
) -> None:
    """Raises ConfigError for a model whose rows are others when they are filled on the right.

    Evaluates two rows four times.
    """
    options = {"use_cache": False} if family == "causal" else {}
    short, long = _rows(tokenizer, pad, vocabulary)
    alone = _scores(model, [short], options)
    beside = _scores(model, [short, long[:SHORT]], options)
    filled = _scores(model, [short + [pad] * (LONG - SHORT), long], options)
    others = [filled]
    if alone.dim() > 1:  # a classifier's own head finds a row's last token by the id that fills
        others.append(_scores(model, [short + long[SHORT:], long], options))
    noise = _NOISE * float((beside - alone).abs().max())
    largest = float((alone - alone.mean(-1, keepdim=True)).abs().max())
    allowed = max(noise, _RIGHT.get(_dtype(model), _RIGHT_16) * largest)
    change = max(float((other - alone).abs().max()) for other in others)
    if change > allowed:  # NaN compares false: a model of NaNs is reported when its scores are read
        raise ConfigError(
            f"{name} ({type(model).__name__}) computes another result for a row when a longer one stands beside it: "
            f"its logits change by {change:.2g} of {largest:.2g}, because the architecture does not heed the attention "
            f"mask. Rows of several lengths would be trained and scored wrongly in batches. "
            f"Take a model whose attention has a mask."
        )


def rows_of_one_length(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, pad: int, vocabulary: int | None = None
) -> bool:
    """Returns whether answers must be generated from rows of one length, because filling on the left changes them.

    Found once a model: two short generations. Recurrent models read what fills, and some decoders count positions from
    the first column.
    """
    base = base_of(model)
    if base not in _by_length:  # virtual tokens change nothing of it
        short, long = _rows(tokenizer, pad, vocabulary)
        alone = _generated(base, [short], pad)
        filled = _generated(base, [[pad] * (LONG - SHORT) + short, long], pad)
        steps = 2 if alone[0].argmax() == filled[0].argmax() else 1
        allowed = _RIGHT.get(_dtype(model), _LEFT_16)
        changes = [
            float((one - other).abs().max() / (one - one.mean()).abs().max())
            for one, other in zip(alone[:steps], filled[:steps], strict=True)
        ]
        _by_length[base] = any(change > allowed for change in changes)
    return _by_length[base]


def _rows(
    tokenizer: PreTrainedTokenizerBase, pad: int, vocabulary: int | None
) -> tuple[list[int], list[int]]:
    """Two rows of different plain tokens."""
    known = min(len(tokenizer), vocabulary or len(tokenizer))
    special = {pad, *tokenizer.all_special_ids}
    plain = [token for token in range(known) if token not in special] or [0]
    ids = [plain[(number + 1) * len(plain) // (SHORT + LONG + 2)] for number in range(SHORT + LONG)]
    return ids[:SHORT], ids[SHORT:]


def _scores(model: nn.Module, rows: list[list[int]], options: dict[str, bool]) -> Tensor:
    """The logits of the first of these rows, which begins with the short one: [SHORT, V], or [C] of a classifier."""
    device = next(model.parameters()).device
    ids = torch.tensor(rows, device=device)
    mask = torch.ones_like(ids)
    if len(rows[0]) > SHORT:
        mask[0, SHORT:] = 0
    with torch.no_grad(), quiet():
        logits = model(input_ids=ids, attention_mask=mask, **options).logits[0].float()
    return logits if logits.dim() == 1 else logits[:SHORT]


def _generated(model: Any, rows: list[list[int]], pad: int) -> list[Tensor]:
    """The logits [V] of the first row after its prompt and after the next token."""
    device = next(model.parameters()).device
    ids = torch.tensor(rows, device=device)
    mask = torch.ones_like(ids)
    mask[0, : len(rows[0]) - SHORT] = 0
    config = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=2, pad_token_id=pad, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    own, model.generation_config = model.generation_config, config
    try:
        with torch.no_grad(), quiet():
            generated = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    finally:
        model.generation_config = own
    return [logits[0].float() for logits in generated.logits]


def _dtype(model: nn.Module) -> torch.dtype:
    """The dtype that decides how large rounding is: float32 only where all weights have it."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    return dtypes.pop() if len(dtypes) == 1 else torch.bfloat16
