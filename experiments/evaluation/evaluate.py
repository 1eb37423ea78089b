"""Evaluate a model on examples: the task's metric, its loss, and what they cost in model calls."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from experiments.evaluation.call_cost import call_cost
from experiments.evaluation.generate import generate, generate_and_score
from experiments.evaluation.prefix_cache import (
    ROWS,
    shareable,
    shared_logprobs,
    sharing_pays,
    worth_sharing,
)
from experiments.models.head import base_of
from experiments.models.loading import Loaded
from experiments.tasks import batches
from experiments.tasks.metrics import wilson
from experiments.tasks.objectives import AccuracyLoss, AnswerLoss, span_logprobs, unscored
from experiments.tasks.prompts import CausalPrompts, Example, Row
from experiments.tasks.task import Task
from zo.errors import DataError
from zo.team import Solo, Team


@dataclass(frozen=True)
class Evaluation:
    """The result of a model on n examples.

    value: the metric, a fraction, with its 95 % interval (None where every example is unscored: then it is NaN).
    loss: the training objective's; forward_passes: model calls, of up to `batch_size` examples each.
    majority, random: metric of the best constant prediction, accuracy of guessing (None if generated).
    predictions: the option's number, or the generated text, in the order of the examples; None: see unscored.
    unscored: examples whose scores or logits are no numbers. They are never right.
    """

    metric: str
    value: float
    ci95: tuple[float, float] | None
    loss: float
    n: int
    forward_passes: int
    majority: float
    random: float | None
    predictions: tuple[int | str | None, ...]
    unscored: int = 0

    @property
    def broken(self) -> bool:
        """Returns whether the model's scores are no numbers on any example."""
        return self.unscored == self.n


def evaluate(
    task: Task,
    loaded: Loaded,
    examples: Sequence[Example],
    batch_size: int = 64,
    *,
    share: bool = True,
    team: Team | None = None,
) -> Evaluation:
    """The metric and the loss, in eval mode, without gradients.

    share: a prompt goes through the model once for all its options, or for the generated and the gold answer, where
    the model allows it and lengths are such that it pays; the scores are the same to fp32 rounding. team: processes
    that share the batches; each batch is what it is in one process, and so is the result.
    """
    if not examples:
        raise DataError(f"Task {task.name} has no examples to evaluate on. Raise task.test or task.dev.")
    share, team = share and shareable(loaded), team or Solo()

    def judge(numbers: Sequence[int]) -> tuple[Sequence[int | str | None], tuple[Tensor, Tensor]]:
        some = [examples[number] for number in numbers]
        said, loss = (_answer if task.generated else _choose)(task, loaded, some, share)
        return said, (loss[0].cpu(), loss[1].cpu())

    dealt = list(_batches(examples, batch_size, share, call_cost(loaded.device)))
    with torch.no_grad(), _eval_mode(loaded.model), _calls(base_of(loaded.model)) as calls:
        judged = team.map(judge, dealt)
    losses = [loss for _, loss in judged]
    predictions = {
        number: answer
        for numbers, (said, _) in zip(dealt, judged, strict=True)
        for number, answer in zip(numbers, said, strict=True)
    }
    weighted, weights = (float(torch.cat(parts).double().sum()) for parts in zip(*losses, strict=True))
    ordered = tuple(predictions[number] for number in sorted(predictions))
    missing = sum(prediction is None for prediction in ordered)
    value = fmean(task.correct(e, p) for e, p in zip(examples, ordered, strict=True))
    value = math.nan if missing == len(examples) else value
    return Evaluation(
        metric=task.metric,
        value=value,
        ci95=None if math.isnan(value) else wilson(value, len(examples)),
        loss=weighted / weights,
        n=len(examples),
        forward_passes=sum(team.every(len(calls))),
        majority=task.majority_of(examples),
        random=task.random_of(examples),
        predictions=ordered,
        unscored=missing,
    )


def _answer(
    task: Task, loaded: Loaded, examples: Sequence[Example], share: bool
) -> tuple[list[str | None], tuple[Tensor, Tensor]]:
    """The generated answers, and weight x loss with the weights."""
    if isinstance(task.objective, AnswerLoss):
        said, *scored = generate_and_score(task, loaded, examples, share=share)
        losses, weights = task.objective.of(*scored)
        return said, (losses * weights, weights)
    said = generate(task, loaded, examples, share=share)
    scores = torch.tensor(
        [math.nan if t is None else task.correct(e, t) for e, t in zip(examples, said, strict=True)]
    )
    return said, (-scores, torch.ones_like(scores))


def _choose(
    task: Task, loaded: Loaded, examples: Sequence[Example], share: bool
) -> tuple[list[int | None], tuple[Tensor, Tensor]]:
    """The best option of each example, and weight x loss with the weights, from the same scores."""
    weights = torch.ones(len(examples), device=task.device)
    labels = torch.tensor([[e.golds[0]] for e in examples], device=task.device)
    if isinstance(task.prompts, CausalPrompts):
        rows = [example.rows for example in examples]
        sums, counts = _option_sums(task, loaded, rows, share)
        absent = counts == 0
        said = scores = (sums / counts.clamp(min=1.0)).masked_fill(absent, float("-inf"))
        if examples[0].blanks:
            said = (sums - _blank_sums(task, loaded, examples, share)).masked_fill(absent, float("-inf"))
    else:
        counts = weights[:, None]
        said = scores = task.scores(loaded.model, task.collate_options(examples))
    if isinstance(task.objective, AnswerLoss):
        weights = counts.gather(1, labels)[:, 0] if task.objective.average == "token" else weights
        losses = -scores.gather(1, labels)[:, 0]
    elif isinstance(task.objective, AccuracyLoss):
        losses = task.objective.of(scores, {"golds": batches.golds(examples).to(task.device)})
    else:
        losses = -scores.log_softmax(-1).gather(1, labels)[:, 0]
    chosen, none = said.argmax(-1).tolist(), unscored(said).tolist()
    return [None if bad else best for best, bad in zip(chosen, none, strict=True)], (
        losses * weights,
        weights,
    )


def _option_sums(
    task: Task, loaded: Loaded, rows: Sequence[Sequence[Row]], share: bool
) -> tuple[Tensor, Tensor]:
    """Sums of the options' log-probabilities and numbers of their tokens [B, O]; 0 where there is no such option.

    Where enough of each example's rows is the same, and that pays, it goes through the model once; else distinct rows
    do.
    """
    if share and all(map(worth_sharing, rows)) and sharing_pays(rows, call_cost(loaded.device)):
        found = shared_logprobs(loaded, rows)
    else:
        found = _sums_once(task, loaded, rows)
    spans = [torch.tensor([float(row.span) for row in some], device=task.device) for some in rows]
    return pad_sequence(list(found), batch_first=True), pad_sequence(spans, batch_first=True)


def _sums_once(task: Task, loaded: Loaded, rows: Sequence[Sequence[Row]]) -> Sequence[Tensor]:
    """The sums of every example's options, each distinct row read once, `ROWS` an example at most together."""
    flat = [row for some in rows for row in some]
    read, owners = batches.read_once(flat)
    groups: list[list[int]] = [[] for _ in read]
    for number, owner in enumerate(owners):
        groups[owner].append(number)
    sums = torch.zeros(len(flat), device=task.device)
    for start in range(0, len(groups), ROWS * len(rows)):
        some = groups[start : start + ROWS * len(rows)]
        found, counts = span_logprobs(
            loaded.model, task.collate_groups([[flat[number] for number in group] for group in some])
        )
        sums[[number for group in some for number in group]] = found[counts > 0]
    return sums.split([len(some) for some in rows])


def _blank_sums(task: Task, loaded: Loaded, examples: Sequence[Example], share: bool) -> Tensor:
    """Sums of the options' log-probabilities after the prompt without an input [B, O].

    Examples whose rows of that kind are equal, as where no field is in them, share one.
    """
    first = list({example.blanks: example for example in examples}.values())
    places = {example.blanks: number for number, example in enumerate(first)}
    rows = [example.blanks for example in first]
    sums, _ = _option_sums(task, loaded, rows, share)
    return sums[[places[example.blanks] for example in examples]]


def _batches(examples: Sequence[Example], size: int, share: bool, call: int) -> Iterator[list[int]]:
    """Numbers of examples of like length, so that little is padded; first those whose prompts are worth sharing."""
    by_length = sorted(range(len(examples)), key=lambda n: max(len(row.ids) for row in examples[n].rows))
    sharing = _cut([n for n in by_length if share and worth_sharing(examples[n].rows)], size)
    paying = [some for some in sharing if sharing_pays([examples[n].rows for n in some], call)]
    taken = {n for some in paying for n in some}
    yield from paying
    yield from _cut([n for n in by_length if n not in taken], size)


def _cut(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """No dropout within; each module is as before afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _calls(module: nn.Module) -> Iterator[list[None]]:
    """A list with one entry a call of the module."""
    made: list[None] = []
    handle = module.register_forward_hook(lambda *_: made.append(None))
    try:
        yield made
    finally:
        handle.remove()
