"""Summarises a task's examples: their number, the spread of labels, and reasons to trust a result less."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.config.task_config import TaskConfig
from experiments.tasks.prompts import Example
from experiments.tasks.records import Record
from experiments.tasks.scored_tokens import Encoder
from experiments.tasks.splits import SPLITS, Splits


@dataclass(frozen=True)
class Summary:
    """Counts the examples of a task.

    counts: examples by split. labels: of each split, how many examples have each option; {} where every example has
    options of its own, or answers are generated. warnings: sentences, each with its number.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def line(self) -> str:
        """One line for the screen."""
        parts = []
        for split, count in self.counts.items():
            spread = ", ".join(f"{option} {n:,}" for option, n in self.labels.get(split, {}).items())
            parts.append(f"{split} {count:,}" + (f" ({spread})" if spread and count else ""))
        return f"Examples: {'; '.join(parts)}"

    def record(self) -> dict[str, Any]:
        """The same for result.json."""
        return {
            "counts": dict(self.counts),
            "labels": {split: dict(spread) for split, spread in self.labels.items()},
            "warnings": list(self.warnings),
        }


def summarise(choice: TaskConfig, splits: Splits, examples: Sequence[Example], encoder: Encoder) -> Summary:
    """The summary of the drawn rows; examples: made of all of them."""
    named: dict[str, list[Record]] = dict(zip(SPLITS, splits, strict=True))
    counts = {split: len(rows) for split, rows in named.items()}
    labels = {}
    if choice.options is not None:
        for split, rows in named.items():
            count = Counter(record.golds[0] for record in rows)
            labels[split] = {option.strip(): count[number] for number, option in enumerate(choice.options)}
    warnings = [
        *_fewer(choice, counts),
        *_one_class(labels),
        *_standing_in_train(named),
        *_special(named, encoder),
        *_merged(examples),
    ]
    return Summary(counts, labels, tuple(warnings))


def _fewer(choice: TaskConfig, counts: Mapping[str, int]) -> Iterator[str]:
    wanted = {"train": choice.train, "dev": choice.dev, "test": choice.test}
    if choice.k is not None:
        wanted |= dict.fromkeys(("train", "dev"), choice.k * len(choice.options or ()))
    for split, number in wanted.items():
        if counts[split] < number:
            key = "task.k" if choice.k is not None and split != "test" else f"task.{split}"
            yield f"{key} asks for {number:,} {split} examples; the data give {counts[split]:,}."


def _one_class(labels: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for split, spread in labels.items():
        there = [option for option, count in spread.items() if count]
        if len(there) == 1 and spread[there[0]] > 1:
            yield f"All {spread[there[0]]:,} {split} examples have the label {there[0]}."


def _standing_in_train(named: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """Rows of dev and test whose texts are those of a train row, case and white space apart."""
    known = {_normalised(record) for record in named["train"]}
    for split in ("dev", "test"):
        count = sum(_normalised(record) in known for record in named[split])
        if count:
            yield (
                f"{count:,} of {len(named[split]):,} {split} examples have the text of a train example, so the {split} "
                f"metric says less about new text."
            )


def _normalised(record: Record) -> tuple[str, ...]:
    texts = (*(text for _, text in sorted(record.fields.items())), *record.candidates)
    return tuple(" ".join(text.lower().split()) for text in texts)


def _special(named: Mapping[str, Sequence[Record]], encoder: Encoder) -> Iterator[str]:
    """Rows whose own text holds what the tokenizer takes for a special token, as MeZO's code and lm-eval do too."""
    counts: Counter[str] = Counter()  # rows by token
    first = ""
    for record in (record for rows in named.values() for record in rows):
        text = "\0".join((*record.fields.values(), *record.candidates, *record.answers))
        for token in encoder.special:
            if token in text:
                counts[token] += 1
                first = first or record.place
    if counts:
        listed = ", ".join(f"{token} in {count:,}" for token, count in sorted(counts.items()))
        yield (
            f"Texts hold letters that the tokenizer reads as a special token: {listed} rows, the first {first}. They "
            f"are not read as letters."
        )


def _merged(examples: Sequence[Example]) -> Iterator[str]:
    rows = sum(example.merged > 0 for example in examples)
    if rows:
        yield f"{rows:,} examples have equal candidates, which count as one."
