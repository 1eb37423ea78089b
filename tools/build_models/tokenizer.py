"""Builds the tokenizer of the world: byte-level Unigram in which each word of the world is one piece.

The pieces are the special tokens, the 256 bytes and the words that occur in the pre-training text. A word's
score is the logarithm of its frequency and a byte's is lower than any word's, so the best segmentation of a word of
the world is the word itself. Every other text has one too (in bytes and words), which decodes to the same text.
"""

import re
from collections import Counter
from itertools import islice
from math import log
from typing import Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from experiments.world import grammar

SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
TEXTS_COUNTED = 20_000
MAX_LENGTH = 128

Family = Literal["causal", "masked"]


def count_words(seed: int) -> Counter[str]:
    """Counts the words of the pre-training text: letters and marks, "'s" apart."""
    counts: Counter[str] = Counter()
    for text in islice(grammar.pretraining_text(seed), TEXTS_COUNTED):
        counts.update(re.findall(r"'s|[A-Za-z]+|[.:?]", text))
    return counts


def build(family: Family, seed: int) -> PreTrainedTokenizerFast:
    """Builds the tokenizer of a family: OPT's `</s> text` (causal) or RoBERTa's `<s> text </s>` (masked)."""
    counts = count_words(seed)
    total = sum(counts.values())
    spelled = {word if word == "'s" else f"Ġ{word}": log(count / total) for word, count in counts.items()}
    byte_score = 2 * min(spelled.values())
    pieces = [(token, 0.0) for token in SPECIAL]
    pieces += [(byte, byte_score) for byte in sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += sorted(spelled.items(), key=lambda piece: (-piece[1], piece[0]))

    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL["<unk>"], byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, lstrip=token == "<mask>", normalized=False) for token in SPECIAL]
    )
    single, pair = {
        "causal": ("</s> $A", "</s> $A $B"),
        "masked": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    }[family]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=list(SPECIAL.items())
    )
    own = (
        {"bos_token": "</s>", "unk_token": "<unk>"}
        if family == "causal"
        else {
            "bos_token": "<s>",
            "unk_token": "<unk>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "mask_token": "<mask>",
        }
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        **own,
    )
