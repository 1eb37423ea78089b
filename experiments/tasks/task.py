"""A task put to a model: its examples, its batches, its objective, its baselines."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

import torch

from experiments.config.parsing import read
from experiments.config.task_config import TaskConfig, read_by
from experiments.models.loading import Loaded
from experiments.tasks import batches
from experiments.tasks.batches import Batch
from experiments.tasks.encoding import encode, limit_of, prompts_of
from experiments.tasks.generation import Greedy
from experiments.tasks.metrics import METRICS
from experiments.tasks.objectives import (
    AccuracyLoss,
    AnswerLoss,
    GeneratedLoss,
    Objective,
    OptionLoss,
    Scores,
    class_logits,
    mean_logprobs,
    word_logits,
)
from experiments.tasks.prompts import CausalPrompts, Example, MaskedPrompts, Prompts, Row
from experiments.tasks.scored_tokens import Encoder
from experiments.tasks.splits import digest_of, draw_shown, draw_splits, fingerprint, sources_of
from experiments.tasks.summary import Summary, summarise
from zo.errors import DataError


@dataclass(frozen=True)
class Task:
    """Examples and how they become batches and losses.

    options: their texts, () for generated answers and for options that differ by example.
    fingerprint: SHA-256 (hex) over the examples' texts and labels and their split.
    sources: SHA-256 (hex) over all that they could have been drawn from, the same for every seed.
    """

    name: str
    prompts: Prompts
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    options: tuple[str, ...]
    metric: Literal["accuracy", "f1", "exact_match"]
    objective: Objective
    pad: int
    limit: int
    max_new_tokens: int
    device: torch.device
    fingerprint: str
    sources: str
    summary: Summary = field(default_factory=Summary)

    @property
    def generated(self) -> bool:
        """Returns whether answers are generated instead of chosen among options."""
        return self.metric != "accuracy"

    @property
    def scores(self) -> Scores:
        """Scores of an example's options, from a batch of `collate_options`."""
        return _scores(self.prompts)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """The batch that the objective takes, on the model's device."""
        if isinstance(self.objective, AnswerLoss):
            return self._placed(batches.answer_batch(examples, self.pad, self.limit))
        if isinstance(self.objective, GeneratedLoss):
            return self.collate_prompts(examples)
        return self.collate_options(examples)

    def tokens(self, example: Example) -> int:
        """Tokens that `collate` puts into the model for an example, padding apart."""
        if isinstance(self.objective, GeneratedLoss):
            return len(example.prompt)
        if isinstance(self.objective, AnswerLoss):
            return len(batches.answer_row(example).ids) - 1
        if isinstance(self.prompts, CausalPrompts):
            return sum(map(len, batches.read_once(example.rows)[0]))
        return len(example.rows[0].ids)

    def collate_prompts(self, examples: Sequence[Example]) -> Batch:
        """The batch that answers are generated from, on the model's device."""
        return self._placed(batches.prompt_batch(examples, self.pad, self.limit))

    def collate_options(self, examples: Sequence[Example]) -> Batch:
        """The batch that `scores` takes, on the model's device."""
        if isinstance(self.prompts, CausalPrompts):
            batch = batches.option_batch(examples, self.pad, self.limit)
        elif isinstance(self.prompts, MaskedPrompts):
            batch = batches.cloze_batch(examples, self.prompts.words, self.pad, self.limit)
        else:
            batch = batches.class_batch(examples, self.pad, self.limit)
        return self._placed(batch)

    def collate_rows(self, rows: Sequence[Row]) -> Batch:
        """Returns the `row_batch` of single rows, on the model's device."""
        return self._placed(batches.row_batch(rows, self.pad, self.limit))

    def collate_groups(self, groups: Sequence[Sequence[Row]]) -> Batch:
        """Returns the `scored_batch` of groups of rows, as wide as the longest, on the model's device."""
        return self._placed(batches.scored_batch(groups, self.pad, None))

    def correct(self, example: Example, prediction: int | str | None) -> float:
        """The metric of one prediction: an option's number, a text, or None, which is never right."""
        if prediction is None:
            return 0.0
        if self.generated:
            return METRICS[self.metric](str(prediction), example.answers)
        return float(prediction in example.golds)

    def majority_of(self, examples: Sequence[Example]) -> float:
        """Returns the metric of a constant prediction.

        It is the option that is most frequent among these examples, or the answer that is most frequent in train.
        """
        if not examples:
            raise DataError(f"Task {self.name} has no examples here, so it has no baseline.")
        if self.generated:
            constant = Counter(example.answers[0] for example in self.train).most_common(1)[0][0]
            return fmean(self.correct(example, constant) for example in examples)
        counts = Counter(gold for example in examples for gold in set(example.golds))
        return counts.most_common(1)[0][1] / len(examples)

    def random_of(self, examples: Sequence[Example]) -> float | None:
        """The accuracy that guessing among the options has on average; None for generated answers."""
        if self.generated:
            return None
        return fmean(len(set(e.golds)) / len(e.options) for e in examples)

    def _placed(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device) for name, tensor in batch.items()}


def load_task(choice: TaskConfig | dict[str, Any], loaded: Loaded, seed: int = 0, test_seed: int = 0) -> Task:
    """A task for a model, train and dev drawn under `seed`, test under `test_seed`.

    Raises ConfigError for a task that does not fit the model or its own columns, DataError for wrong data.
    """
    choice = read(TaskConfig, choice, "task")
    limit = limit_of(choice, loaded)
    prompts = prompts_of(choice, loaded, limit)
    sources = sources_of(choice)
    fields = sorted(read_by(choice, loaded.family))
    splits = draw_splits(choice, fields, sources, seed, test_seed)
    shown = draw_shown(choice, fields, splits, sources, seed)
    train, dev, test = encode(choice, prompts, splits, shown)
    _check_ids(loaded, (*train, *dev, *test))
    options = tuple(choice.options or ())
    if isinstance(prompts, CausalPrompts) and any(option.fields for option in prompts.options):
        options = ()
    return Task(
        name=choice.name,
        prompts=prompts,
        train=train,
        dev=dev,
        test=test,
        options=options,
        metric=choice.metric,
        objective=_objective(choice, loaded, prompts, train),
        pad=loaded.pad,
        limit=limit,
        max_new_tokens=choice.max_new_tokens,
        device=loaded.device,
        fingerprint=fingerprint(splits, shown),
        sources=digest_of(choice, sources),
        summary=summarise(choice, splits, (*train, *dev, *test), Encoder(loaded.tokenizer)),
    )


def _check_ids(loaded: Loaded, examples: Sequence[Example]) -> None:
    """Raises DataError for an id that the model has no embedding of, as with the tokenizer of another model."""
    largest = max(
        (
            token
            for e in examples
            for ids in (e.prompt, *(row.ids for row in (*e.rows, *e.blanks)))
            for token in ids
        ),
        default=0,
    )
    if loaded.vocabulary is not None and largest >= loaded.vocabulary:
        raise DataError(
            f"{loaded.folder}: the token {loaded.tokenizer.convert_ids_to_tokens(largest)!r} has the id {largest}, but "
            f"the model has embeddings for {loaded.vocabulary}. Take the tokenizer that the model was published with."
        )


def class_count(choice: TaskConfig | dict[str, Any]) -> int | None:
    """Returns how many options every example has, which a classifier's head needs; None for generated answers."""
    options = read(TaskConfig, choice, "task").options
    return len(options) if options is not None else None


def _objective(choice: TaskConfig, loaded: Loaded, prompts: Prompts, train: Sequence[Example]) -> Objective:
    if choice.objective == "answer":
        return AnswerLoss(choice.average)
    if choice.objective == "metric" and choice.generated:
        greedy = Greedy(loaded.tokenizer, loaded.pad, choice.max_new_tokens)
        return GeneratedLoss(greedy, METRICS[choice.metric], {e.index: e.answers for e in train})
    kind = AccuracyLoss if choice.objective == "metric" else OptionLoss
    return kind(_scores(prompts))


def _scores(prompts: Prompts) -> Scores:
    if isinstance(prompts, CausalPrompts):
        return mean_logprobs
    return word_logits if isinstance(prompts, MaskedPrompts) else class_logits
