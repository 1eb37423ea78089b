"""Prompts: a record's text and token rows for causal models, masked models and classifiers.

Causal, as in MeZO's large_models (Malladi et al. 2023): one text a candidate; spaces are stripped from the
ends of the prompt and of the whole, white space from the whole's beginning; an option's tokens are those behind the
prompt's, which is tokenised with and without it; what is too long loses tokens on the left, but for the
beginning-of-text token. Demonstrations stand before it with a blank line between, white space at their ends
stripped; surface-form calibration scores the same options after a prompt without an input.
Masked, as in LM-BFF (Gao et al. 2021): the pieces of the template (its own text, each field, the mask) are encoded
apart, so that no token spans two of them; option words are single tokens, compared at the mask; what is too long
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
from experiments.tasks.scored_tokens import Encoder, Ids, distinct, scored
from zo.errors import ConfigError, DataError

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
    merged: candidates left out because another one of the record is the same tokens.
    """

    index: int
    fields: Mapping[str, str]
    options: tuple[str, ...]
    golds: tuple[int, ...]
    answers: tuple[str, ...]
    rows: tuple[Row, ...]
    prompt: Ids = ()
    blanks: tuple[Row, ...] = ()
    merged: int = 0


@dataclass(frozen=True)
class CausalPrompts:
    """Prompt and option (or answer) texts; at most `limit` tokens a row.

    own: options are each record's candidates. blank: the prompt without an input, which `calibrate` asks for;
    with icl_sfc it stands after the demonstrations. first: the id that begins rows; None: the tokenizer's own.
    """

    tokenizer: PreTrainedTokenizerBase
    prompt: Template
    answer: Template
    options: tuple[Template, ...]
    limit: int
    own: bool = False
    blank: Template | None = None
    calibrate: Literal["sfc", "icl_sfc"] | None = None
    first: int | None = None

    @cached_property
    def encoder(self) -> Encoder:
        """Texts to ids."""
        return Encoder(self.tokenizer, self.first)

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
        """Returns records with their right options or first answers, and the text between them and a prompt."""
        shown = [self.texts(r)[1][r.golds[0] if r.golds else 0].strip() for r in rows]
        return SEPARATOR.join([*shown, ""]).lstrip()

    def encode(self, rows: Sequence[Record], before: str | Sequence[str] = "") -> list[Example]:
        """Examples with one row a candidate. before: text before all prompts, or one for each.

        Candidates of a record that become the same tokens are one. Raises DataError for options that do not fit, that
        add no token, or that are the same tokens though the task names them as different ones.
        """
        befores = [before] * len(rows) if isinstance(before, str) else list(before)
        texts = [self.texts(record) for record in rows]
        encoded, problems = self._rows(rows, texts, befores)
        kept = [distinct([row.ids for row in some]) for some in encoded]
        if not self._vary:
            problems += [
                f"{record.place}: {self._same(record, some, keep)}"
                for record, some, keep in zip(rows, encoded, kept, strict=True)
                if len(set(keep)) < len(some)
            ]
        blanks: list[tuple[Row, ...]] = [()] * len(rows)
        if self.calibrate is not None:
            without = [self.texts(record, blank=True) for record in rows]
            shown = befores if self.calibrate == "icl_sfc" else [""] * len(rows)
            blanks, more = self._rows(rows, without, shown)
            problems += more
        if problems:
            raise DataError(listing(problems))
        prompts: list[Ids] = [()] * len(rows)
        if not self.options and not self.own:
            prompt_texts = [(one + prompt).lstrip() for one, (prompt, _) in zip(befores, texts, strict=True)]
            prompts = [self._cut(start) for start in self.encoder.rows(prompt_texts)]
        return [self._example(*parts) for parts in zip(rows, encoded, kept, prompts, blanks, strict=True)]

    @property
    def _vary(self) -> bool:
        """Returns whether options differ by record."""
        return self.own or any(option.fields for option in self.options)

    def _example(
        self, record: Record, rows: tuple[Row, ...], kept: list[int], prompt: Ids, blanks: tuple[Row, ...]
    ) -> Example:
        """An example of the distinct candidates; kept: for each candidate the number of the first equal one."""
        options, first = self._options(record), sorted(set(kept))
        place = {number: new for new, number in enumerate(first)}
        golds = tuple(dict.fromkeys(place[kept[gold]] for gold in record.golds))
        return Example(
            record.index,
            record.fields,
            tuple(options[number] for number in first) if options else (),
            golds,
            record.answers,
            tuple(self._shortest(rows[number]) for number in first),
            prompt,
            tuple(self._shortest(blanks[number]) for number in first) if blanks else (),
            len(kept) - len(first),
        )

    def _same(self, record: Record, rows: tuple[Row, ...], kept: list[int]) -> str:
        """A sentence on the first two options of a record that are the same tokens."""
        later = next(number for number, first in enumerate(kept) if first != number)
        one, other = (self._options(record)[number].strip() for number in (kept[later], later))
        tokens = self.tokenizer.convert_ids_to_tokens(list(rows[later].ids[-rows[later].span :]))
        return (
            f"the options {one!r} and {other!r} are the same tokens of this model ({' '.join(map(str, tokens))}), so "
            f"one of them could never be chosen. Word task.options otherwise."
        )

    def _options(self, record: Record) -> tuple[str, ...]:
        return record.candidates if self.own else tuple(o.fill(record.fields) for o in self.options)

    def _rows(
        self, rows: Sequence[Record], texts: list[tuple[str, list[str]]], befores: list[str]
    ) -> tuple[list[tuple[Row, ...]], list[str]]:
        """Returns for each record the rows of its candidates, uncut, and their problems."""
        prompt_texts = [
            (before + prompt).lstrip() for before, (prompt, _) in zip(befores, texts, strict=True)
        ]
        wholes = [
            [(before + whole).lstrip() for whole in candidates]
            for before, (_, candidates) in zip(befores, texts, strict=True)
        ]
        known = list(dict.fromkeys([*prompt_texts, *(whole for some in wholes for whole in some)]))
        ids_of = dict(zip(known, self.encoder.rows(known), strict=True))
        problems: list[str] = []
        encoded: list[tuple[Row, ...]] = []
        for record, prompt, candidates in zip(rows, prompt_texts, wholes, strict=True):
            some = []
            for candidate in candidates:
                row = Row(ids_of[candidate], scored(ids_of[prompt], ids_of[candidate]))
                if problem := self._misfit(row, candidate):
                    problems.append(f"{record.place}: {problem} The text ends with {candidate[-60:]!r}.")
                some.append(row)
            encoded.append(tuple(some))
        return encoded, problems

    def _misfit(self, row: Row, text: str) -> str | None:
        if row.span < 1:
            return "the option adds no token to its prompt, so it cannot be scored. Begin it with a space."
        if row.span >= self.limit:
            return f"the option has {row.span} tokens, but with one token before it a row holds {self.limit}."
        if row.span >= len(row.ids):
            return "nothing stands before the option, so its first token cannot be scored. Give a prompt."
        end = self.tokenizer.eos_token
        if row.ids[-1] == self.tokenizer.eos_token_id and not text.endswith(str(end)):
            return f"the tokenizer ends the text with {end}, which would be scored in the option's place."
        return None

    def _shortest(self, row: Row) -> Row:
        """The row as the model reads it."""
        return Row(self._cut(row.ids), row.span)

    def _cut(self, ids: Ids) -> Ids:
        """Cuts to at most `limit` tokens: those that begin every row, if there is room beside them, and the end."""
        if len(ids) <= self.limit:
            return ids
        start = self.encoder.start if len(self.encoder.start) < self.limit - 1 else ()
        return start + ids[len(ids) - self.limit + len(start) :]


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
        bad = [o for o, tokens in ids.items() if len(tokens) != 1 or tokens[0] == self.tokenizer.unk_token_id]
        if bad:
            raise ConfigError(
                f"task.options: {', '.join(bad)} is no single token of this model, which scores one word at "
                f"the mask. Choose other words."
            )
        words = [tokens[0] for tokens in ids.values()]
        if same := [option for option, word in zip(ids, words, strict=True) if words.count(word) > 1]:
            raise ConfigError(
                f"task.options: {', '.join(same)} are the same token of this model, so that all but the first could "
                f"never be chosen. Choose other words."
            )
        return words

    @cached_property
    def encoder(self) -> Encoder:
        """Texts to ids."""
        return Encoder(self.tokenizer)

    def string(self, record: Record) -> str:
        """The text that the pieces make together."""
        return self.text.fill({**record.fields, "mask": str(self.tokenizer.mask_token)}, self._shortened)

    def encode(self, rows: Sequence[Record]) -> list[Example]:
        """Examples with one row each."""
        encoded = self._ids(rows)
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

    def _ids(self, rows: Sequence[Record]) -> list[Ids]:
        """The ids of each record's text, its pieces encoded apart.

        Where the tokenizer begins every piece with a space, the whole is encoded at once: apart it would be another
        text.
        """
        before, after = self.encoder.frame
        if self.encoder.spaced:
            return [
                before + body + after
                for body in self.encoder.bodies([self.string(record) for record in rows])
            ]
        texts = [self.pieces(record) for record in rows]
        known = list(dict.fromkeys(text for pieces in texts for _, text in pieces))
        ids_of = dict(zip(known, self.encoder.bodies(known), strict=True))
        return [
            before
            + tuple(token for name, text in pieces for token in ids_of[text][: self.limits.get(name or "")])
            + after
            for pieces in texts
        ]

    def pieces(self, record: Record) -> list[tuple[str | None, str]]:
        """The texts that are encoded apart, with the names of those that are fields.

        A space between literal text and a field belongs to the field, as words hold the space before them. One between
        literal text and the mask goes, where the mask token takes it in a whole text too.
        """
        mask = str(self.tokenizer.mask_token)
        parts = self.text.pieces({**record.fields, "mask": mask})
        taken = any(t.lstrip for t in self.tokenizer.added_tokens_decoder.values() if t.content == mask)
        pieces: list[tuple[str | None, str]] = []
        space = ""
        for (name, text), (following, _) in zip(parts, [*parts[1:], (None, "")], strict=True):
            whole, space = space + text, ""
            if name is None and following is not None:
                bare = whole.rstrip(" ")
                if following != "mask":
                    space = whole[len(bare) :]
                whole = bare if following != "mask" or taken else whole
            pieces.append((name, whole))
        return [(name, text) for name, text in pieces if text]

    def _shortened(self, name: str, text: str) -> str:
        """The beginning of a field's text that has as many tokens as `limits` says."""
        if name not in self.limits:
            return text
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in encoding["offset_mapping"]]
        return text if len(ends) <= self.limits[name] else text[: ends[self.limits[name] - 1]]

    def _cut(self, ids: Ids, mask: int) -> Row:
        """Cuts to at most `limit` tokens: the end but its last, then the beginning if the mask has no room."""
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
        encoding = self.tokenizer(texts, pairs, truncation=True, max_length=self.limit, verbose=False)
        types = encoding.get("token_type_ids") or [()] * len(rows)
        return [
            Example(r.index, r.fields, self.options, r.golds, (), (Row(tuple(ids), 0, tuple(kinds)),))
            for r, ids, kinds in zip(rows, encoding["input_ids"], types, strict=True)
        ]


Prompts = CausalPrompts | MaskedPrompts | ClassifierPrompts
