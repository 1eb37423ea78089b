"""The trained weights θ: read at a probe, moved in one pass, hashed, copied.

Only `move`, `elementwise` and `load` write to them. A weight of 16 bits takes moves by `update`
(zo/kernels/rounding.py). What is stored beside 16-bit parameters, such as fp32 copies of vectors, is in zo/held.py.

A move that is a sum of directions is `move`. One whose entries depend on the noise in another way (a moment,
a sign, a curvature) is `elementwise`, by a Formula (zo/kernels/formulas.py), which the kernels work out in the cache:

    def step(at):                                       # momentum: m ← β m + p z, θ ← θ − η m
        m = at.state["m"] = at.state["m"] * beta + at.noise[0] * p
        return m * -lr

    weights.elementwise(Formula(step), [key], directions, {"m": m}, decay=lr * weight_decay, rounding_key=...)

with m = weights.zeros(), which the optimizer keeps (Optimizer.state_tensors puts it into snapshots). What no formula
can say is a rule, any function of one Block of one tensor after another to what is to be added there. Its blocks
have a fixed size and order on every device, so a sum over them is always the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from zo.directions import Directions, Key, Probe, Terms
from zo.directions.direction import two_sides
from zo.errors import ConfigError
from zo.kernels import Write, eager, rounding
from zo.kernels.adam_window import Moments
from zo.kernels.elementwise import BLOCK, Block, Rule
from zo.kernels.formulas import Formula
from zo.named_noise import NamedNoise, Way
from zo.names import Parameters, trained

_GPU_BLOCK = 1 << 22  # of rules that add nothing up over a block; there launches are what costs
_ROWS = 1 << 20  # numbers of a move that are made of thin factors at a time, 4 MiB


class Weights(NamedNoise):
    """The tensors of a model that require a gradient, by canonical name.

    params: a module or its named parameters.
    update: auto, nearest, stochastic or master; how 16-bit weights take a move. auto is nearest here, and master in
        first-order methods (zo/optimizers/firstorder.py).
    model: the module; None for named parameters.
    stated: whether `update` was chosen, that is, given and not auto.
    half: whether the model holds float16 numbers, trained or frozen.
    kernels: auto, eager, native or triton; who computes (bits of signs are equal).
    copies: keep fp32 copies of 16-bit vectors.
    """

    def __init__(
        self, params: Parameters, *, update: str = "auto", kernels: str = "auto", copies: bool = True
    ):
        rounding.check_update(update)
        super().__init__(trained(params), copies=copies, low=update == "master", kernels=kernels)
        self.stated = update != "auto"
        self.update = update if self.stated else "nearest"
        self.model = params if isinstance(params, nn.Module) else None
        tensors = self.tensors.values() if self.model is None else self.model.parameters()
        self.half = any(tensor.dtype == torch.float16 for tensor in tensors)
        self._spared: dict[tuple[str, ...], frozenset[str]] = {}  # tensors without decay, by `no_decay`

    def _own(self, name: str, probe: Probe, directions: Directions) -> Probe:
        """The probe with its terms as they apply to one tensor."""
        return Probe(tuple(directions.terms(self, name, probe.terms)))

    def at(self, name: str, probe: Probe, directions: Directions, out: Tensor | None = None) -> Tensor:
        """θ_name + Σ scale z; the tensor itself, not a copy, when no term of the probe touches it."""
        way, source = self.ways(directions)[name], self.source(name)
        own = probe if way.all_terms else self._own(name, probe, directions)
        if not own.terms:
            return source
        if way.plain:
            return way.kernels.perturb(source, way.noise, own.words, out)
        if way.transforms and directions.entries(self, name, [probe.terms]) is not None:
            return self.at_many(name, [probe], directions, None if out is None else [out])[0]
        return _plus(directions.total(self, name, own.terms), source)

    def direction(self, name: str, key: Key, directions: Directions) -> Tensor:
        """z of one tensor, fp32, in its shape."""
        way, probe = self.ways(directions)[name], Probe(((key, 1.0),))
        own = probe if way.all_terms else self._own(name, probe, directions)
        entries = directions.entries(self, name, [probe.terms]) if way.transforms else None
        if entries is None and own.terms:
            return directions.total(self, name, own.terms)
        zeros = self.numbers(name, directions.stream, [])
        if entries is None:
            return zeros
        return way.kernels.perturb_many(zeros, way.noise, [own.words], [zeros], entries)[0]

    def at_many(
        self, name: str, probes: Sequence[Probe], directions: Directions, outs: Sequence[Tensor] | None
    ) -> Sequence[Tensor]:
        """Returns `at` for several probes on the same keys, whose noise is made once."""
        way, source = self.ways(directions)[name], self.source(name)
        entries = None
        if way.transforms:
            entries = directions.entries(self, name, [probe.terms for probe in probes])
        own = probes if way.all_terms else [self._own(name, probe, directions) for probe in probes]
        if entries is None and not way.plain:
            if two_sides(probes) and own[0].terms:
                total = directions.total(self, name, own[0].terms)
                minus = torch.sub(source, total, out=None if outs is None else outs[1]).to(source.dtype)
                return [_plus(total, source), minus]
            return [self.at(name, probe, directions) for probe in probes]
        words = [probe.words for probe in own]
        if not any(words):
            return [source] * len(probes)
        return way.kernels.perturb_many(source, way.noise, words, outs, entries)

    def rows_at(self, name: str, rows: Tensor, probe: Probe, directions: Directions) -> Tensor:
        """Rows of a matrix at the probe, [len(rows), width]."""
        way, source = self.ways(directions)[name], self.source(name)
        own = probe if way.all_terms else self._own(name, probe, directions)
        if not own.terms:
            return source[rows]
        entries = directions.entries(self, name, [probe.terms]) if way.transforms else None
        if entries is None and not way.plain:
            return _plus(directions.total(self, name, own.terms, rows), source[rows])
        return way.kernels.perturb_rows(source, way.noise, own.words, rows, entries)

    def factors_at(self, name: str, probe: Probe, directions: Directions) -> tuple[Tensor, Tensor] | None:
        """Returns (A, B) with θ_name + A Bᵀ the matrix at the probe; None if no term touches it."""
        terms = directions.terms(self, name, probe.terms)
        return directions.factors(self, name, terms) if terms else None

    def move(
        self,
        terms: Iterable[tuple[Key, float]],
        directions: Directions,
        *,
        decay: float = 0.0,
        no_decay: Sequence[str] = (),
        rounding_key: Key | None = None,
    ) -> None:
        """θ ← θ + Σ c z − decay · θ in one pass; tensors whose name contains one of `no_decay` keep all.

        rounding_key names the bits of stochastic rounding, another one for every move. Without a term and decay nothing
        is touched.
        """
        self.refresh()
        move = Probe(tuple([(key, c) for key, c in terms if c != 0.0]))
        ways, holds = self.ways(directions), bool(self.copies or self.low)
        for name, write in self._writes(decay, no_decay, rounding_key).items():
            way = ways[name]
            own = move if way.all_terms else self._own(name, move, directions)
            if write.decay == 0.0 and not own.terms:
                continue
            entries = None
            if way.transforms and own.terms:
                entries = directions.entries(self, name, [move.terms])
            if own.terms and entries is None and not way.plain:
                self._add(name, own.terms, directions, write)
            else:
                low = self.low.get(name)
                way.kernels.move(self.source(name), way.noise, own.words, write, low, entries)
            if holds:
                self._show(name)

    def _writes(self, decay: float, no_decay: Sequence[str], rounding_key: Key | None) -> dict[str, Write]:
        """Returns how each tensor takes a move; `no_decay` as in `move`."""
        word = self._rounding_word(rounding_key)
        write, spared = Write(decay, self.update, word), Write(0.0, self.update, word)
        parts = tuple(no_decay)
        if parts not in self._spared:
            self._spared[parts] = frozenset(n for n in self.tensors if any(part in n for part in parts))
        names = self._spared[parts]
        return {name: spared if name in names else write for name in self.tensors}

    def _rounding_word(self, rounding_key: Key | None) -> int:
        """The 64-bit key of a move's rounding bits."""
        if rounding_key is not None:
            return rounding_key.word
        if self.update == "stochastic":
            raise ConfigError(
                "update = 'stochastic' needs a rounding_key for every move, such as Key(seed, t, -1): with the same "
                "bits in all moves an entry would be rounded the same way for ever."
            )
        return 0

    def _add(self, name: str, terms: Terms, directions: Directions, write: Write) -> None:
        """The move of numbers that the kind makes itself; those of thin factors are made some rows at a time."""
        source, pid, low = self.source(name), self.ids[name], self.low.get(name)
        factors = directions.factors(self, name, terms)
        if factors is None:
            eager.add(source, directions.total(self, name, terms), pid, write, low)
            return
        a, b = factors
        matrix, lows = source.view(len(a), len(b)), None if low is None else low.view(len(a), len(b))
        height = max(1, _ROWS // len(b))
        for start in range(0, len(a), height):
            rows = slice(start, start + height)
            lower = None if lows is None else lows[rows]
            eager.add(matrix[rows], a[rows] @ b.T, pid, write, lower, start * len(b))

    def zeros(self) -> dict[str, Tensor]:
        """A state for `elementwise`: fp32 zeros in the shape of every trained tensor, by name."""
        return {name: torch.zeros_like(t.detach(), dtype=torch.float32) for name, t in self.tensors.items()}

    def elementwise(
        self,
        rule: Rule | Moments | Formula,
        keys: Sequence[Key],
        directions: Directions,
        state: Mapping[str, Mapping[str, Tensor]] | None = None,
        *,
        decay: float = 0.0,
        no_decay: Sequence[str] = (),
        rounding_key: Key | None = None,
    ) -> None:
        """θ ← θ + the rule's step − decay · θ; read once, written once, rounded as by `move`.

        keys: whose noise the rule gets, in this order; none is allowed.
        state: fp32 tensors that the rule reads and writes, by its own name and then the tensor's (`zeros`).
        A rule that returns Σ c z, summed in the order of the keys, gives the bits of `move`.
        """
        self.refresh()
        words, ways = tuple([key.word for key in keys]), self.ways(directions)
        for name, write in self._writes(decay, no_decay, rounding_key).items():
            way, source, low = ways[name], self.source(name).view(-1), self.low.get(name)
            lows = None if low is None else low.view(-1)
            flat = {slot: tensors[name].view(-1) for slot, tensors in (state or {}).items()}
            as_is = self._as_is(way, name, keys, directions)
            if as_is and _fused(way, rule, name, flat, source, words, write, lows):
                self._show(name)
                continue
            size = _GPU_BLOCK if source.is_cuda and isinstance(rule, Moments | Formula) else BLOCK
            noise_of = self._noise(name, keys, directions, min(size, source.numel()), as_is)
            for start in range(0, source.numel(), size):
                here = slice(start, start + size)
                part, lower = source[here], None if lows is None else lows[here]
                w, noise = eager.read(part, lower), noise_of(start, part.numel())
                parts = {slot: t[here] for slot, t in flat.items()}
                step = eager.decayed(rule(Block(name, start, w, noise, parts)), w, write.decay)
                new = w.add_(step)  # where part is fp32, w is part
                eager.store(part, new, way.noise.pid, start, write, lower)
            self._show(name)

    def _as_is(self, way: Way, name: str, keys: Sequence[Key], directions: Directions) -> bool:
        """Returns whether each key's z of this tensor is the stream's numbers as they are."""
        if way.all_terms or not way.plain:
            return way.plain
        alone = [[(key, 1.0)] for key in keys]
        return [directions.terms(self, name, one) for one in alone] == alone

    def _noise(
        self, name: str, keys: Sequence[Key], directions: Directions, most: int, as_is: bool
    ) -> Callable[[int, int], Sequence[Tensor]]:
        """Returns f(start, count): one noise block for each key, valid until the next call; count is at most `most`."""
        if as_is:
            way, device = self.ways(directions)[name], self.tensors[name].device
            words = [key.word for key in keys]
            room = torch.empty(len(words), most, dtype=torch.float32, device=device)
            return lambda start, n: (
                way.kernels.noise(words, way.noise, start, n, device, room) if words else ()
            )
        whole = [self.direction(name, key, directions).view(-1) for key in keys]
        return lambda start, count: [z[start : start + count] for z in whole]


def _fused(
    way: Way,
    rule: Rule | Moments | Formula,
    name: str,
    state: Mapping[str, Tensor],
    w: Tensor,
    words: Sequence[int],
    write: Write,
    low: Tensor | None,
) -> bool:
    """Returns whether the kernels have made the move in one pass; all tensors are flat."""
    if isinstance(rule, Moments):
        return way.kernels.moments(w, way.noise, rule, words, write, low)
    if isinstance(rule, Formula):
        program = rule.program(name, len(words), tuple(state))
        state_tensors = list(state.values())
        return program is not None and way.kernels.formula(
            w, way.noise, program, words, state_tensors, write, low
        )
    return False


def _plus(total: Tensor, source: Tensor) -> Tensor:
    """source + total in source's dtype; the total's memory is used for it."""
    return total.add_(source).to(source.dtype)


def as_weights(params: "Weights | Parameters") -> Weights:
    """params itself, or the weights of a module or of named parameters with the defaults."""
    return params if isinstance(params, Weights) else Weights(params)
