"""Prompts: a record's text and token rows for causal models, masked models and classifiers.

Causal, as in MeZO's large_models (Malladi et al. 2023): one text a candidate; spaces are stripped from the
ends of the prompt and of the whole, white space from the whole's beginning; an option's tokens are counted by
tokenising the prompt with and without it; what is too long loses tokens on the left, but for the
beginning-of-text token. Demonstrations stand before it with a blank line between, white space at their ends
stripped; surface-form calibration scores the same options after a prompt without an input.
Masked, as in LM-BFF (Gao et al. 2021): option words are single tokens, compared at the mask; what is too long
loses its end, as long as the mask stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from experiments.config.template import Template
from experiments.tasks.data import LISTED, listing
from experiments.tasks.records import Record
from zo.errors import ConfigError, DataError

Ids = tuple[int, ...]
SEPARATOR = "\n\n"  # between demonstrations, and before the prompt


class Row(NamedTuple):
    """A token row. Causal: its last `span` tokens are the option. Masked: the mask is at `span`."""

    ids: Ids
    span: int = 0
    types: Ids = ()


@dataclass(frozen=True)
class Example:
    """A record made ready: its candidates with a row each, the right ones, the accepted answers.

    Generated answers: no options, one row (prompt and model answer), and `prompt` to generate from.
    blanks: where options are calibrated, a row for each candidate after the prompt without an input.
    """

    index: int
    fields: Mapping[str, str]
    options: tuple[str, ...]
    golds: tuple[int, ...]
    answers: tuple[str, ...]
    rows: tuple[Row, ...]
    prompt: Ids = ()
    blanks: tuple[Row, ...] = ()


@dataclass(frozen=True)
class CausalPrompts:
    """Prompt and option (or answer) texts; at most `limit` tokens a row.

    own: options are each record's candidates. blank: the prompt without an input, which `calibrate` asks for;
    with icl_sfc it stands after the demonstrations.
    """

    tokenizer: PreTrainedTokenizerBase
    prompt: Template
    answer: Template
    options: tuple[Template, ...]
    limit: int
    own: bool = False
    blank: Template | None = None
    calibrate: Literal["sfc", "icl_sfc"] | None = None

    def texts(self, record: Record, blank: bool = False) -> tuple[str, list[str]]:
        """The prompt (or the one without an input) alone, and with each candidate, letter for letter as tokenised."""
        values = {**record.fields, "eos": str(self.tokenizer.eos_token or "")}
        template = self.blank if blank and self.blank is not None else self.prompt
        prompt = template.fill(values)
        candidates = [{"option": option} for option in self._options(record)]
        if not candidates:
            candidates = [{"answer": record.answers[0]}]
        wholes = [(prompt + self.answer.fill({**values, **candidate})).strip(" ") for candidate in candidates]
        return prompt.strip(" "), wholes

    def demonstrations(self, rows: Sequence[Record]) -> str:
        """Records with their right options or first answers, and what separates them from a prompt."""
        shown = [self.texts(r)[1][r.golds[0] if r.golds else 0].strip() for r in rows]
        return SEPARATOR.join([*shown, ""]).lstrip()

    def encode(self, rows: Sequence[Record], before: str = "") -> list[Example]:
        """Examples with one row a candidate. Raises DataError for options that do not fit or add no token."""
        texts = [self.texts(record) for record in rows]
        encoded, problems = self._rows(rows, texts, before)
        blanks: list[tuple[Row, ...]] = [()] * len(rows)
        if self.calibrate is not None:
            without = [self.texts(record, blank=True) for record in rows]
            shown = before if self.calibrate == "icl_sfc" else ""
            blanks, more = self._rows(rows, without, shown)
            problems += more
        if problems:
            raise DataError(listing(problems))
        prompts = [()] * len(rows)
        if not self.options and not self.own:
            starts = _tokenise(self.tokenizer, [(before + prompt).lstrip() for prompt, _ in texts])
            prompts = [self._cut(start) for start in starts]
        return [
            Example(r.index, r.fields, self._options(r), r.golds, r.answers, made, prompt, blank)
            for r, made, prompt, blank in zip(rows, encoded, prompts, blanks, strict=True)
        ]

    def _options(self, record: Record) -> tuple[str, ...]:
        return record.candidates if self.own else tuple(o.fill(record.fields) for o in self.options)

    def _rows(
        self, rows: Sequence[Record], texts: list[tuple[str, list[str]]], before: str
    ) -> tuple[list[tuple[Row, ...]], list[str]]:
        """For each record the rows of its candidates, and what is wrong with them."""
        prompts = [prompt for prompt, _ in texts]
        wholes = [whole for _, candidates in texts for whole in candidates]
        finals = [(before + whole).lstrip() for whole in wholes]  # without `before`, most are the wholes
        known = dict.fromkeys([*prompts, *wholes, *finals])
        ids_of = dict(zip(known, _tokenise(self.tokenizer, list(known)), strict=True))
        problems: list[str] = []
        made: list[tuple[Row, ...]] = []
        for record, (prompt, candidates) in zip(rows, texts, strict=True):
            some = []
            for candidate in candidates:
                span = len(ids_of[candidate]) - len(ids_of[prompt])
                ids = ids_of[(before + candidate).lstrip()]
                if problem := self._misfit(span, ids):
                    problems.append(f"{record.place}: {problem} The text ends with {candidate[-60:]!r}.")
                some.append(Row(self._cut(ids), span))
            made.append(tuple(some))
        return made, problems

    def _misfit(self, span: int, ids: Ids) -> str | None:
        if span < 1:
            return "the option adds no token to its prompt, so it cannot be scored. Begin it with a space."
        if span >= self.limit:
            return f"the option has {span} tokens, but with one token before it a row holds {self.limit}."
        if span >= len(ids):
            return "nothing stands before the option, so its first token cannot be scored. Give a prompt."
        return None

    def _cut(self, ids: Ids) -> Ids:
        """At most `limit` tokens: the beginning-of-text token, if there is one, and the end."""
        if len(ids) <= self.limit:
            return ids
        if ids[0] == self.tokenizer.bos_token_id:
            return (ids[0], *ids[len(ids) - self.limit + 1 :])
        return ids[-self.limit :]


@dataclass(frozen=True)
class MaskedPrompts:
    """A text with one mask, and the token of each option's word. limits: tokens that a field's text may have."""

    tokenizer: PreTrainedTokenizerBase
    text: Template
    options: tuple[str, ...]
    limit: int
    limits: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def words(self) -> list[int]:
        """The option words as ids. Raises ConfigError where one is not a single token."""
        ids = {o: self.tokenizer.encode(f" {o.strip()}", add_special_tokens=False) for o in self.options}
        bad = [o for o, found in ids.items() if len(found) != 1 or found[0] == self.tokenizer.unk_token_id]
        if bad:
            raise ConfigError(
                f"task.options: {', '.join(bad)} is no single token of this model, which scores one word at "
                f"the mask. Choose other words."
            )
        return [found[0] for found in ids.values()]

    def string(self, record: Record) -> str:
        """The text, letter for letter as tokenised."""
        return self.text.fill({**record.fields, "mask": str(self.tokenizer.mask_token)}, self._shortened)

    def encode(self, rows: Sequence[Record]) -> list[Example]:
        """Examples with one row each."""
        encoded = _tokenise(self.tokenizer, [self.string(record) for record in rows])
        mask = self.tokenizer.mask_token_id
        wrong = [r.place for r, ids in zip(rows, encoded, strict=True) if ids.count(mask) != 1]
        if wrong:
            raise DataError(
                f"{self.text.where} must give one mask; it is not so in {', '.join(wrong[:LISTED])}. "
                f"The template holds {{mask}} once, and no field holds {self.tokenizer.mask_token}."
            )
        return [
            Example(r.index, r.fields, self.options, r.golds, (), (self._cut(ids, ids.index(mask)),))
            for r, ids in zip(rows, encoded, strict=True)
        ]

    def _shortened(self, name: str, text: str) -> str:
        """The beginning of a field's text that has as many tokens as `limits` says."""
        if name not in self.limits:
            return text
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in made["offset_mapping"]]
        return text if len(ends) <= self.limits[name] else text[: ends[self.limits[name] - 1]]

    def _cut(self, ids: Ids, mask: int) -> Row:
        """At most `limit` tokens: the end goes, but for the last token; before it, from the left, what would
        leave no room for the mask and what follows it.
        """
        over = max(len(ids) - self.limit, 0)
        left = 0 if mask < self.limit - 1 else min(over, mask - 1)
        kept = (ids[0], *ids[1 + left :])
        if len(kept) > self.limit:
            kept = (*kept[: self.limit - 1], kept[-1])
        return Row(kept, mask - left)


@dataclass(frozen=True)
class ClassifierPrompts:
    """A sentence or a pair of sentences, as the tokenizer joins them."""

    tokenizer: PreTrainedTokenizerBase
    text: Template
    pair: Template | None
    options: tuple[str, ...]
    limit: int

    def encode(self, rows: Sequence[Record]) -> list[Example]:
        """Examples with one row each; the longer sentence of a pair loses its end first."""
        if not rows:
            return []
        texts = [self.text.fill(r.fields) for r in rows]
        pairs = [self.pair.fill(r.fields) for r in rows] if self.pair else None
        made = self.tokenizer(texts, pairs, truncation=True, max_length=self.limit, verbose=False)
        types = made.get("token_type_ids") or [()] * len(rows)
        return [
            Example(r.index, r.fields, self.options, r.golds, (), (Row(tuple(ids), 0, tuple(kinds)),))
            for r, ids, kinds in zip(rows, made["input_ids"], types, strict=True)
        ]


Prompts = CausalPrompts | MaskedPrompts | ClassifierPrompts


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Ids]:
    return [tuple(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]] if texts else []
