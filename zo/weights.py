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
from zo.directions.direction import two_sides, words_of
from zo.errors import ConfigError
from zo.held import Held
from zo.kernels import Kernels, best, eager, rounding
from zo.kernels.adam_window import Moments
from zo.kernels.elementwise import BLOCK, Block, Rule
from zo.kernels.formulas import Formula
from zo.names import Parameters, trained
from zo.noise import id_of

_GPU_BLOCK = 1 << 22  # of rules that add nothing up over a block; there launches are what costs
_ROWS = 1 << 20  # numbers of a move that are made of thin factors at a time, 4 MiB
_SMALL = 1 << 22  # numbers of one step that the eager kernels make at once and keep, 16 MiB


class Weights(Held):
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
        super().__init__(trained(params), copies=copies, low=update == "master")
        self.stated = update != "auto"
        self.update = update if self.stated else "nearest"
        self.model = params if isinstance(params, nn.Module) else None
        tensors = self.tensors.values() if self.model is None else self.model.parameters()
        self.half = any(tensor.dtype == torch.float16 for tensor in tensors)
        self.ids = {name: id_of(name) for name in self.tensors}
        self.numel = sum(tensor.numel() for tensor in self.tensors.values())
        self._choice = kernels
        self._kernels = self._chosen()

    def _chosen(self) -> dict[torch.device, Kernels]:
        """Returns the kernels of each device of the tensors."""
        return {device: best(device, self._choice) for device in {t.device for t in self.tensors.values()}}

    def __getstate__(self) -> dict[str, object]:
        """All but the kernels: a compiled library cannot be copied, and is found again."""
        return {name: value for name, value in vars(self).items() if name != "_kernels"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._kernels = self._chosen()
        self._renew()

    @property
    def backend(self) -> str:
        """The names of the kernels in use, as the journal's header records them."""
        return "+".join(sorted({kernels.name for kernels in self._kernels.values()}))

    def kernels(self, name: str) -> Kernels:
        """Returns the kernels for this tensor."""
        return self._kernels[self.tensors[name].device]

    def numbers(self, name: str, stream: int, terms: Terms, rows: Tensor | None = None) -> Tensor:
        """Σ scale · (the stream's numbers of this tensor), fp32, in its shape or [len(rows), width]."""
        zeros = torch.zeros_like(self.tensors[name].detach(), dtype=torch.float32)
        if not terms:
            return zeros if rows is None else zeros[rows]
        place, words, kernels = (zeros, self.ids[name], stream), words_of(terms), self.kernels(name)
        if rows is not None:
            return kernels.perturb_rows(*place, words, rows)
        return kernels.perturb(*place, words, zeros)

    def factor(self, name: str, letter: str, size: int, stream: int, word: int) -> Tensor:
        """fp32 [size]: the stream's numbers of the parameter `name`, a zero byte and the letter."""
        zeros = torch.zeros(size, dtype=torch.float32, device=self.tensors[name].device)
        pid = id_of(f"{name}\0{letter}")
        return self.kernels(name).perturb(zeros, pid, stream, [(word, 1.0)], zeros)

    def warm(self, keys: Sequence[Key], directions: Directions) -> None:
        """Let the eager kernels make all plain noise of a small model's step in one call."""
        words = list(dict.fromkeys(key.word for key in keys))
        if words and self.numel * len(words) <= _SMALL and len(self._kernels) == 1:
            (device, kernels), *_ = self._kernels.items()
            plain = [name for name in self.tensors if directions.plain(self, name)]
            layout = [(self.ids[name], self.tensors[name].numel()) for name in plain]
            if layout:
                kernels.warm(words, directions.stream, layout, device)

    def at(self, name: str, probe: Probe, directions: Directions, out: Tensor | None = None) -> Tensor:
        """θ_name + Σ scale z; the tensor itself, not a copy, when no term of the probe touches it."""
        source, terms = self.source(name), directions.terms(self, name, probe.terms)
        if not terms:
            return source
        if directions.plain(self, name):
            return self.kernels(name).perturb(source, self.ids[name], directions.stream, words_of(terms), out)
        if directions.entries(self, name, [probe.terms]) is not None:
            return self.at_many(name, [probe], directions, None if out is None else [out])[0]
        return _plus(directions.total(self, name, terms), source)

    def direction(self, name: str, key: Key, directions: Directions) -> Tensor:
        """z of one tensor, fp32, in its shape."""
        alone = [(key, 1.0)]
        terms, entries = directions.terms(self, name, alone), directions.entries(self, name, [alone])
        if entries is None:
            return directions.total(self, name, terms) if terms else self.numbers(name, directions.stream, [])
        zeros, words = self.numbers(name, directions.stream, []), [words_of(terms)]
        place = (zeros, self.ids[name], directions.stream)
        return self.kernels(name).perturb_many(*place, words, [zeros], entries)[0]

    def at_many(
        self, name: str, probes: Sequence[Probe], directions: Directions, outs: Sequence[Tensor] | None
    ) -> Sequence[Tensor]:
        """Returns `at` for several probes on the same keys, whose noise is made once."""
        entries = directions.entries(self, name, [probe.terms for probe in probes])
        if entries is None and not directions.plain(self, name):
            if two_sides(probes) and (one := directions.terms(self, name, probes[0].terms)):
                total, source = directions.total(self, name, one), self.source(name)
                minus = torch.sub(source, total, out=None if outs is None else outs[1]).to(source.dtype)
                return [_plus(total, source), minus]
            return [self.at(name, probe, directions) for probe in probes]
        terms = [words_of(directions.terms(self, name, probe.terms)) for probe in probes]
        source = self.source(name)
        if not any(terms):
            return [source] * len(probes)
        return self.kernels(name).perturb_many(
            source, self.ids[name], directions.stream, terms, outs, entries
        )

    def rows_at(self, name: str, rows: Tensor, probe: Probe, directions: Directions) -> Tensor:
        """Rows of a matrix at the probe, [len(rows), width]."""
        source, terms = self.source(name), directions.terms(self, name, probe.terms)
        if not terms:
            return source[rows]
        entries = directions.entries(self, name, [probe.terms])
        if entries is None and not directions.plain(self, name):
            return _plus(directions.total(self, name, terms, rows), source[rows])
        place = (source, self.ids[name], directions.stream)
        return self.kernels(name).perturb_rows(*place, words_of(terms), rows, entries)

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
        wanted = [(key, c) for key, c in terms if c != 0.0]
        word = self._rounding_word(rounding_key)
        for name in self.tensors:
            own_decay = 0.0 if any(part in name for part in no_decay) else decay
            mine = directions.terms(self, name, wanted)
            if own_decay == 0.0 and not mine:
                continue
            how = (own_decay, self.update, word, self.low.get(name))
            source, pid = self.source(name), self.ids[name]
            entries = directions.entries(self, name, [wanted]) if mine else None
            if mine and entries is None and not directions.plain(self, name):
                self._add(name, mine, directions, how)
            else:
                self.kernels(name).move(source, pid, directions.stream, words_of(mine), *how, entries)
            self._show(name)

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

    def _add(
        self, name: str, terms: Terms, directions: Directions, how: tuple[float, str, int, Tensor | None]
    ) -> None:
        """The move of numbers that the kind makes itself; those of thin factors are made some rows at a time."""
        source, pid = self.source(name), self.ids[name]
        decay, update, word, low = how
        factors = directions.factors(self, name, terms)
        if factors is None:
            eager.add(source, directions.total(self, name, terms), pid, *how)
            return
        a, b = factors
        matrix, lows = source.view(len(a), len(b)), None if low is None else low.view(len(a), len(b))
        height = max(1, _ROWS // len(b))
        for start in range(0, len(a), height):
            rows = slice(start, start + height)
            lower = None if lows is None else lows[rows]
            eager.add(matrix[rows], a[rows] @ b.T, pid, decay, update, word, lower, start * len(b))

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
        word = self._rounding_word(rounding_key)
        for name in self.tensors:
            own_decay = 0.0 if any(part in name for part in no_decay) else decay
            source, low = self.source(name).view(-1), self.low.get(name)
            lows = None if low is None else low.view(-1)
            flat = {slot: tensors[name].view(-1) for slot, tensors in (state or {}).items()}
            words = self._plain_words(name, keys, directions)
            place, how = (source, self.ids[name]), (own_decay, self.update, word, lows)
            if words is not None and self._fused(rule, name, flat, place, directions.stream, words, how):
                self._show(name)
                continue
            size = _GPU_BLOCK if source.is_cuda and isinstance(rule, Moments | Formula) else BLOCK
            noise_of = self._noise(name, keys, directions, min(size, source.numel()))
            for start in range(0, source.numel(), size):
                here = slice(start, start + size)
                part, lower = source[here], None if lows is None else lows[here]
                w, noise = eager.read(part, lower), noise_of(start, part.numel())
                parts = {slot: t[here] for slot, t in flat.items()}
                step = eager.decayed(rule(Block(name, start, w, noise, parts)), w, own_decay)
                new = w.add_(step)  # where part is fp32, w is part
                eager.write(part, new, self.ids[name], start, self.update, word, lower)
            self._show(name)

    def _fused(
        self,
        rule: Rule | Moments | Formula,
        name: str,
        state: Mapping[str, Tensor],
        place: tuple[Tensor, int],
        stream: int,
        words: Sequence[int],
        how: tuple[float, str, int, Tensor | None],
    ) -> bool:
        """Returns whether the kernels have made the move in one pass."""
        if isinstance(rule, Moments):
            return self.kernels(name).moments(rule, *place, stream, words, *how)
        if isinstance(rule, Formula):
            return self.kernels(name).formula(rule, name, state, *place, stream, words, *how)
        return False

    def _plain_words(self, name: str, keys: Sequence[Key], directions: Directions) -> list[int] | None:
        """The Philox keys, where each key's z of this tensor is the stream's numbers as they are; else None."""
        alone = [[(key, 1.0)] for key in keys]
        whole = directions.plain(self, name) and [directions.terms(self, name, one) for one in alone] == alone
        return [key.word for key in keys] if whole else None

    def _noise(
        self, name: str, keys: Sequence[Key], directions: Directions, most: int
    ) -> Callable[[int, int], Sequence[Tensor]]:
        """Returns f(start, count): one noise block for each key, valid until the next call; count is at most `most`."""
        words, device = self._plain_words(name, keys, directions), self.tensors[name].device
        if words is not None:
            kernels, pid, stream = self.kernels(name), self.ids[name], directions.stream
            room = torch.empty(len(words), most, dtype=torch.float32, device=device)
            return lambda start, n: kernels.noise(words, pid, stream, start, n, device, room) if words else ()
        whole = [self.direction(name, key, directions).view(-1) for key in keys]
        return lambda start, count: [z[start : start + count] for z in whole]


def _plus(total: Tensor, source: Tensor) -> Tensor:
    """source + total in source's dtype; the total's memory is used for it."""
    return total.add_(source).to(source.dtype)


def as_weights(params: "Weights | Parameters") -> Weights:
    """params itself, or the weights of a module or of named parameters with the defaults."""
    return params if isinstance(params, Weights) else Weights(params)
