"""Measures how much of what probes tell apart is the rounding of a 16-bit model.

A probe at scale s (1 + δ) should have the loss of that at s, but for a part δ of what the perturbation does. In a
16-bit model it has another rounding as well, of perturbed weights and of activations. With δ = 1/32 the difference of
the two losses is therefore nearly all rounding:

    noise = ½ var(L(s (1 + δ)) − L(s)),   seen = var(L(s)),   both among the probes of one look

Where noise is more than half of seen, the losses say more about rounding than about the direction. Measured on SmolLM2
in bfloat16 with sst2 at eps = 1e-3: the whole model 0.03 (MeZO) and 0.14 (FZOO), LoRA 1.1 and 1.3, prefixes 2.0. The
correlation with the same probes in fp32 is 0.99 and 0.88, -0.52 and 0.22, and -0.08; the share in fp32 is below 0.002
(docs/results/rounding-shares.json). It is a ratio of two small samples, so it may exceed 1, and adapters at eps = 1e-2
are still warned of (2.4 and 0.55) where the correlation is 0.86 and 0.79.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from zo.directions import Probe

DELTA = 1 / 32
PROBES = 8  # that are evaluated twice before there is a verdict
LIMIT = 0.5  # of the variance that is seen


def nudged(probe: Probe) -> Probe:
    """The probe with every scale a little larger."""
    return replace(probe, terms=tuple((key, scale * (1 + DELTA)) for key, scale in probe.terms))


class RoundingNoise:
    """Gathers pairs of losses over the first looks. share: noise over what is seen, or None before the verdict."""

    def __init__(self) -> None:
        self.share: float | None = None
        self._probes = 0
        self._noise = self._seen = 0.0

    def wanted(self, probes: Sequence[Probe]) -> list[int]:
        """Returns which probes of a look are to be evaluated again, nudged; none of a look with a single one."""
        some = [number for number, probe in enumerate(probes) if probe.terms][:PROBES]
        return some if self.share is None and len(some) > 1 else []

    def add(self, losses: Sequence[float], again: Sequence[float]) -> None:
        """Takes the losses of one look's probes, and of the same nudged; none where a loss is no number."""
        one, other = (torch.tensor(numbers, dtype=torch.float64, device="cpu") for numbers in (losses, again))
        if not (one.isfinite().all() and other.isfinite().all()):
            return
        self._noise += float(_squares(other - one)) / 2
        self._seen += float(_squares(one))
        self._probes += len(one)
        if self._probes >= PROBES:
            self.share = self._noise / self._seen if self._seen > 0 else 0.0


def _squares(x: torch.Tensor) -> torch.Tensor:
    """Sum of squares about the mean."""
    return (x - x.mean()).square().sum()
