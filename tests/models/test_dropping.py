"""Whether a model drops anything in train mode, held against what it does."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM, LlamaConfig, OPTConfig

from experiments.models.dropping import configured_dropout, dropout_of

SIZES: dict[str, Any] = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
IDS = torch.arange(12).view(2, 6)


def drops(model: nn.Module) -> bool:
    """Whether two passes in train mode differ."""
    model.train()
    with torch.no_grad():
        torch.manual_seed(0)
        one = model(IDS).logits
        torch.manual_seed(1)
        return not torch.equal(one, model(IDS).logits)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["opt", "opt-attention", "llama-attention", "bert", "plain"])
def test_it_is_above_0_where_and_only_where_train_mode_draws(kind, p):
    opt: dict[str, Any] = {
        "ffn_dim": 8,
        "max_position_embeddings": 16,
        "word_embed_proj_dim": 8,
        "layerdrop": 0.0,
    }
    off: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    llama = LlamaConfig(**SIZES, intermediate_size=8, num_key_value_heads=2, attention_dropout=p)
    made = {
        "opt": lambda: AutoModelForCausalLM.from_config(OPTConfig(**SIZES, **opt, **{**off, "dropout": p})),
        "opt-attention": lambda: AutoModelForCausalLM.from_config(
            OPTConfig(**SIZES, **opt, **{**off, "attention_dropout": p})
        ),
        "llama-attention": lambda: AutoModelForCausalLM.from_config(llama),
        "bert": lambda: BertForMaskedLM(
            BertConfig(**SIZES, intermediate_size=8, hidden_dropout_prob=p, attention_probs_dropout_prob=0.0)
        ),
        "plain": lambda: Plain(p),
    }
    model = made[kind]()
    assert dropout_of(model) == p
    assert drops(model) == (p > 0)


class Plain(nn.Module):
    def __init__(self, p: float):
        super().__init__()
        self.layer, self.drop = nn.Embedding(12, 4), nn.Dropout(p)

    def forward(self, ids: torch.Tensor):
        return type("Out", (), {"logits": self.drop(self.layer(ids))})


def test_a_configuration_names_it_by_its_own_name_and_below():
    assert configured_dropout({"hidden_size": 3, "dropout": 0.0, "id2label": {0: "a"}}) == 0.0
    assert configured_dropout({"attn_pdrop": 0.1, "text_config": {"attention_dropout": 0.2}}) == 0.2
    assert configured_dropout(OPTConfig().to_dict()) == 0.1  # where config.json is silent
    assert configured_dropout({"name": "lora", "dropout": 0.05}) == 0.05
