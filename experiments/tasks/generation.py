"""Greedy generation in batches: rows padded on the left, each ended by its first newline or the end token.

Nothing but the arguments here decides the tokens: what the model's own generation config says (tokens to suppress,
penalties), which is in no fingerprint, is left out.

A prefix or prompt stands before the padding. Places are counted over the attention mask, so that the padding does
not come between; but a sliding window counts it, so where one is shorter than a row only rows of one length go
together. So they do where the architecture does not heed the mask on the left (experiments.models.padding).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)

from experiments.models.head import adapter_tokens, base_of
from experiments.models.padding import rows_of_one_length
from experiments.peft.virtual import places_by_mask


@dataclass(frozen=True)
class Greedy:
    """pad: the id that fills rows. new_tokens: most tokens per row."""

    tokenizer: PreTrainedTokenizerBase
    pad: int
    new_tokens: int

    def __call__(
        self, model: nn.Module, ids: Tensor, mask: Tensor, cache: DynamicCache | None = None
    ) -> list[str | None]:
        """The texts, stripped, that follow prompts [rows, T]; without gradients. None where logits were no numbers.

        cache: keys and values of the prompts' first tokens, which are not read again; grows by what is generated.
        """
        lengths = mask.sum(1)
        if (
            cache is None
            and len(lengths.unique()) > 1
            and (
                _slides(model, ids.shape[1] + self.new_tokens)
                or rows_of_one_length(model, self.tokenizer, self.pad)
            )
        ):
            answers: list[str | None] = [None] * len(ids)
            for length in lengths.unique().tolist():
                numbers = (lengths == length).nonzero()[:, 0]
                texts = self(model, ids[numbers, -length:], mask[numbers, -length:])
                for number, text in zip(numbers.tolist(), texts, strict=True):
                    answers[number] = text
            return answers
        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.new_tokens,
            eos_token_id=list(_ends(self.tokenizer)),
            pad_token_id=self.pad,
        )
        watch = _Watch(len(ids))
        with torch.no_grad(), places_by_mask(model), _generating_by(model, config):
            generated = model.generate(  # type: ignore[operator]  # causal models have it, and peft's wrappers of them
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=config,
                logits_processor=LogitsProcessorList([watch]),
            )
        assert isinstance(generated, Tensor)
        texts = self.tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
        return [
            None if bad else text.partition("\n")[0].strip()
            for text, bad in zip(texts, watch.bad.tolist(), strict=True)
        ]


class _Watch(LogitsProcessor):
    """Notes the rows of which a logit was NaN, which argmax takes for the largest; changes nothing."""

    def __init__(self, rows: int):
        self.bad = torch.zeros(rows, dtype=torch.bool)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.bad |= scores.isnan().any(-1).cpu()
        return scores


@lru_cache(maxsize=4)
def _ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The end token and all tokens with a newline in their text, such as ".\\n"; under a second for 128k tokens.

    A vocabulary may have no newline: an answer then ends with what the tokenizer makes of one, as in training.
    """
    ids = sorted(tokenizer.get_vocab().values())
    texts = tokenizer.batch_decode([[token] for token in ids], skip_special_tokens=True)
    ends = {token for token, text in zip(ids, texts, strict=True) if "\n" in text}
    ends.update(tokenizer.encode("\n", add_special_tokens=False)[-1:])
    if isinstance(tokenizer.eos_token_id, int):
        ends.add(tokenizer.eos_token_id)
    return tuple(sorted(ends))


@contextmanager
def _generating_by(model: nn.Module, config: GenerationConfig) -> Iterator[None]:
    """A context in which generation uses this config as the model's own, which transformers falls back on."""
    base: Any = base_of(model)
    own, base.generation_config = base.generation_config, config
    try:
        yield
    finally:
        base.generation_config = own


def _slides(model: nn.Module, length: int) -> bool:
    """Returns whether virtual tokens before rows of that length are further away than a layer sees."""
    tokens = adapter_tokens(model)
    config: Any = base_of(model).config
    window = getattr(config.get_text_config(), "sliding_window", None)
    return tokens > 0 and window is not None and window < tokens + length
