"""Greedy generation in batches: rows padded on the left, each ended by a newline or the end token.

A prefix or prompt stands before the padding. Places are counted over the attention mask, so that the padding does
not come between; but a sliding window counts it, so where one is shorter than a row only rows of one length go
together.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from experiments.models.head import adapter_tokens, base_of
from experiments.peft.virtual import places_by_mask


@dataclass(frozen=True)
class Greedy:
    """pad: the id that fills rows. new_tokens: at most so many a row."""

    tokenizer: PreTrainedTokenizerBase
    pad: int
    new_tokens: int

    def __call__(self, model: nn.Module, ids: Tensor, mask: Tensor) -> list[str]:
        """The texts, stripped, that follow prompts [rows, T]; without gradients."""
        lengths = mask.sum(1)
        if len(lengths.unique()) > 1 and _slides(model, ids.shape[1] + self.new_tokens):
            said = [""] * len(ids)
            for length in lengths.unique().tolist():
                numbers = (lengths == length).nonzero()[:, 0]
                texts = self(model, ids[numbers, -length:], mask[numbers, -length:])
                for number, text in zip(numbers.tolist(), texts, strict=True):
                    said[number] = text
            return said
        with torch.no_grad(), places_by_mask(model):
            made = model.generate(  # type: ignore[operator]  # causal models have it, and peft's wrappers of them
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                num_beams=1,
                max_new_tokens=self.new_tokens,
                eos_token_id=self._ends(),
                pad_token_id=self.pad,
            )
        assert isinstance(made, Tensor)
        texts = self.tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _ends(self) -> list[int]:
        """The last token of a newline, and the end token."""
        newline = self.tokenizer.encode("\n", add_special_tokens=False)[-1:]
        end = self.tokenizer.eos_token_id
        return [*newline, *([end] if isinstance(end, int) else [])]


def _slides(model: nn.Module, length: int) -> bool:
    """Whether virtual tokens before rows of that length are further away than a layer sees."""
    tokens = adapter_tokens(model)
    config: Any = base_of(model).config
    window = getattr(config.get_text_config(), "sliding_window", None)
    return tokens > 0 and window is not None and window < tokens + length
