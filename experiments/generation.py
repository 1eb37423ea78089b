"""Greedy generation in batches: rows padded on the left, each ended by a newline or the end token."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Greedy:
    """pad: the id that fills rows. new_tokens: at most so many a row."""

    tokenizer: PreTrainedTokenizerBase
    pad: int
    new_tokens: int

    def __call__(self, model: nn.Module, ids: Tensor, mask: Tensor) -> list[str]:
        """The texts, stripped, that follow prompts [rows, T]; without gradients."""
        with torch.no_grad():
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
