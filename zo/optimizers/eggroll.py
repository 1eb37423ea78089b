"""EGGROLL: evolution strategies at the hyperscale (Sarkar et al., arXiv 2511.16652, ICML 2026).

    member k of N = 2n:  θ ± σ A_i B_iᵀ/√r,   antithetic pairs share A_i, B_i        N forward passes
    s_k = −L_k;   ŝ_k = (s_k − mean s) / std s                                       over all members
    θ ← θ + η √N ((1/N) Σ_i (ŝ_i⁺ − ŝ_i⁻) A_i B_iᵀ/√r) − η λ θ

The factors are fresh in every step and pair; the authors' code can keep them (noise_reuse; its 0 keeps them for good),
and takes any first-order rule from there on: this is plain SGD. The √N is theirs. Their sum also keeps the σ of the
members, so a rate of theirs for SGD is to be multiplied by σ here. std has ddof 0 in both, but theirs is √(var + 1e-5),
which is hardly the losses' where they spread less than 3e-3; here losses that spread less than `floor` make no move,
and with the others a step's length does not depend on their scale. Vectors get dense Gaussians (their scripts for
language models freeze them); embeddings, which their code leaves out, get low rank like every matrix. All members are
evaluated in one stacked forward as x Wᵀ + σ/√r (x B) Aᵀ. No state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from zo.directions import Probe
from zo.estimators import deviation
from zo.fields import Count, NonNegative
from zo.optimizers.optimizer import Probing, Radius, Rate


@final
@dataclass(eq=False, kw_only=True)
class EGGROLL(Probing):
    """n antithetic pairs of low-rank members, fitness normalised over all of them.

    eps: σ. n: pairs. rank: r. floor: smallest deviation of the losses that is taken for a signal.
    """

    lr: Rate = 1e-5
    eps: Radius = 1e-3
    n: Count = 8
    rank: Count = 1
    floor: NonNegative = 1e-8

    def begin(self) -> None:
        self.directions = {"kind": "lowrank", "rank": self.rank}
        super().begin()

    @property
    def losses_per_step(self) -> int:
        return 2 * self.n

    def ask(self, t: int) -> list[Probe]:
        return [Probe(((key, scale),)) for key in self.keys(t) for scale in (self.eps, -self.eps)]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        sigma = deviation(losses, 0)
        loss = math.fsum(losses) / len(losses)
        if sigma <= self.floor:
            return self.no_move(loss=loss, sigma=sigma)
        pairs = zip(self.keys(t), losses[0::2], losses[1::2], strict=True)
        scale = lr / math.sqrt(2 * self.n)  # η √N / N
        self.apply(t, [(key, -scale * (plus - minus) / sigma) for key, plus, minus in pairs], lr)
        return {"loss": loss, "sigma": sigma}
