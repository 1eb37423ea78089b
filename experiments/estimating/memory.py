"""Estimates a run's memory on a model without data: its steps, its evaluations, its state between steps."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.config.task_config import TaskConfig
from experiments.estimating.tracing import peak_bytes
from experiments.evaluation.prefix_cache import cache_bytes
from experiments.models.loading import Loaded
from experiments.models.placing import HEADS
from experiments.tasks.objectives import (
    AnswerLoss,
    Objective,
    OptionLoss,
    class_logits,
    mean_logprobs,
    word_logits,
)
from zo.backward import Backward
from zo.look import sites
from zo.look.module import stack_size
from zo.optimizers import Optimizer, Probing
from zo.optimizers.firstorder import FirstOrder, masters_of


@dataclass(frozen=True)
class Step:
    """The peak memory of a step, in bytes, beyond what is kept between steps.

    gradients: of all trained weights, in fp32. activations: peak of the forward pass, including what it keeps for the
    backward pass; for zeroth-order methods, including the perturbed tensors. backward: activations and gradients at the
    peak of the backward pass. update: temporary tensors of torch's update, beyond the gradients.
    """

    gradients: int
    activations: int
    backward: int = 0
    update: int = 0

    @property
    def peak(self) -> int:
        """Returns the bytes at the peak of the step."""
        return max(self.activations, self.backward, self.gradients + self.update)


class Run:
    """A model without data, and the memory of its forward passes and evaluations."""

    def __init__(
        self, loaded: Loaded, task: TaskConfig, optimizer: Optimizer, tokens: int, options: int, span: int
    ):
        self.loaded = loaded
        self.task = task
        self.optimizer = optimizer
        self.tokens = tokens
        self.options = options
        self.span = span
        self.trained = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad}

    @property
    def answer(self) -> bool:
        """Returns True if a row is a right answer alone, not one option of several."""
        return self.task.objective == "answer"

    @property
    def distinct(self) -> int:
        """Returns the token rows that score the options of an example: one if each option is one token."""
        return self.options if self.loaded.family == "causal" and self.span > 1 else 1

    def batch(self, rows: int, options: bool) -> dict[str, Tensor]:
        """Returns a batch of the task's shapes."""
        per_option = self.loaded.family == "causal" and options
        shape = (rows, self.distinct) if per_option else (rows,)
        ids = {"dtype": torch.long, "device": "meta"}
        batch = {name: torch.ones(*shape, self.tokens, **ids) for name in ("input_ids", "attention_mask")}
        if self.loaded.family == "causal":
            batch["positions"] = torch.ones(*shape, self.span, **ids)
            scored = (rows, self.options) if per_option else (rows,)
            batch |= {name: torch.ones(*scored, self.span, **ids) for name in ("places", "targets")}
        if self.loaded.family == "masked":
            batch |= {
                "positions": torch.ones(rows, 1, **ids),
                "words": torch.ones(rows, self.options, **ids),
            }
        return (
            batch | {"labels": torch.ones(rows, **ids)}
            if per_option or self.loaded.family != "causal"
            else batch
        )

    def objective(self, options: bool) -> Objective:
        """Returns the loss of the batches of `batch`."""
        scores = {"causal": mean_logprobs, "masked": word_logits, "classifier": class_logits}
        causal_answer = self.loaded.family == "causal" and not options
        return AnswerLoss("token") if causal_answer else OptionLoss(scores[self.loaded.family])

    def probes(self, setting: int | str, rows: int, cpu: bool) -> int:
        """Returns the number of probes that share a model call."""
        count = len(self.optimizer.ask(0)) if isinstance(self.optimizer, Probing) else 1
        numbers = max(leaf.numel() for leaf in self.batch(rows, not self.answer).values())
        size = sum(p.nbytes for p in self.loaded.model.parameters())
        return min(count, stack_size(setting, count, numbers, size if cpu else 0))

    def moments(self) -> int:
        """Returns the bytes of the optimizer's own state: moments, curvature, bases."""
        state_bytes = self.optimizer.state_bytes(list(self.trained.values()))
        return state_bytes - masters_of(list(self.trained.values())) if self.first_order else state_bytes

    def masters(self, update: str) -> int:
        """Returns the bytes kept beside 16-bit weights.

        First-order methods keep fp32 masters; others fp32 copies of vectors, and the low halves of update = master.
        """
        if self.first_order:
            return masters_of(list(self.trained.values()))
        narrow = [t for t in self.trained.values() if t.dtype != torch.float32]
        copies = sum(4 * t.numel() for t in narrow if t.dim() <= 1)
        low = sum(2 * t.numel() for t in narrow if t.dim() > 1) if update == "master" else 0
        return copies + low

    @property
    def first_order(self) -> bool:
        """Returns True if steps have a backward pass."""
        return bool(self.optimizer.backward_passes)

    def training(self, rows: int, probes: int, cpu: bool) -> Step:
        """Returns the peak memory of a step."""
        if isinstance(self.optimizer, FirstOrder):
            return self._first_order(self.optimizer, rows, cpu)
        if not isinstance(self.optimizer, Probing):
            return Step(0, 0)
        batch, objective = self.batch(rows * probes, not self.answer), self.objective(not self.answer)
        with torch.no_grad(), self._perturbed(probes) as buffers:
            return Step(0, buffers + self._peak(lambda: objective(self.loaded.model, batch), batch))

    def inference(self, rows: int) -> int:
        """Returns the bytes of one forward pass of a step's batch beyond the weights: the inference level."""
        batch, objective = self.batch(rows, not self.answer), self.objective(not self.answer)
        with torch.no_grad():
            return self._peak(lambda: objective(self.loaded.model, batch), batch)

    def _first_order(self, optimizer: FirstOrder, rows: int, cpu: bool) -> Step:
        batch, objective = self.batch(rows, not self.answer), self.objective(not self.answer)
        model, trained = self.loaded.model, list(self.trained.values())
        narrow = [t for t in trained if t.dtype != torch.float32]
        masters: dict[Tensor, Tensor] = {t: torch.empty_like(t.detach(), dtype=torch.float32) for t in narrow}
        backward_pass = Backward(masters=masters, checkpointing=optimizer.gradient_checkpointing)
        model.train(optimizer.dropout)

        def forward() -> Tensor:
            lost = objective(model, batch)
            return (lost[0] if isinstance(lost, tuple) else lost).sum()

        with backward_pass.around(model):
            activations = self._peak(forward, batch)
            backward = self._peak(lambda: forward().backward(), batch)
        backward_pass.clear()
        model.zero_grad(set_to_none=True)
        model.eval()
        gradients = 4 * sum(t.numel() for t in trained)
        on_gpu, on_cpu = optimizer.update_copies
        update = 4 * max(t.numel() for t in trained) * on_cpu if cpu else gradients * on_gpu
        return Step(gradients, activations, backward, update)

    def evaluation(self, rows: int) -> int:
        """Returns the peak memory of an evaluation: all options of the examples, or generation with its cache."""
        batch, objective = self.batch(rows, not self.task.generated), self.objective(not self.task.generated)
        with torch.no_grad():
            highest = self._peak(lambda: objective(self.loaded.model, batch), batch)
        return highest + (self._cache(rows) if self.task.generated else 0)

    def _cache(self, rows: int) -> int:
        """Returns the bytes of all layers' keys and values while answers are generated."""
        return cache_bytes(self.loaded) * rows * (self.tokens + self.task.max_new_tokens)

    def _peak(self, work: Any, batch: Mapping[str, Tensor]) -> int:
        model = self.loaded.model
        return peak_bytes(work, [*model.parameters(), *model.buffers()]) + sum(
            t.nbytes for t in batch.values()
        )

    @contextmanager
    def _perturbed(self, probes: int) -> Iterator[int]:
        """Yields the bytes of the executor's buffers; within it, hooks allocate what modules need temporarily."""
        owner = cast(Any, SimpleNamespace(tensors=self.trained))
        perturbed = [
            site for site in sites.find(self.loaded.model, owner, frozen_linears=False) if site.slots
        ]
        alike = max(
            len(list(run)) for _, run in groupby(self.optimizer.ask(0), key=lambda p: [k for k, _ in p.terms])
        )
        buffers: dict[tuple[Any, str], int] = {}
        handles = []
        for site in perturbed:
            tensors = [(slot, self.trained[name]) for _, slot, name in site.slots]
            for slot, tensor in tensors if site.kind in ("linear", "layer_norm") else ():
                number = min(alike, probes) if tensor.numel() > 1 << 14 else probes
                key, size = (tensor.dim() > 1, slot), number * tensor.numel() * _probed(tensor)
                buffers[key] = max(buffers.get(key, 0), size)
            if site.kind == "swap":
                handles += _held_within(site.module, [t for _, t in tensors])
            if probes > 1 and site.kind != "linear":
                handles.append(site.module.register_forward_hook(_joined))
        try:
            yield sum(buffers.values())
        finally:
            for handle in handles:
                handle.remove()


def _probed(tensor: Tensor) -> int:
    """Returns the bytes per number of a perturbed tensor: 16-bit vectors have fp32 copies."""
    return 4 if tensor.dim() <= 1 else tensor.element_size()


def _held_within(module: nn.Module, tensors: Sequence[Tensor]) -> list[Any]:
    """Registers hooks that hold a copy of each tensor while the module runs."""
    copies: list[Tensor] = []

    def make(*_: Any) -> None:
        copies.extend(torch.empty_like(t, dtype=torch.float32 if t.dim() <= 1 else t.dtype) for t in tensors)

    def drop(*_: Any) -> None:
        copies.clear()

    return [module.register_forward_pre_hook(make), module.register_forward_hook(drop)]


def _joined(module: nn.Module, args: Any, output: Any) -> None:
    """Allocates the joined output: the groups' outputs are computed one by one, then concatenated."""
    if isinstance(output, Tensor):
        torch.empty_like(output)


def weight_bytes(loaded: Loaded, quantization: str | None) -> int:
    """Returns the bytes of all parameters and buffers.

    Quantised linear layers take 8 or 4 bits per number, with a scale for every 64 in 4 bits.
    """
    tensors = [*loaded.model.parameters(), *loaded.model.buffers()]
    total = sum(t.nbytes for t in tensors)
    if quantization is not None:
        bytes_per_number = 1.0 if quantization == "int8" else 0.5 + 4 / 64
        for name, module in loaded.model.named_modules():
            frozen = isinstance(module, nn.Linear) and not module.weight.requires_grad
            if frozen and not set(HEADS) & set(name.split(".")):
                weight = cast(nn.Linear, module).weight
                total += int(bytes_per_number * weight.numel()) - weight.nbytes
    return total
