"""Finds the tokenizer of a model's rows, the ids with embeddings, the padding id, and the longest row."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from experiments.models.hushed import BROKEN, first_line, quiet
from zo.errors import ConfigError

# Tokenizers that state no limit state a huge number.
NO_LIMIT = 1_000_000
# Their positions are counted from pad + 1 on, so that many fewer fit.
COUNTED_FROM_PAD = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "xmod", "roberta-prelayernorm")


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """Returns the tokenizer in a model's folder. Raises ConfigError if it is missing or broken."""
    files = (
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
        "spiece.model",
        "sentencepiece.bpe.model",
    )
    if not any((folder / name).is_file() for name in files):
        raise ConfigError(
            f"{folder} has no tokenizer (none of {', '.join(files)}). Copy the model's tokenizer there."
        )
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as error:
        raise ConfigError(f"The tokenizer in {folder} cannot be loaded: {first_line(error)}") from error


def vocabulary_of(config: dict[str, Any]) -> int | None:
    """Returns the number of ids with embeddings, if the model's configuration states it."""
    return (config.get("text_config") or config).get("vocab_size")


def pad_of(tokenizer: PreTrainedTokenizerBase, folder: Path, vocabulary: int | None) -> int:
    """Returns the id that fills rows.

    Without a pad token with an embedding any id will do, since the attention mask hides it.
    """
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id):
        if isinstance(candidate, int) and (vocabulary is None or candidate < vocabulary):
            return candidate
    raise ConfigError(
        f"The tokenizer in {folder} has neither a pad nor an end nor an unknown token to fill rows with."
    )


def context_of(config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the tokens a row may have, by the tokenizer and by the model's positions."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < NO_LIMIT else []
    return min([*limits, positions_of(config)])


def positions_of(config: dict[str, Any]) -> int:
    """Returns the tokens a row may have by the model's positions; NO_LIMIT if they are unlimited."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if not positions:
        return NO_LIMIT
    counted_from_pad = config.get("model_type") in COUNTED_FROM_PAD
    return positions - (1 + (config.get("pad_token_id") or 0) if counted_from_pad else 0)
