"""Small random models of every family the executor is tested on, with a batch and an objective for each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = dict[str, Tensor]
VOCABULARY = 50


@dataclass(frozen=True)
class Family:
    """build: shape → model. objective: (model, batch) → losses. targets: what LoRA adapts."""

    build: Callable[["Shape"], nn.Module]
    objective: Callable[[Any, Any], Any]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; width is heads times twice `half`."""

    layers: int = 2
    heads: int = 2
    half: int = 4
    inner: int = 36
    seed: int = 0

    @property
    def width(self) -> int:
        return self.heads * self.half * 2


def build(family: str, shape: Shape = Shape(), dtype: torch.dtype = torch.float32, lora: bool = False) -> Any:
    """A random model in eval mode; weights are larger than at initialisation so that every part matters."""
    with torch.random.fork_rng():
        torch.manual_seed(shape.seed)
        model = FAMILIES[family].build(shape)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model = model.to(dtype).eval()
        if lora:
            from peft import LoraConfig, get_peft_model

            targets = list(FAMILIES[family].targets)
            config = LoraConfig(r=3, lora_alpha=6, target_modules=targets, fan_in_fan_out=family == "gpt2")
            model = get_peft_model(model, config, autocast_adapter_dtype=False).eval()  # type: ignore[arg-type]
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:  # zeros would hide the perturbation of lora_A
                        parameter.copy_(0.1 * torch.randn_like(parameter))
    return model


def batch(family: str, rows: int, length: int, seed: int = 0) -> Batch:
    """Token ids with right padding, labels for each example."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=g)
    real = (
        torch.randint(2, length + 1, (rows, 1), generator=g) if length > 2 else torch.full((rows, 1), length)
    )
    real[0] = length
    mask = (torch.arange(length) < real).long()
    ids = torch.where(mask.bool(), ids, 1)  # 1 is the padding id of RoBERTa and OPT
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(0, 3, (rows,), generator=g)}


def causal(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean next-token loss of each example, weighted by its tokens."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    logp = logits.float().log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    there = batch["attention_mask"][:, 1:].float()
    return -(logp * there).sum(1) / there.sum(1).clamp(min=1), there.sum(1).clamp(min=1)


def masked(model: Any, batch: Batch) -> Tensor:
    """Loss of a word at the second place, as a cloze question asks."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 1]
    return F.cross_entropy(logits.float(), batch["labels"], reduction="none")


def classified(model: Any, batch: Batch) -> Tensor:
    """Loss of the right class."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits.float(), batch["labels"], reduction="none")


def _opt(shape: Shape, *, before: bool, project: bool) -> nn.Module:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=VOCABULARY, hidden_size=shape.width, num_hidden_layers=shape.layers, ffn_dim=shape.inner,
        num_attention_heads=shape.heads, max_position_embeddings=64, do_layer_norm_before=before,
        word_embed_proj_dim=shape.width - 3 if project else shape.width,
    )  # fmt: skip
    return OPTForCausalLM(config)


def _llama_like(shape: Shape, name: str, **more: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{name}Config" if name != "Gemma3" else "Gemma3TextConfig")(
        vocab_size=VOCABULARY, hidden_size=shape.width, num_hidden_layers=shape.layers, intermediate_size=shape.inner,
        num_attention_heads=shape.heads, max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        **more,
    )  # fmt: skip
    return getattr(transformers, f"{name}ForCausalLM")(config)


def _bert_like(shape: Shape, name: str, **more: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, name.split("For")[0] + "Config")(
        vocab_size=VOCABULARY, hidden_size=shape.width, num_hidden_layers=shape.layers, intermediate_size=shape.inner,
        num_attention_heads=shape.heads, max_position_embeddings=64, type_vocab_size=2, pad_token_id=1, **more,
    )  # fmt: skip
    return getattr(transformers, name)(config)


def _gpt2(shape: Shape) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads, n_positions=64,
        n_inner=shape.inner, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


_QV = ("q_proj", "v_proj")
FAMILIES: dict[str, Family] = {
    "opt": Family(lambda s: _opt(s, before=True, project=False), causal, _QV),
    "opt-projected": Family(lambda s: _opt(s, before=True, project=True), causal, _QV),
    "opt-post-norm": Family(lambda s: _opt(s, before=False, project=False), causal, _QV),
    "opt-350m": Family(lambda s: _opt(s, before=False, project=True), causal, _QV),
    "llama": Family(lambda s: _llama_like(s, "Llama", num_key_value_heads=1), causal, _QV),
    "llama-tied": Family(lambda s: _llama_like(s, "Llama", tie_word_embeddings=True), causal, _QV),
    "phi": Family(
        lambda s: _llama_like(s, "Phi", partial_rotary_factor=1.0 if s.half % 2 else 0.5),  # rotates pairs
        causal,
        ("q_proj", "dense"),
    ),
    "roberta": Family(lambda s: _bert_like(s, "RobertaForMaskedLM"), masked, ("query", "value")),
    "bert": Family(lambda s: _bert_like(s, "BertForMaskedLM"), masked, ("query", "value")),
    "bert-classifier": Family(
        lambda s: _bert_like(s, "BertForSequenceClassification", num_labels=3), classified, ("query", "value")
    ),
    "gpt2": Family(_gpt2, causal, ("c_attn",)),
    "qwen3": Family(
        lambda s: _llama_like(s, "Qwen3", num_key_value_heads=1, head_dim=2 * s.half), causal, _QV
    ),
    "gemma3": Family(
        lambda s: _llama_like(s, "Gemma3", num_key_value_heads=1, head_dim=2 * s.half, sliding_window=4), causal, _QV
    ),
}  # fmt: skip
