"""Finds the token ids of texts and the part of a row that is scored.

The tokens that begin and end a row are the tokenizer's frame. Causal models get its beginning alone: an end token
after the text would be scored in the place of an option, and would end a prompt that is generated from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from zo.errors import ConfigError

Ids = tuple[int, ...]
_PROBES = ("a", "x", "0", "é")  # texts, of which at least one is tokens in any vocabulary


@dataclass(frozen=True)
class Encoder:
    """Encodes texts with one tokenizer. first: the id that begins rows of causal models; None: the tokenizer's own."""

    tokenizer: PreTrainedTokenizerBase
    first: int | None = None

    @cached_property
    def frame(self) -> tuple[Ids, Ids]:
        """The ids that the tokenizer puts before and after every text."""
        probe, body = next(
            filter(lambda pair: pair[1], zip(_PROBES, self.bodies(_PROBES), strict=True)), ("", ())
        )
        whole = tuple(self.tokenizer(probe, verbose=False)["input_ids"])
        for start in range(len(whole) - len(body) + 1):
            if whole[start : start + len(body)] == body:
                return whole[:start], whole[start + len(body) :]
        raise ConfigError(
            f"The tokenizer {type(self.tokenizer).__name__} encodes a text otherwise when it adds its special tokens, "
            f"so rows cannot be built from it. Use the tokenizer that the model was published with."
        )

    @cached_property
    def start(self) -> Ids:
        """The ids that begin rows of causal models."""
        own, _ = self.frame
        return own if self.first is None else (self.first, *own[1:])

    @cached_property
    def special(self) -> frozenset[str]:
        """Texts that the tokenizer reads as one special token wherever they stand."""
        added = self.tokenizer.added_tokens_decoder.values()
        return frozenset(token.content for token in added if token.special and token.content.strip())

    @cached_property
    def spaced(self) -> bool:
        """Returns whether the tokenizer puts a space before every text, so that pieces are not parts of it."""
        whole, letter, mark = self.bodies(["a?", "a", "?"])
        return letter + mark != whole

    def bodies(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, without a frame."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [tuple(ids) for ids in encoded]

    def rows(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text as a causal model reads it: the beginning of a row, no end token."""
        return [self.start + body for body in self.bodies(texts)]


def scored(prompt: Ids, whole: Ids) -> int:
    """Returns how many last tokens of `whole` are scored: from its first difference from the prompt on.

    Usually the tokens behind the prompt. A token that spans prompt and option is scored too, for its letters tell
    the options apart.
    """
    shared = 0
    for one, other in zip(prompt, whole, strict=False):
        if one != other:
            break
        shared += 1
    return len(whole) - shared


def distinct(rows: Sequence[Ids]) -> list[int]:
    """Returns for each row the index of the first equal row."""
    first: dict[Ids, int] = {}
    return [first.setdefault(row, number) for number, row in enumerate(rows)]
