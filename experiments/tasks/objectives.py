"""Objectives: (model, batch) → losses [B] fp32, or (losses [B], weights [B]); one model call each.

    options   cross-entropy over the options' scores. An option's score: the mean log-probability of its
              tokens (causal), the logit of its word at the mask (masked), its class's logit (classifier).
    answer    minus the mean log-probability of the answer's tokens, weighted by their number (average:
              token, as MeZO trains) or equally (average: example).
    metric    minus the task's metric, which has no gradient: minus the accuracy of the best option (of an example
              0 or -1), or minus F1 or exact match of the greedily generated answer.

A batch is a dict of tensors whose leading dimension is B, of any size. Logits exist only at the positions
that count, and are upcast to fp32 before log-softmax.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.models.head import head_at
from experiments.tasks.generation import Greedy

Batch = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch], Tensor | tuple[Tensor, Tensor]]
Scores = Callable[[nn.Module, Batch], Tensor]


def span_logprobs(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum of the targets' log-probabilities, and their number; both fp32, of the shape that precedes K.

    batch: of `scored_batch` or `row_batch`; each target is read at one of its example's positions.
    """
    targets = batch["targets"]
    ids, mask, positions = (
        batch[name].reshape(-1, batch[name].shape[-1])
        for name in ("input_ids", "attention_mask", "positions")
    )
    with head_at(model, positions):
        # Left to itself a decoder keeps all layers' keys and values: OPT-13B at 16x128 tokens 1.8 GiB, else 0.2.
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # [B D, P, V]
    logprobs = logits.float().log_softmax(-1)
    index = batch["places"] * logprobs.shape[-1] + targets.clamp(min=0)  # into [B, D P V]
    each = logprobs.reshape(len(targets), -1).gather(1, index.flatten(1)).view_as(targets)
    there = targets >= 0
    return torch.where(there, each, 0.0).sum(-1), there.sum(-1).float()


def mean_logprobs(model: nn.Module, batch: Batch) -> Tensor:
    """Mean log-probability of each option's tokens [B, O]; -inf where an example has no such option."""
    sums, counts = span_logprobs(model, batch)
    return (sums / counts.clamp(min=1.0)).masked_fill(counts == 0, float("-inf"))


def unscored(scores: Tensor) -> Tensor:
    """Returns whether scores [B, O] choose no option: one of them is NaN, or the best is infinite.

    -inf stands for an option that the example does not have.
    """
    return scores.isnan().any(-1) | ~scores.amax(-1).isfinite()


def word_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits of the option words at the mask [B, O]."""
    with head_at(model, batch["positions"]):
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits  # [B, 1, V]
    return logits[:, 0].float().gather(-1, batch["words"])


def class_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits of the classes [B, C]."""
    texts = {name: tensor for name, tensor in batch.items() if name not in ("labels", "golds")}
    return model(**texts).logits.float()


@dataclass(frozen=True)
class OptionLoss:
    """Cross-entropy of the right option among the scores."""

    scores: Scores

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses [B]."""
        return F.cross_entropy(self.scores(model, batch), batch["labels"], reduction="none")


@dataclass(frozen=True)
class AnswerLoss:
    """Cross-entropy of the answer's tokens."""

    average: Literal["token", "example"]

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses [B], the mean over each answer's tokens, and weights [B]."""
        return self.of(*span_logprobs(model, batch))

    def of(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and weights of the answers' log-probabilities and numbers of tokens [B]."""
        return -sums / counts, counts if self.average == "token" else torch.ones_like(counts)


@dataclass(frozen=True)
class AccuracyLoss:
    """Minus one where the best option is a right one, zero where it is not; NaN where scores choose none."""

    scores: Scores

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses [B]; `golds` [B, O] of the batch are 1 at the right options."""
        return self.of(self.scores(model, batch), batch)

    @staticmethod
    def of(scores: Tensor, batch: Batch) -> Tensor:
        """The losses of scores [B, O]."""
        losses = -batch["golds"].gather(1, scores.argmax(-1, keepdim=True))[:, 0]
        return losses.masked_fill(unscored(scores), math.nan)


@dataclass(frozen=True)
class GeneratedLoss:
    """Minus the metric of the answer that follows the prompt; NaN where the model's logits are no numbers.

    answers: those accepted, by the example's number, which the batch holds as `numbers` [B].
    """

    greedy: Greedy
    metric: Callable[[str, Sequence[str]], float]
    answers: Mapping[int, Sequence[str]]

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses [B]."""
        answers = self.greedy(model, batch["input_ids"], batch["attention_mask"])
        numbers = batch["numbers"].tolist()
        scores = [
            math.nan if text is None else self.metric(text, self.answers[n])
            for text, n in zip(answers, numbers, strict=True)
        ]
        return -torch.tensor(scores, device=batch["input_ids"].device)
