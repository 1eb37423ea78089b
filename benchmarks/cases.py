"""The models, batches and loss that everything here is measured on: OPT with random weights."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = {
    "10m": {
        "hidden_size": 320,
        "num_hidden_layers": 6,
        "ffn_dim": 1280,
        "num_attention_heads": 5,
        "vocab_size": 8192,
    },
    "125m": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "ffn_dim": 3072,
        "num_attention_heads": 12,
        "vocab_size": 50272,
    },
    "1.3b": {
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "ffn_dim": 8192,
        "num_attention_heads": 32,
        "vocab_size": 50272,
    },
}


@dataclass(frozen=True)
class Case:
    """One setting. tokens: rows x length. directions: rademacher or gaussian. n: directions a step."""

    method: str
    directions: str
    n: int
    size: str
    tokens: str
    dtype: str

    @property
    def forwards(self) -> int:
        """Forward passes of a step."""
        return self.n + 1 if self.method == "fzoo" else 2 * self.n

    @property
    def shape(self) -> tuple[int, int]:
        rows, length = self.tokens.split("x")
        return int(rows), int(length)


# The targets of the project's plan: the largest step over its forward passes.
TARGETS = {
    ("fzoo", "rademacher", "16x64", "float32"): 1.08,
    ("fzoo", "rademacher", "4x32", "float32"): 1.12,
    ("fzoo", "rademacher", "4x32", "bfloat16"): 1.20,
    ("mezo", "rademacher", "16x64", "float32"): 1.05,
    ("mezo", "rademacher", "4x32", "float32"): 1.15,
    ("mezo", "gaussian", "16x64", "float32"): 1.10,
    ("mezo", "gaussian", "4x32", "float32"): 1.45,
}


def cases(size: str) -> list[Case]:
    """Every setting that has a target, at one model size."""
    return [Case(m, d, 8 if m == "fzoo" else 1, size, tokens, dtype) for m, d, tokens, dtype in TARGETS]


def model(case: Case, device: torch.device) -> nn.Module:
    """OPT in eval mode; N(0, 0.02) weights from a fixed seed."""
    from transformers import OPTConfig, OPTForCausalLM  # two seconds that --help need not wait for

    torch.manual_seed(0)
    shape: dict[str, Any] = dict(SIZES[case.size])
    config = OPTConfig(
        **shape, word_embed_proj_dim=shape["hidden_size"], max_position_embeddings=256, dropout=0.0
    )
    config._attn_implementation = "sdpa"
    network = OPTForCausalLM(config)
    return nn.Module.to(network, device, DTYPES[case.dtype]).eval()


def batch(case: Case, device: torch.device) -> dict[str, Tensor]:
    """Random tokens without padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, SIZES[case.size]["vocab_size"], case.shape, generator=generator)
    return {"input_ids": ids.to(device)}


def objective(network: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Mean next-token loss of each row over all positions, the softmax in fp32."""
    ids = inputs["input_ids"]
    hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state
    logits = network.lm_head(hidden[:, :-1]).float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return losses.view(ids.shape[0], -1).mean(1)


def plain_forward(network: nn.Module, inputs: dict[str, Tensor]) -> float:
    """One evaluation of the loss at the weights as they are: what a step is measured against."""
    with torch.no_grad():
        return objective(network, inputs).double().mean().item()
