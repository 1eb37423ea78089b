"""Ways to run a model that take no steps. Each has the form of an optimizer, so that a run with it is a run like any.

none            the model as it is: zero-shot; with task.demonstrations in context; with task.calibrate calibrated.
linear_probe    a logistic regression on the states that the head reads, its coefficients written into the head.

Such a run has the same result for any budget, batch and schedule: they are no part of its hash.

Linear probing, as in MeZO (Malladi et al. 2023) and LM-BFF: the frozen model's last states are features. A causal model
gives one for each token of the right option or answer, at the place that predicts it, and the classes are those
tokens; a masked one the state at the mask, and the classes are the option words; a classifier the state its last
layer reads. The coefficients take the place of the rows of the classes in the head, and all others stay, so the
probed model scores options and generates as any model, and is saved as one. A head tied to the embeddings becomes a
copy first (MeZO overwrites the embeddings too). An intercept is fitted where the head has a bias; MeZO has it for
none of its models. c: the inverse regularisation; null chooses among ten by `folds`-fold cross-validation, as MeZO
does. Its early stopping is tol=0.01 steps=1000.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, final

import torch
from torch import Tensor, nn

from experiments.baselines import logistic_regression
from experiments.baselines.no_training import NoTraining
from experiments.models.head import base_of
from experiments.models.loading import Loaded
from experiments.models.pooling import MeanPooled
from experiments.tasks.objectives import class_logits, span_logprobs, word_logits
from experiments.tasks.prompts import CausalPrompts, MaskedPrompts
from experiments.tasks.task import Task
from zo.errors import ConfigError
from zo.fields import LONGEST, MOST, Positive, Range


@final
@dataclass(eq=False, kw_only=True)
class LinearProbe(NoTraining):
    """A logistic regression on the head's inputs, see above and experiments.baselines.logistic_regression."""

    acts_when: ClassVar[Mapping[str, str]] = {"folds": "c is None"}
    replays_from = "nothing"  # the fit is not journaled; the saved model is the result

    c: Annotated[float, Range(gt=0, of="or null, to choose it by cross-validation")] | None = None
    folds: Annotated[int, Range(ge=2, le=MOST, of="parts of a cross-validation")] = 5
    tol: Positive = 1e-4
    steps: Annotated[int, Range(ge=1, le=LONGEST, of="steps of L-BFGS")] = 5000

    def fit(self, loaded: Loaded, task: Task, size: int) -> int:
        layer = output_of(loaded)
        x, targets, passes = _features(layer, loaded, task, size)
        rows, y = targets.unique(return_inverse=True)
        if len(rows) < 2:
            raise ConfigError(
                "Linear probing tells classes apart, and the train examples have one. Raise task.train."
            )
        told: dict[str, Any] = {"intercept": layer.bias is not None, "tol": self.tol, "steps": self.steps}
        c = self.c or logistic_regression.choose(x, y, len(rows), folds=self.folds, **told)
        w, b = logistic_regression.fit(x, y, len(rows), c, **told)
        with torch.no_grad():
            layer.weight[rows] = w.to(layer.weight)
            if layer.bias is not None:
                layer.bias[rows] = b.to(layer.bias)
        return passes


def output_of(loaded: Loaded) -> nn.Linear:
    """The linear layer that makes logits: of words, or of classes."""
    model: Any = loaded.model
    if isinstance(model, MeanPooled):
        return model.head
    if loaded.family != "classifier":
        return base_of(model).get_output_embeddings()  # type: ignore[operator]  # of transformers
    return [
        m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == model.config.num_labels
    ][-1]


def output_alone(loaded: Loaded) -> Loaded:
    """The same model with nothing trained but that layer."""
    loaded.model.requires_grad_(False)
    output_of(loaded).requires_grad_(True)
    return loaded


def _features(layer: nn.Linear, loaded: Loaded, task: Task, size: int) -> tuple[Tensor, Tensor, int]:
    """The layer's inputs [n, d] in float64, the rows of the head that they should give [n], and the model calls."""
    seen: list[Tensor] = []
    x, targets = [], []
    handle = layer.register_forward_hook(lambda _, args, __: seen.append(args[0].detach()))
    starts = range(0, len(task.train), size)
    try:
        for start in starts:
            some = task.train[start : start + size]
            with torch.no_grad():
                kept, wanted = _look(loaded, task, some)
            states = seen.pop()
            x.append(states[kept].double().cpu())
            targets.append(wanted.cpu())
    finally:
        handle.remove()
    return torch.cat(x), torch.cat(targets), len(starts)


def _look(loaded: Loaded, task: Task, examples: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """One call of the model: which of the states that the head saw count, and the rows they should give."""
    if isinstance(task.prompts, CausalPrompts):
        batch = task.collate_rows([e.rows[e.golds[0] if e.golds else 0] for e in examples])
        span_logprobs(loaded.model, batch)
        kept = batch["targets"] >= 0  # [B, K]
        return kept, batch["targets"][kept]
    batch = task.collate_options(examples)
    every = torch.ones(len(examples), dtype=torch.bool, device=task.device)
    if isinstance(task.prompts, MaskedPrompts):
        word_logits(loaded.model, batch)
        return every[:, None], batch["words"].gather(1, batch["labels"][:, None])[:, 0]
    class_logits(loaded.model, batch)
    return every, batch["labels"]
