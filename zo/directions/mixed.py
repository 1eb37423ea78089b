"""Directions that lean to where earlier ones went: a ż + b (m + s z̈), with a momentum m that an optimizer keeps."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from zo.directions.direction import Directions, Key, Terms, Theta
from zo.kernels.transforms import AddMomentum


class Mixed(Directions):
    """The key (seed, step, i) names a ż + b (m + s z̈) with ż of that key and z̈ of (seed, step, i + 1).

    base: the plain kind of ż and z̈. mix: step → (a, b, s). m: fp32 tensors by name; read when it is asked, so the z
    of an older step cannot be made again.
    """

    name = "mixed"
    stateful = True

    def __init__(
        self,
        base: Directions,
        mix: Callable[[int], tuple[float, float, float]],
        m: Mapping[str, Tensor],
    ):
        self.base = base
        self.stream = base.stream
        self.mix = mix
        self.m = m

    def plain(self, weights: Theta, name: str) -> bool:
        return False

    def terms(self, weights: Theta, name: str, terms: Terms) -> Terms:
        noise = []
        for key, scale in terms:
            a, b, s = self.mix(key.step)
            noise += [(key, scale * a), (beside(key), scale * b * s)]
        return noise

    def entries(self, weights: Theta, name: str, lists: Sequence[Terms]) -> AddMomentum:
        leans = (sum(scale * self.mix(key.step)[1] for key, scale in terms) for terms in lists)
        return AddMomentum(self.m[name], tuple(leans))


def beside(key: Key) -> Key:
    """The key of z̈ beside ż."""
    return Key(key.seed, key.step, key.index + 1)
