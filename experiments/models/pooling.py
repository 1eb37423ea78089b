"""Classifies by an encoder's mean-pooled states: logits = W · mean over the text's tokens of h + b."""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from zo.errors import ConfigError

HEAD_FILE = "head.safetensors"


class MeanPooled(nn.Module):
    """An encoder and a linear head on the mean of its last hidden states over the attention mask.

    A new head is zero: it knows nothing, and while it is small the losses of probes differ by the head's part
    of a direction alone, not by the encoder's (docs/findings.md, 2026-11-22).
    """

    def __init__(self, encoder: PreTrainedModel, classes: int) -> None:
        super().__init__()
        self.encoder: nn.Module = encoder  # or peft's wrapper of it
        self.config = encoder.config
        head = nn.utils.skip_init(
            nn.Linear, encoder.config.hidden_size, classes, device=encoder.device, dtype=encoder.dtype
        )
        self.head = cast(nn.Linear, head)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **more: Any) -> SequenceClassifierOutput:
        """Returns logits [B, classes] of texts [B, T]."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state
        hidden = hidden[
            :, hidden.shape[1] - attention_mask.shape[1] :
        ]  # the text's: virtual tokens stand before
        kept = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * kept).sum(1) / kept.sum(1)
        return SequenceClassifierOutput(logits=self.head(mean))

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Saves the encoder as a Hugging Face folder, or its adapter as peft's, with the head beside it."""
        self.encoder.save_pretrained(folder, **options)  # type: ignore[operator]  # both kinds have it
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        save_file(tensors, str(Path(folder) / HEAD_FILE))

    def load_head(self, folder: Path) -> None:
        """Loads the head of a folder that save_pretrained wrote."""
        tensors = load_file(str(folder / HEAD_FILE))
        if tensors["weight"].shape != self.head.weight.shape:
            raise ConfigError(
                f"{folder / HEAD_FILE} has {len(tensors['weight'])} classes on {tensors['weight'].shape[1]} "
                f"states; the task has {self.head.out_features}, the encoder {self.head.in_features}."
            )
        self.head.load_state_dict(tensors)
