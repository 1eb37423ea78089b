"""A task put to a model: its examples, its batches, its objective, its baselines."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import torch

from experiments.choices import TaskChoice, read
from experiments.models.loading import Loaded
from experiments.objectives import (
    AnswerLoss,
    Objective,
    OptionLoss,
    Scores,
    class_logits,
    mean_logprobs,
    word_logits,
)
from experiments.tasks import batches
from experiments.tasks.batches import Batch
from experiments.tasks.data import read_split, world_split
from experiments.tasks.metrics import METRICS
from experiments.tasks.prompts import CausalPrompts, ClassifierPrompts, Example, MaskedPrompts, Prompts
from experiments.tasks.records import Record, records
from experiments.tasks.sampling import draw, train_and_dev
from experiments.tasks.template import Template
from zo.errors import ConfigError, DataError

# Tokens a row may have where task.max_length is null: MeZO's limit, and room for LM-BFF's pairs of sentences.
CAUSAL_LENGTH, ENCODER_LENGTH = 2048, 256


@dataclass(frozen=True)
class Task:
    """Examples and how they become batches and losses.

    options: their texts, () for generated answers and for options that differ by example.
    fingerprint: SHA-256 (hex) over the examples' texts and labels and their split.
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

    @property
    def generated(self) -> bool:
        """Whether answers are generated instead of chosen among options."""
        return self.metric != "accuracy"

    @property
    def scores(self) -> Scores:
        """Scores of an example's options, from a batch of `collate_options`."""
        if isinstance(self.prompts, CausalPrompts):
            return mean_logprobs
        return word_logits if isinstance(self.prompts, MaskedPrompts) else class_logits

    @property
    def majority(self) -> float:
        """Metric on test of the best constant prediction, see `majority_of`."""
        return self.majority_of(self.test)

    @property
    def random(self) -> float | None:
        """Accuracy on test that guessing among the options has on average; None for generated answers."""
        return self.random_of(self.test)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """The batch that the objective takes, on the model's device."""
        if isinstance(self.objective, AnswerLoss):
            return self._placed(batches.answer_batch(examples, self.pad, self.limit))
        return self.collate_options(examples)

    def collate_options(self, examples: Sequence[Example]) -> Batch:
        """The batch that `scores` takes, on the model's device."""
        if isinstance(self.prompts, CausalPrompts):
            batch = batches.option_batch(examples, self.pad, self.limit)
        elif isinstance(self.prompts, MaskedPrompts):
            batch = batches.cloze_batch(examples, self.prompts.words, self.pad, self.limit)
        else:
            batch = batches.class_batch(examples, self.pad, self.limit)
        return self._placed(batch)

    def correct(self, example: Example, prediction: int | str) -> float:
        """The metric of one prediction: an option's number, or a text."""
        if self.generated:
            return METRICS[self.metric](str(prediction), example.answers)
        return float(prediction in example.golds)

    def majority_of(self, examples: Sequence[Example]) -> float:
        """The metric of one constant prediction: the option most frequent among these examples, or the answer
        most frequent in train.
        """
        if not examples:
            raise DataError(f"Task {self.name} has no examples here, so it has no baseline.")
        if self.generated:
            constant = Counter(example.answers[0] for example in self.train).most_common(1)[0][0]
            return fmean(self.correct(example, constant) for example in examples)
        counts = Counter(gold for example in examples for gold in set(example.golds))
        return counts.most_common(1)[0][1] / len(examples)

    def random_of(self, examples: Sequence[Example]) -> float | None:
        """The accuracy that guessing has on average."""
        if self.generated:
            return None
        return fmean(len(set(e.golds)) / len(e.options) for e in examples)

    def _placed(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device) for name, tensor in batch.items()}


def load_task(choice: TaskChoice | dict[str, Any], loaded: Loaded, seed: int = 0) -> Task:
    """A task for a model, its splits drawn under `seed`.

    Raises ConfigError for a task that does not fit the model or its own columns, DataError for wrong data.
    """
    choice = read(TaskChoice, choice, "task")
    limit = _limit(choice, loaded)
    prompts = _prompts(choice, loaded, limit)
    splits = _splits(choice, sorted(prompts.fields), seed)
    train, dev, test = (tuple(prompts.encode(rows)) if rows else () for rows in splits)
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
        objective=_objective(choice, prompts),
        pad=loaded.pad,
        limit=limit,
        max_new_tokens=choice.max_new_tokens,
        device=loaded.device,
        fingerprint=_fingerprint(splits),
    )


def class_count(choice: TaskChoice | dict[str, Any]) -> int | None:
    """How many options every example has, which a classifier's head needs; None for generated answers."""
    options = read(TaskChoice, choice, "task").options
    return len(options) if options is not None else None


def _limit(choice: TaskChoice, loaded: Loaded) -> int:
    """Tokens a row may have. Room for the generated answer is kept free, in training too, as MeZO does."""
    default = CAUSAL_LENGTH if loaded.family == "causal" else ENCODER_LENGTH
    limit = min(choice.max_length or default, loaded.context)
    if choice.options is None:
        limit -= choice.max_new_tokens
        if limit < 2:
            raise ConfigError(
                f"task.max_new_tokens={choice.max_new_tokens} leaves no room for a prompt in the "
                f"{limit + choice.max_new_tokens} tokens of a row. Lower it."
            )
    return limit


def _prompts(choice: TaskChoice, loaded: Loaded, limit: int) -> Prompts:
    """The family's prompts, every template checked against the columns."""
    template = getattr(choice.templates, loaded.family)
    if template is None or (choice.options is None and loaded.family != "causal"):
        families = [f for f in ("causal", "masked", "classifier") if getattr(choice.templates, f) is not None]
        raise ConfigError(
            f"Task {choice.name} has no template for a {loaded.family} model such as {loaded.name}; it has "
            f"one for {', '.join(families)}. Choose another model, or add task.templates.{loaded.family}."
        )
    where = f"task.templates.{loaded.family}"
    options = tuple(Template(text, f"task.options[{i}]") for i, text in enumerate(choice.options or ()))
    known = set(choice.columns) - {"label", "answers"}
    prompts: Prompts
    if loaded.family == "causal":
        prompt, answer = (
            Template(template.prompt, f"{where}.prompt"),
            Template(template.answer, f"{where}.answer"),
        )
        prompts = CausalPrompts(loaded.tokenizer, prompt, answer, options, limit)
        said = "option" if options else "answer"
        problems = prompt.check(known | {"eos"}) + answer.check(known | {"eos", said})
        problems += [problem for option in options for problem in option.check(known)]
        if said not in answer.fields:
            problems.append(f"{where}.answer={template.answer!r} must hold {{{said}}}.")
    else:
        text = Template(template.text, f"{where}.text")
        problems = [
            f"{o.where} holds a field, which only causal models can score." for o in options if o.fields
        ]
        if loaded.family == "masked":
            prompts = MaskedPrompts(loaded.tokenizer, text, tuple(choice.options or ()), limit)
            problems += text.check(known | {"mask"})
        else:
            pair = Template(template.pair, f"{where}.pair") if template.pair is not None else None
            prompts = ClassifierPrompts(loaded.tokenizer, text, pair, tuple(choice.options or ()), limit)
            problems += text.check(known) + (pair.check(known) if pair else [])
    if loaded.family != "causal" and choice.objective != "options":
        problems.append(
            f"task.objective={choice.objective} is for causal models; a {loaded.family} one takes options."
        )
    if problems:
        raise ConfigError("\n".join(problems))
    if isinstance(prompts, MaskedPrompts):
        assert (
            prompts.words
        )  # raises ConfigError for a word that is no single token, before any data are read
    return prompts


def _objective(choice: TaskChoice, prompts: Prompts) -> Objective:
    if choice.objective == "answer":
        return AnswerLoss(choice.average)
    if isinstance(prompts, CausalPrompts):
        return OptionLoss(mean_logprobs)
    return OptionLoss(word_logits if isinstance(prompts, MaskedPrompts) else class_logits)


def _splits(
    choice: TaskChoice, fields: list[str], seed: int
) -> tuple[list[Record], list[Record], list[Record]]:
    """Train, dev and test. As in the papers, test is drawn from the validation split, under the same seed."""
    if choice.data_dir is None and choice.source.world is not None:
        sizes = {"train": choice.train, "dev": choice.dev, "test": choice.test}
        tables = [world_split(choice, split, n, seed) for split, n in sizes.items()]
        train, dev, test = (records(t, choice, fields) if t.rows else [] for t in tables)
        return train, dev, test
    pool = records(read_split(choice, choice.source.train), choice, fields)
    train_rows, dev_rows = train_and_dev(len(pool), choice.train, choice.dev, choice.dev_share, seed)
    held_out = records(read_split(choice, choice.source.test), choice, fields)
    test_rows = draw(len(held_out), choice.test, seed)
    return [pool[i] for i in train_rows], [pool[i] for i in dev_rows], [held_out[i] for i in test_rows]


def _fingerprint(splits: tuple[list[Record], list[Record], list[Record]]) -> str:
    total = hashlib.sha256()
    for name, rows in zip(("train", "dev", "test"), splits, strict=True):
        for r in rows:
            line = [name, r.index, sorted(r.fields.items()), r.label, r.answers]
            total.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()
