"""Evaluate a module at θ + Σ scale z without writing to θ.

While probes are active the forward of every module that reads trained weights is replaced: it makes the
weights of each probe out of place just before use and drops them after. With several probes active the
batch holds that many groups of rows; each group meets the weights of its own probe, with the same shapes,
and on a CPU therefore the same bits, as if it were evaluated alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zo.directions import Directions, Probe
from zo.errors import LookError
from zo.look import sites
from zo.look.affine import add_thin, affine, affine_into
from zo.look.agreement import Inputs
from zo.look.batch_dims import BATCH, Layout, leading, parts, together
from zo.look.buffers import Buffers
from zo.look.order import RowOrder, quiet
from zo.look.packing import Positions, gather, scatter
from zo.look.points import Points
from zo.look.sites import Site, Watched
from zo.precision import swallowed
from zo.weights import Weights

_SMALL = 1 << 14  # numbers; a call costs as much time as making so many


class Executor:
    """Replaces forwards while `at` is open.

    materialise: make each tensor of a probe once, at its first use, and keep it as long as `at` is open, instead
        of making it at every use. For objectives that call the model many times, such as generation; the
        numbers are the same, the memory is a copy of the trained weights.
    packs: linear layers multiply only the positions that the model's attention mask shows (zo/look/packing.py).
    packed: whether any did so far.
    perturbed: canonical names of the tensors that any probe has moved so far.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        directions: Directions,
        *,
        materialise: bool = False,
        packs: bool = False,
    ):
        cpu = all(tensor.device.type == "cpu" for tensor in weights.tensors.values())
        self.model = model
        self.weights = weights
        self.directions = directions
        self.sites = sites.find(model, weights, frozen_linears=cpu)
        for site in self.sites:
            rounded = [n for _, _, n in site.slots if n in weights.copies and weights.tensors[n].dim() > 1]
            if rounded and isinstance(site.module, nn.Embedding):
                raise swallowed(rounded, weights, None)
        self.packs, self.packed = packs, False
        self.perturbed: set[str] = set()
        self._positions: Positions | None = None
        self._points = Points(())
        self._layout: Layout | None = None
        self._inputs: Inputs | None = None
        self._group = 0  # of the probe that a nested site is called for
        self._rows = 0
        self._calls: dict[int, int] = {}
        self.buffers = Buffers()
        self._made: dict[tuple[str, Probe], Tensor] | None = {} if materialise else None

    @contextmanager
    def at(
        self,
        probes: Sequence[Probe],
        layout: Layout,
        rows: int,
        inputs: Inputs | None = None,
        order: RowOrder | None = None,
    ) -> Iterator[None]:
        """Evaluations inside are at these probes, one group of rows each.

        layout is filled or read. rows: leading dimension of one group's batch. inputs: notes what every site is
        given. order: watches the model's operations, and not those of this class.
        """
        self._points, self._layout, self._calls = Points(probes), layout, {}
        self._inputs = inputs
        self._rows = rows  # unless the model is called, with other rows
        self._positions = None
        replaced: list[tuple[nn.Module, Any]] = []
        self._check_parameters()
        hook = self.model.register_forward_pre_hook(self._model_called, with_kwargs=True, prepend=True)
        every = len(probes) > 1 or layout.recording or inputs is not None or self.packs
        try:
            for site in self.sites:
                if site.slots or every:
                    replaced.append((site.module, site.module.__dict__.get("forward")))
                    original = quiet(order, True, site.module.forward)
                    forward = partial(getattr(self, f"_{site.kind}"), site, original)
                    site.module.__dict__["forward"] = quiet(order, False, forward)
            yield
        finally:
            hook.remove()
            for module, forward in replaced:
                if forward is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = forward
            self._points, self._inputs = Points(()), None
            if self._made is not None:
                self._made = {}

    def _check_parameters(self) -> None:
        """Raises LookError where a module holds another parameter than the one that is trained."""
        for site in self.sites:
            for owner, attribute, name in site.slots:
                if owner._parameters.get(attribute) is not self.weights.tensors[name]:
                    raise LookError(
                        f"{name} has been replaced by another tensor since the optimizer was made, which would not be "
                        "trained. Write into the parameter (with torch.no_grad(): p.copy_(x)), or make a new optimizer."
                    )

    def _model_called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Notes the rows of one group, and which positions of them are needed."""
        lengths = [n for n in leading((args, kwargs)) if n is not None]
        self._rows = lengths[0] // len(self._points.probes) if lengths else 0
        self._positions = Positions.of_call(kwargs, len(self._points.probes)) if self.packs else None

    def _groups(self, site: Site, inputs: Any) -> tuple[list[Any], bool]:
        """The inputs of each active probe, and whether any of them carries the batch."""
        assert self._layout is not None
        if len(self._points.probes) == 1:
            if self._layout.recording:
                self._layout.record(site.number, inputs)
            if self._inputs is not None:
                self._inputs.note(self._group, site.number, inputs)
            return [inputs], True
        call = self._calls.get(site.number, 0)
        self._calls[site.number] = call + 1
        roles = self._layout.roles(site.number, call, inputs, len(self._points.probes), self._rows)
        split = parts(inputs, roles, len(self._points.probes))
        if self._inputs is not None:
            for group, part in enumerate(split):
                self._inputs.note(group, site.number, part)
        return split, BATCH in roles

    def _join(self, outputs: list[Any], carries: bool) -> Any:
        return outputs[0] if len(outputs) == 1 else together(outputs, carries, self._rows)

    def _each(self, site: Site, attribute: str) -> Iterable[Tensor | None]:
        """A tensor of the site's own at each active probe in turn, in buffers that later ones may write over.

        A small tensor is made for all probes in one call. Of a large one, neighbouring probes on the same keys (MeZO's
        two sides) share the making of their noise, and the rest share their memory.
        """
        name, probes = site.own.get(attribute), self._points.probes
        if name is None:
            return repeat(getattr(site.module, attribute), len(probes))
        source, moved = self.weights.source(name), self._points.moved
        if not moved:
            return repeat(source, len(probes))
        self.perturbed.add(name)
        if self._made is not None:
            return [self._kept(name, probe) for probe in probes]
        if source.numel() > _SMALL or len(moved) == 1:
            return self._in_turn(name, attribute, source)
        outs = self.buffers.of(source, attribute, len(moved))
        made = iter(self.weights.at_many(name, moved, self.directions, outs))
        return [next(made) if probe.terms else source for probe in probes]

    def _in_turn(self, name: str, attribute: str, source: Tensor) -> Iterator[Tensor]:
        """A large tensor at each active probe, made just before it is used."""
        outs = self.buffers.of(source, attribute, self._points.longest)
        for run in self._points.runs:
            if not run[0].terms:
                yield from repeat(source, len(run))
            elif len(run) == 1:
                yield self.weights.at(name, run[0], self.directions, outs[0])
            else:
                yield from self.weights.at_many(name, run, self.directions, outs[: len(run)])

    def _kept(self, name: str, probe: Probe) -> Tensor:
        """A tensor at a probe, made at its first use; `materialise` keeps it while `at` is open."""
        if self._made is None or not probe.terms:
            return self.weights.at(name, probe, self.directions)
        if (name, probe) not in self._made:
            self._made[name, probe] = self.weights.at(name, probe, self.directions)
        return self._made[name, probe]

    def _linear(self, site: Site, original: Any, input: Tensor) -> Any:
        inputs, carries = self._groups(site, (input,))
        if not site.slots and not carries:
            return original(input)
        thin = self._thin(site)
        matrices = self._each(site, "weight") if thin is None else repeat(self._source(site), len(inputs))
        biases = self._each(site, "bias")
        pairs = repeat(None, len(inputs)) if thin is None else iter(thin)
        width = cast(nn.Linear, site.module).out_features
        needed = self._needed(inputs, width)
        if len(inputs) == 1 or not carries:
            outputs = []
            for (x,), index, w, b, pair in zip(inputs, needed, matrices, biases, pairs, strict=True):
                assert w is not None
                rows = x if index is None else gather(x, index)
                y = add_thin(affine(rows, w, b), rows, pair)
                outputs.append(y if index is None else scatter(y, index, x.shape))
            return self._join(outputs, carries)
        groups = input.reshape(len(inputs), -1, input.shape[-1])  # as matrices
        output = groups.new_empty(*groups.shape[:-1], width)
        each = zip(output.unbind(), groups.unbind(), needed, matrices, biases, pairs, strict=True)
        for y, x, index, w, b, pair in each:
            assert w is not None
            rows = x if index is None else x.index_select(0, index)
            some = y if index is None else y.new_empty(len(rows), width)
            affine_into(some, rows, w, b)
            if pair is not None:
                add_thin(some, rows, pair)
            if index is not None:
                y.zero_().index_copy_(0, index, some)
        return output.view(*input.shape[:-1], width)

    def _needed(self, inputs: list[Any], width: int) -> list[Tensor | None]:
        """Returns which positions each group of a linear layer's inputs must be multiplied at; None for all."""
        if self._positions is None:
            return [None] * len(inputs)
        # A nested site is called for one probe of several.
        groups = range(self._group, self._group + 1) if len(inputs) == 1 else range(len(inputs))
        found = [self._positions.index(g, x, width) for g, (x,) in zip(groups, inputs, strict=True)]
        self.packed |= any(index is not None for index in found)
        return found

    def _thin(self, site: Site) -> list[tuple[Tensor, Tensor] | None] | None:
        """Returns (A, B) of the site's matrix at each active probe, where the kind has such factors."""
        name = site.own.get("weight")
        if name is None or not self.weights.ways(self.directions)[name].factored:
            return None
        thin = [self.weights.factors_at(name, probe, self.directions) for probe in self._points.probes]
        if not any(thin):
            return None
        self.perturbed.add(name)
        return thin

    def _source(self, site: Site) -> Tensor:
        name = site.own.get("weight")
        assert name is not None
        return self.weights.source(name)

    def _embedding(self, site: Site, original: Any, input: Tensor) -> Any:
        inputs, carries = self._groups(site, (input,))
        name = site.own.get("weight")
        assert name is not None
        table = self.weights.source(name)
        seen: tuple[Tensor, Tensor, Tensor] | None = None  # ids, their rows, where in these each is
        outputs = []
        for (ids,), probe in zip(inputs, self._points.probes, strict=True):
            if not probe.terms:
                outputs.append(F.embedding(ids, table))
                continue
            self.perturbed.add(name)
            if self._made is not None:
                outputs.append(F.embedding(ids, self._kept(name, probe)))
                continue
            if seen is None or not torch.equal(ids, seen[0]):  # usually the same ids in every group
                seen = ids, *torch.unique(ids, return_inverse=True)
            _, rows, places = seen
            outputs.append(F.embedding(places, self.weights.rows_at(name, rows, probe, self.directions)))
        return self._join(outputs, carries)

    def _layer_norm(self, site: Site, original: Any, input: Tensor) -> Any:
        inputs, carries = self._groups(site, (input,))
        module = cast(nn.LayerNorm, site.module)
        gains = self._each(site, "weight")
        shifts = self._each(site, "bias")
        outputs = []
        for (x,), gain, shift in zip(inputs, gains, shifts, strict=True):
            # In a 16-bit model the gain is an fp32 copy: the module computes in fp32 and gives back its input's dtype.
            first = shift if gain is None else gain
            wide = x.dtype if first is None else first.dtype
            if shift is not None and shift.dtype is not wide:
                shift = shift.to(wide)
            y = x if x.dtype is wide else x.to(wide)
            y = torch.layer_norm(y, module.normalized_shape, gain, shift, module.eps)
            outputs.append(y if x.dtype is wide else y.to(x.dtype))
        return self._join(outputs, carries)

    def _swap(self, site: Site, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Any other module: its tensors are replaced (never written) while its own forward runs."""
        inputs, carries = self._groups(site, (args, kwargs))
        points, first, outputs = self._points, self._group, []
        try:
            for group, (probe, (a, k)) in enumerate(zip(points.probes, inputs, strict=True), first):
                self._points, self._group = Points((probe,)), group
                outputs.append(self._swapped(site, probe, original, a, k))
        finally:
            self._points, self._group = points, first
        return self._join(outputs, carries)

    def _swapped(self, site: Site, probe: Probe, original: Any, args: Any, kwargs: Any) -> Any:
        """The forward of a module with the tensors of one probe in place of its own.

        A module of vectors alone (a norm), or of other tensors that are held in fp32, computes with their fp32
        copies and gives back the model's dtype;
        one that mixes vectors and matrices, trained or not, gets all in the model's dtype.
        """
        own = [p for owner, _, _ in site.slots for p in owner._parameters.values() if p is not None]
        held_wide = {
            id(self.weights.tensors[name]) for _, _, name in site.slots if name in self.weights.copies
        }
        wide = all(name in self.weights.copies for _, _, name in site.slots) and all(
            p.dim() <= 1 or id(p) in held_wide for p in own
        )
        held = {id(owner): (owner, owner._parameters) for owner, _, _ in site.slots}
        shown = {key: Watched(parameters) for key, (_, parameters) in held.items()}
        for owner, attribute, name in site.slots:
            tensor = self._kept(name, probe)
            if getattr(owner, "max_norm", None) is not None and not probe.terms:
                tensor = tensor.clone()  # torch renormalises the rows it looks up in place
            shown[id(owner)][attribute] = tensor if wide else tensor.to(owner._parameters[attribute].dtype)  # pyright: ignore
        try:
            for key, (owner, _) in held.items():
                owner.__dict__["_parameters"] = shown[key]
            output = original(*args, **kwargs)
        finally:
            for owner, parameters in held.values():
                owner.__dict__["_parameters"] = parameters
        if probe.terms:
            self.perturbed.update(name for owner, slot, name in site.slots if slot in shown[id(owner)].read)
        if not wide:
            return output
        dtype = self.weights.tensors[site.slots[0][2]].dtype
        return pytree.tree_map(
            lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf,
            output,
        )
