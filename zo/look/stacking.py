"""Several probes in one model call, and the proof that it gives what each of them gives alone."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zo.backward import Backward
from zo.directions import Probe
from zo.errors import LookError, ZOWarning
from zo.look.agreement import Inputs, Ledger, Pair, kind, rolled, same_losses
from zo.look.batch_dims import Ambiguous, Layout, Unstackable, leading, shapes
from zo.look.executor import Executor
from zo.look.look import PLAIN, ModelLook, Objective, length, out_of_memory
from zo.look.order import TESTED, RowOrder, tested
from zo.look.packing import packed
from zo.weights import Weights

# Looks with padding left out, by number, at which a probe is also evaluated with it: 4 passes of a run of 1,000 steps.
_PADDING_COMPARED_AT = (0, 8, 64, 512, 4096, 32768)
# What a model may raise where a stack has lengths that it does not expect.
_FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
)


class Stacking(ModelLook):
    """A look that stacks probes where that was shown to give the same losses, and else goes one by one.

    sequential_because: why all go one by one, or None.
    """

    weights: Weights
    sequential_because: str | None

    def __init__(self, model: nn.Module, objective: Objective, micro: int | None):
        super().__init__(model, objective, micro)
        self._layouts: dict[object, Layout] = {}  # of the shapes whose stacks were compared
        self._kinds: set[object] = set()  # of these shapes, what is left without their widths
        self._unstackable: set[object] = set()  # shapes that go one by one
        self._ledger = Ledger()
        self._step, self._uncompared = -1, False
        self._padded_looks = 0

    @property
    @abstractmethod
    def executor(self) -> Executor:
        """The executor that evaluates the model at probes."""

    @abstractmethod
    def _group_size(self, probes: int, chunk: Any) -> int:
        """Returns how many of the probes that are left share the next model call."""

    @property
    def check_forward_passes(self) -> int:
        """Forward passes that only compared stacked probes with the same alone; not part of forward_passes."""
        return math.ceil(self._ledger.passes)

    def _of_chunk(self, probes: Sequence[Probe], chunk: Any, first: bool) -> list[Pair]:
        """Returns (losses, weights) of every example, for each probe. first: of the step's chunks."""
        size = min(self._group_size(len(probes), chunk), len(probes))
        shape = shapes(chunk)
        if size == 1 or shape in self._unstackable:
            return self._alone(probes, chunk)
        if shape not in self._layouts:
            pairs = self._of_new_shape(probes, chunk, size)
        elif first and self._ledger.due():
            pairs = self._compared(probes[:size], chunk)
        else:
            pairs = []
        while len(pairs) < len(probes):
            left = len(probes) - len(pairs)
            group = probes[len(pairs) :][: self._group_size(left, chunk)]
            stacked = self._stacked(group, chunk) if len(group) > 1 else None
            self._uncompared |= stacked is not None
            pairs += self._alone(group, chunk) if stacked is None else stacked
        return pairs

    def gradient(self, batch: Any, *, seed: int | None, how: Backward = PLAIN) -> float:
        if self.skip_padding:
            chunk = next(self.chunks(batch))
            self._ledger.share = Fraction(length(chunk), length(batch))
            with self.evaluating(), torch.no_grad():
                self._skips_padding(
                    lambda: self._of_model(chunk, packed(self.model)), lambda: self._of_model(chunk)
                )
        return super().gradient(batch, seed=seed, how=how)

    def _of_model(self, chunk: Any, how: AbstractContextManager[None] | None = None) -> Pair:
        with how or nullcontext():
            losses, weights = self.examples(chunk, 1)
        return losses[0].tolist(), weights[0].tolist()

    def _with_padding(self, probe: Probe, chunk: Any) -> Pair:
        """The pair of a probe with every position multiplied."""
        self.executor.packs = False
        try:
            return self._alone([probe], chunk)[0]
        finally:
            self.executor.packs = True

    def _skips_padding(self, without: Callable[[], Pair], whole: Callable[[], Pair]) -> bool:
        """Returns whether padding may be left out; compares both forms at a few looks.

        Raises LookError for a difference after looks that were not compared.
        """
        looks, self._padded_looks = self._padded_looks, self._padded_looks + 1
        if looks not in _PADDING_COMPARED_AT:
            return True
        pair = without()
        self._ledger.note(1)
        if same_losses(pair, whole(), self._coarsest):
            return True
        kind = type(self.model).__name__
        if looks:
            raise LookError(
                f"Step {self._step}: with its padding left out {kind} does not get the losses that it gets with it, so "
                "those of earlier steps may be wrong. Begin the run again with skip_padding=False (on the command line "
                "batch.skip_padding=false --rerun)."
            )
        self.skip_padding = False
        warnings.warn(
            f"Padding is evaluated too: without it {kind} gets other losses.", ZOWarning, stacklevel=4
        )
        return False

    def _alone(self, probes: Sequence[Probe], chunk: Any) -> list[Pair]:
        return [self._call([probe], chunk, Layout(recording=False))[0] for probe in probes]

    def _of_new_shape(self, probes: Sequence[Probe], chunk: Any, size: int) -> list[Pair]:
        """The pairs of the first `size` probes or more, where batches of this shape were never stacked.

        Where only a width is new, one probe is compared; else all probes of the first stack, and a stack at θ.
        Where the run cannot afford the comparison, all probes go one by one.
        """
        shape, form = shapes(chunk), kind(shapes(chunk))
        whole = form not in self._kinds
        cost = 3 * size if whole else 1
        if not self._ledger.affords(cost, self.forward_passes, len(probes)):
            return self._alone(probes, chunk)
        order = None if tested(self.model) else RowOrder(self.model)
        layout, given = Layout(recording=True), Inputs()
        with order or nullcontext():
            alone = self._call([probes[0]], chunk, layout, given, order)
        layout.recording = False
        if order is not None and order.by is not None:
            self._give_up(
                f"the order of rows depends on the data ({order.by}) and {type(self.model).__name__} is not among the "
                f"models that were tested ({', '.join(sorted(TESTED))})"
            )
            return alone
        inputs = [given]
        if whole:
            more, others = self._noted(probes[1:size], chunk)
            alone, inputs = alone + more, inputs + others
        self._ledger.pay(size if whole else 1, shape=True)
        self._layouts[shape] = layout
        agrees = False
        try:
            stacked = self._matching(probes[:size], chunk, alone, inputs, "these probes")
            agrees = stacked is not None and (not whole or self._agrees_at_theta(chunk, size))
        finally:  # out of memory may end it half-way
            if not agrees:
                del self._layouts[shape]
        if stacked is not None and agrees:
            self._kinds.add(form)
            return alone if whole else stacked
        return alone + self._alone(probes[len(alone) :], chunk)

    def _noted(self, probes: Sequence[Probe], chunk: Any) -> tuple[list[Pair], list[Inputs]]:
        """Probes alone, with what every site was given."""
        pairs, inputs = [], [Inputs() for _ in probes]
        for probe, note in zip(probes, inputs, strict=True):
            pairs += self._call([probe], chunk, Layout(recording=False), note)
        return pairs, inputs

    def _compared(self, probes: Sequence[Probe], chunk: Any) -> list[Pair]:
        """A stack's pairs, compared with its probes alone."""
        alone, inputs = self._noted(probes, chunk)
        self._ledger.pay(len(probes), shape=False)
        return self._matching(probes, chunk, alone, inputs, "the same probes") or alone

    def _agrees_at_theta(self, chunk: Any, size: int) -> bool:
        """Returns whether a stack at θ, its groups in different orders, gives each site its inputs."""
        batches = [rolled(chunk, group) for group in range(size)]
        each = [self._noted([Probe()], batch) for batch in batches]
        pairs, inputs = [pair for one, _ in each for pair in one], [note for _, one in each for note in one]
        together = pytree.tree_map(
            lambda *leaves: torch.cat(leaves) if isinstance(leaves[0], Tensor) else leaves[0], *batches
        )
        self._ledger.pay(2 * size, shape=True)
        what = "θ, with the examples in other orders"
        return self._matching([Probe()] * size, chunk, pairs, inputs, what, together) is not None

    def _matching(
        self,
        probes: Sequence[Probe],
        chunk: Any,
        alone: Sequence[Pair],
        inputs: Sequence[Inputs],
        what: str,
        together: Any = None,
    ) -> list[Pair] | None:
        """The pairs of a stack, or None where it failed or differs from its first probes alone.

        Raises LookError for a difference after steps that were stacked and not compared.
        """
        given = Inputs()
        stacked = self._stacked(probes, chunk, given, together)
        if stacked is None:
            return None
        same = all(
            same_losses(stacked[i], pair, self._rounding) and given.same(i, note)
            for i, (pair, note) in enumerate(zip(alone, inputs, strict=True))
        )
        if same:
            return stacked
        if doubted := self._ledger.doubted():
            raise LookError(
                f"Step {self._step}: stacked probes of {type(self.model).__name__} do not get the losses that they get "
                f"alone, so the losses of steps {doubted}, which were stacked and not compared, may be wrong. Begin "
                "the run again with probes_per_forward=1 (on the command line with --rerun)."
            )
        self._give_up(f"stacked they do not get the losses that they get alone (compared at {what})")
        return None

    def _stacked(
        self, probes: Sequence[Probe], chunk: Any, inputs: Inputs | None = None, together: Any = None
    ) -> list[Pair] | None:
        """The pairs from one model call, or None where this model or this shape cannot be stacked."""
        shape, n = shapes(chunk), len(probes)
        batch = pytree.tree_map(lambda leaf: _repeated(leaf, n), chunk) if together is None else together
        try:
            return self._call(probes, chunk, self._layouts[shape], inputs, batch=batch)
        except Ambiguous:
            self._unstackable.add(shape)
            return None
        except Unstackable as reason:
            self._give_up(str(reason))
            return None
        except _FAILURES as error:
            if out_of_memory(error):
                raise
            failure = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        self._alone(probes[:1], chunk)  # what fails alone too is raised as it is
        self._give_up(f"the model fails with several probes in a call ({failure})")
        return None

    def _give_up(self, reason: str) -> None:
        """Evaluates probes one by one from here on."""
        if self.sequential_because is None:
            self.sequential_because = reason
            warnings.warn(f"Probes are evaluated one by one: {reason}.", ZOWarning, stacklevel=4)

    @cached_property
    def _rounding(self) -> torch.dtype | None:
        """The dtype to whose rounding losses of a stack must agree; None on a CPU, where bits must be equal."""
        return None if all(tensor.is_cpu for tensor in self.weights.tensors.values()) else self._coarsest

    @cached_property
    def _coarsest(self) -> torch.dtype:
        """The coarsest dtype of the model's parameters."""
        dtypes = {p.dtype for p in self.model.parameters() if p.is_floating_point()}
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    def _call(
        self,
        probes: Sequence[Probe],
        chunk: Any,
        layout: Layout,
        inputs: Inputs | None = None,
        order: RowOrder | None = None,
        batch: Any = None,
    ) -> list[Pair]:
        """The pairs of one model call. batch: of all probes; the chunk itself for one."""
        with torch.no_grad(), self.executor.at(probes, layout, _rows(chunk), inputs, order):
            losses, weights = self.examples(chunk if batch is None else batch, len(probes))
        return list(zip(losses.tolist(), weights.tolist(), strict=True))


def _rows(batch: Any) -> int:
    return next(n for n in leading(batch) if n is not None)


def _repeated(leaf: Any, n: int) -> Any:
    return leaf.repeat(n, *[1] * (leaf.dim() - 1)) if isinstance(leaf, Tensor) else leaf
