"""Computes the loss of each row of a batch, where transformers computes one mean over the batch.

    language models   a row's loss is the mean of −log p over its labelled tokens, its weight their number
    classifiers       a row's loss is its cross-entropy, squared error or binary cross-entropy, its weight 1

Σ w l / Σ w is then transformers' loss of the whole batch. Rows are what zo needs: they are summed exactly, however the
batch is cut, and several probes can share a model call.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.loss.loss_utils import (
    LOSS_MAPPING,
    ForCausalLMLoss,
    ForMaskedLMLoss,
    ForSequenceClassificationLoss,
    ForTokenClassification,
)

from zo.errors import ConfigError, LookError
from zo.look.look import Objective, mean, weighted_sums

Batch = Mapping[str, Any]
Rows = Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]]  # logits, labels, the model's config
_IGNORED = -100  # the label of tokens that do not count, in all of transformers


def tokens(logits: Tensor, labels: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """Returns losses and weights [B] of logits [B, T, V] and labels [B, T]."""
    if logits.shape[:2] != labels.shape:
        raise LookError(
            f"The logits have shape {list(logits.shape)} and the labels {list(labels.shape)}, so a token's label is "
            "not known. Give the trainer losses=, a function (model, batch) → one loss a row."
        )
    each = F.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=_IGNORED, reduction="none"
    )
    weights = (labels != _IGNORED).sum(1)
    return each.view_as(labels).sum(1) / weights.clamp(min=1), weights


def next_tokens(logits: Tensor, labels: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """Returns `tokens` of a model whose position t predicts the token at t + 1."""
    return tokens(logits[:, :-1], labels[:, 1:], config)


def classes(logits: Tensor, labels: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """Returns losses and weights [B] of logits [B, C] by the kind of problem that transformers sees in the labels."""
    kind = config.problem_type
    if kind == "regression" or (kind is None and config.num_labels == 1):
        each = (logits.float() - labels.view_as(logits)).square().mean(1)
    elif kind == "single_label_classification" or (kind is None and not labels.is_floating_point()):
        each = F.cross_entropy(logits.float(), labels.view(-1), reduction="none")
    else:
        each = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none").mean(1)
    return each, torch.ones_like(each)


_ROWS: dict[Any, Rows] = {
    ForCausalLMLoss: next_tokens,
    ForMaskedLMLoss: tokens,
    ForTokenClassification: tokens,
    ForSequenceClassificationLoss: classes,
}


def base_of(model: nn.Module) -> Any:
    """Returns the transformers model inside PEFT's wrapper, or the model itself."""
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def rows_of(model: nn.Module) -> Rows | None:
    """Returns the function that computes this model's losses by row, or None where its loss is of another kind."""
    base = base_of(model)
    if getattr(getattr(base, "config", None), "is_encoder_decoder", False):
        return None
    # As PreTrainedModel.loss_function decides, without its warning.
    kind = LOSS_MAPPING.get(str(getattr(base, "loss_type", None)), ForCausalLMLoss)
    return _ROWS.get(vars(base).get("_loss_function", kind))


def refusal(model: nn.Module) -> str:
    """Returns the sentence for a model whose loss `rows_of` does not know."""
    base = base_of(model)
    return (
        f"{type(base).__name__} has a loss of its own kind ({getattr(base, 'loss_type', None)}), which is not known by "
        "row. Give the trainer losses=, a function (model, batch) → one loss a row, or (losses, weights)."
    )


def objective_of(model: nn.Module) -> Objective:
    """Returns the objective (model, batch) → losses, weights; a batch is a mapping of tensors with `labels`.

    Raises ConfigError for a model whose loss is of another kind.
    """
    rows, config = rows_of(model), getattr(base_of(model), "config", None)
    if rows is None:
        raise ConfigError(refusal(model))

    def losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        # Without labels: with them the model would compute its mean as well, in memory of its own.
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return rows(model(**inputs).logits, _labels(batch), config)

    return losses


def check_losses(model: nn.Module, objective: Objective, batch: Batch) -> None:
    """Raises ConfigError unless the rows' losses add up to the loss that the model itself gives: two forward passes.

    A model may add to the loss what no row has (a router's balance), or shift its labels in another way.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            _labels(batch)
            theirs = float(model(**batch).loss)
            losses, weights = objective(model, batch)
    finally:
        model.train(training)
    ours = mean(*weighted_sums(losses.double().tolist(), weights.double().tolist()))
    # Theirs may be computed in the model's dtype, and summed in another order.
    narrow = any(p.dtype.itemsize == 2 for p in model.parameters() if p.is_floating_point())
    tolerance = 2e-2 if narrow else 1e-3
    if math.isfinite(theirs) and not math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance):
        raise ConfigError(
            f"{type(base_of(model)).__name__} gives the first batch the loss {theirs:.6g}, and its rows add up to "
            f"{ours:.6g}: the model adds to its loss, or weighs tokens, in a way of its own, which would not be "
            "trained. Give the trainer losses=, a function (model, batch) → one loss a row."
        )


def _labels(batch: Batch) -> Tensor:
    if not isinstance(batch.get("labels"), Tensor):
        raise ConfigError(
            f"The batches have no labels (they have {', '.join(sorted(batch))}). Let the data collator add them, or "
            "give the trainer losses=, a function (model, batch) → one loss a row."
        )
    return batch["labels"]
