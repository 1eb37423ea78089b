"""Tiny random models of several architectures, and their tokenizers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from omegaconf import OmegaConf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from experiments.evaluation import evaluate as _evaluate
from experiments.models import loading
from experiments.tasks import task

# Tests know which family a model is of and what its parts are called, which types do not say.
load: Any = loading.load
load_task: Any = task.load_task
evaluate: Any = _evaluate

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = "great terrible It was Yes No Maybe a film and the Question Answer nobody".split()
CONF = Path(__file__).parents[2] / "conf"


def tokenizer(
    masked: bool, words: Sequence[str] = WORDS, more: Sequence[str] = ()
) -> hf.PreTrainedTokenizerFast:
    """Bytes and a few whole words; `<s> text` for causal models, `<s> text </s>` for masked ones.

    more: other tokens, as they stand in the vocabulary.
    """
    pieces = [(token, 0.0) for token in SPECIAL]
    pieces += [(byte, -9.0) for byte in sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [(piece, -1.0) for piece in (*(f"Ġ{word}" for word in words), *more)]
    made = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(
        [AddedToken(t, special=True, lstrip=t == "<mask>", normalized=False) for t in SPECIAL]
    )
    single, pair = ("<s> $A </s>", "<s> $A </s> </s> $B </s>") if masked else ("<s> $A", "<s> $A $B")
    ids = [(token, SPECIAL.index(token)) for token in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>", model_max_length=128, clean_up_tokenization_spaces=False,
    )  # fmt: skip


VOCABULARY = len(SPECIAL) + 256 + len(WORDS)
_COMMON = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
           "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}  # fmt: skip
CAUSAL = ("opt", "opt-post", "llama", "phi")
MORE_CAUSAL = ("mistral", "qwen3", "gemma3", "gpt2")
MASKED = ("roberta", "bert")
# Classifiers: a new head on mean-pooled states, and an architecture's own.
CLASSIFIERS = ("encoder", "roberta-own", "bert-own")


def make(name: str) -> hf.PreTrainedModel:
    """A random model, weights large enough for logits that differ."""
    opt = {**_COMMON, "ffn_dim": 64, "max_position_embeddings": 128, "init_std": 0.2}
    wide = {**_COMMON, "intermediate_size": 64, "initializer_range": 0.2}
    kinds = {
        "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**opt, word_embed_proj_dim=32)),
        "opt-post": lambda: hf.OPTForCausalLM(
            hf.OPTConfig(**opt, word_embed_proj_dim=16, do_layer_norm_before=False)
        ),
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(
                **wide, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True
            )
        ),
        "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**wide, max_position_embeddings=128)),
        "mistral": lambda: hf.MistralForCausalLM(
            hf.MistralConfig(**wide, num_key_value_heads=2, max_position_embeddings=128, sliding_window=64)
        ),
        "qwen3": lambda: hf.Qwen3ForCausalLM(
            hf.Qwen3Config(**wide, num_key_value_heads=2, head_dim=12, max_position_embeddings=128)
        ),
        "gemma3": lambda: hf.Gemma3ForCausalLM(
            hf.Gemma3TextConfig(
                **wide,
                num_key_value_heads=2,
                head_dim=12,
                max_position_embeddings=128,
                sliding_window=6,
                layer_types=["sliding_attention", "full_attention"],
            )
        ),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=128,
                initializer_range=0.2,
                bos_token_id=0,
                eos_token_id=2,
                pad_token_id=1,
            )
        ),
        "roberta": lambda: hf.RobertaForMaskedLM(
            hf.RobertaConfig(**wide, max_position_embeddings=130, type_vocab_size=1)
        ),
        "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**wide, max_position_embeddings=128)),
        "encoder": lambda: hf.BertModel(hf.BertConfig(**wide, max_position_embeddings=128)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kinds[name]()


def conf(group: str, name: str, **changes) -> dict[str, Any]:
    """A YAML of conf/ with some keys changed."""
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    return {**values, **changes}


def loaded_of(folder: Any, name: str, **changes: Any) -> Any:
    """A tiny model as loaded; <name>-own: as a classifier with its architecture's own head."""
    own = {"family": "classifier", "head": "own"} if name.endswith("-own") else {}
    path = str(folder(name.removesuffix("-own")))
    return load(conf("model", "hub", path=path, device="cpu", **own, **changes), classes=2)


SENTENCES = [
    *("a dull and endless film", "bright", "it is what it is , but the songs", "a film", "no story ; no end"),
    *("worth it", "great fun , then not", "the cast tries", "long", "a quiet triumph of small gestures"),
]
