"""The named random numbers of trained tensors, and who makes them: decided once for a tensor and a kind."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zo.directions import Directions, Key, Terms
from zo.held import Held
from zo.kernels import Kernels, Noise, best
from zo.noise import id_of

_SMALL = 1 << 22  # numbers of one step that the eager kernels make at once and keep, 16 MiB
_KINDS = 8  # of directions whose ways are remembered; more than an optimizer uses in a step


@dataclass(frozen=True, slots=True)
class Way:
    """Decisions about a tensor and a kind of direction that hold for every probe and move.

    kernels: the form for the tensor's device. noise: the name of its numbers. plain: z is these numbers as they are.
    all_terms: every term applies to it as it is. transforms: the kind may have `entries` for it. factored: it may have
    `factors`.
    """

    kernels: Kernels
    noise: Noise
    plain: bool
    all_terms: bool
    transforms: bool
    factored: bool


class NamedNoise(Held):
    """Trained tensors with an id each, the kernels of their devices, and the numbers these make.

    kernels: auto, eager, native or triton; who computes (bits of signs are equal).
    """

    def __init__(self, tensors: dict[str, nn.Parameter], *, copies: bool, low: bool, kernels: str):
        super().__init__(tensors, copies=copies, low=low)
        self.ids = {name: id_of(name) for name in tensors}
        self.numel = sum(tensor.numel() for tensor in tensors.values())
        self._choice = kernels
        self._choose()

    def _choose(self) -> None:
        """Finds the kernels of each device of the tensors; what depends on them is decided again."""
        self._kernels = {
            device: best(device, self._choice) for device in {t.device for t in self.tensors.values()}
        }
        self._ways: dict[int, tuple[weakref.ref[Directions], dict[str, Way]]] = {}

    def __getstate__(self) -> dict[str, object]:
        """All but the kernels: a compiled library cannot be copied, and is found again."""
        return {name: value for name, value in vars(self).items() if name not in ("_kernels", "_ways")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._choose()
        self._renew()

    @property
    def backend(self) -> str:
        """The names of the kernels in use, as the journal's header records them."""
        return "+".join(sorted({kernels.name for kernels in self._kernels.values()}))

    def kernels(self, name: str) -> Kernels:
        """Returns the kernels for this tensor."""
        return self._kernels[self.tensors[name].device]

    def ways(self, directions: Directions) -> dict[str, Way]:
        """Returns what is decided about each tensor along a kind of direction."""
        known = self._ways.get(id(directions))
        if known is not None and known[0]() is directions:  # else an object that is gone had this id
            return known[1]
        ways = {name: self._way(name, directions) for name in self.tensors}
        if len(self._ways) >= _KINDS:
            self._ways.clear()
        self._ways[id(directions)] = weakref.ref(directions), ways
        return ways

    def _way(self, name: str, directions: Directions) -> Way:
        plain, kind = directions.plain(self, name), type(directions)
        return Way(
            self.kernels(name),
            Noise(self.ids[name], directions.stream),
            plain,
            all_terms=kind.terms is Directions.terms,
            transforms=not plain and kind.entries is not Directions.entries,
            factored=not plain and kind.factors is not Directions.factors,
        )

    def numbers(self, name: str, stream: int, terms: Terms, rows: Tensor | None = None) -> Tensor:
        """Σ scale · (the stream's numbers of this tensor), fp32, in its shape or [len(rows), width]."""
        zeros = torch.zeros_like(self.tensors[name].detach(), dtype=torch.float32)
        if not terms:
            return zeros if rows is None else zeros[rows]
        noise, words = Noise(self.ids[name], stream), [(key.word, scale) for key, scale in terms]
        if rows is not None:
            return self.kernels(name).perturb_rows(zeros, noise, words, rows)
        return self.kernels(name).perturb(zeros, noise, words, zeros)

    def factor(self, name: str, letter: str, size: int, stream: int, word: int) -> Tensor:
        """fp32 [size]: the stream's numbers of the parameter `name`, a zero byte and the letter."""
        zeros = torch.zeros(size, dtype=torch.float32, device=self.tensors[name].device)
        noise = Noise(id_of(f"{name}\0{letter}"), stream)
        return self.kernels(name).perturb(zeros, noise, [(word, 1.0)], zeros)

    def warm(self, keys: Sequence[Key], directions: Directions) -> None:
        """Let the eager kernels make all plain noise of a small model's step in one call."""
        words = list(dict.fromkeys([key.word for key in keys]))
        if words and self.numel * len(words) <= _SMALL and len(self._kernels) == 1:
            (device, kernels), *_ = self._kernels.items()
            plain = [(name, way.noise.pid) for name, way in self.ways(directions).items() if way.plain]
            if plain:
                layout = [(pid, self.tensors[name].numel()) for name, pid in plain]
                kernels.warm(words, directions.stream, layout, device)
