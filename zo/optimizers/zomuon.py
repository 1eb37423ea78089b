"""ZO-Muon: orthogonalised zeroth-order steps in a subspace (arXiv 2602.17155).

    P ∈ R^{m×r} column-orthonormal, new every ν steps;  Ψ_i ∈ R^{r×n}, entries N(0, 1)
    ĝ = (1/N) Σ (L(θ + ε P Ψ_i) − L(θ)) / ε · Ψ_i           r×n, N + 1 forward passes
    θ ← θ − η (P msign(ĝ) + λ θ)                            msign(X) = U Vᵀ of the SVD of X

msign by five steps of Muon's Newton–Schulz iteration, whose singular values end near 1 (0.7 to 1.2). The step has
the same length whatever the losses' scale; losses that are all equal make no move.

Vectors have no msign: they take a step of plain SGD on a dense Gaussian estimate. The authors' code gives them a fixed
learning rate of 1e-7; here `vectors` is its ratio to η, so that a schedule holds for both (1e-2 · 1e-5 = 1e-7).
Their code keeps the Ψ_i; here they are made again by name, and the state is none: P is a function of the seed and
step // ν, r·m numbers a matrix kept while it serves. In the step that refreshes P their code draws another one for
every direction and moves along the last; here all directions of a step share it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from zo.directions import Explicit, Key, Projected
from zo.directions.lowrank import is_matrix, matrix_shape
from zo.estimators import forward_difference
from zo.fields import Count, NonNegative, Steps
from zo.optimizers.optimizer import Probe, Probing, Radius, Rate

_STEP = (3.4445, -4.7750, 2.0315)  # Muon's quintic (Jordan et al., 2024)


@final
@dataclass(eq=False, kw_only=True)
class ZOMuon(Probing):
    """N one-sided directions in a subspace, orthogonalised matrix by matrix.

    rank: r. nu: ν, steps for which P stays. vectors: learning rate of what is no matrix, as a multiple of lr.
    """

    rule = "matrix"

    one_sided = True
    small_problem: ClassVar[Mapping[str, Any]] = {"vectors": 1.0}  # else the vectors hardly move

    lr: Rate = 1e-2
    eps: Radius = 1e-3
    n: Count = 4
    rank: Count = 64
    nu: Steps = 100
    vectors: NonNegative = 1e-5

    def begin(self) -> None:
        self.kind = Projected(self.rank, self.nu)
        self.directions = self.kind
        super().begin()
        shapes = [matrix_shape(t) for t in self.weights.tensors.values() if is_matrix(t)]
        # The root mean square entry of P msign(ĝ), where it is largest: ‖P msign(ĝ)‖² is about the rank.
        self._entry = max((math.sqrt(min(self.rank, m, n) / (m * n)) for m, n in shapes), default=0.0)

    @property
    def losses_per_step(self) -> int:
        return self.n + 1

    def ask(self, t: int) -> list[Probe]:
        return [Probe(), *(Probe(((key, self.eps),)) for key in self.keys(t))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = [forward_difference(loss, losses[0], self.eps) for loss in losses[1:]]
        seen = {"loss": losses[0], "projected_gradient": math.sqrt(math.fsum(p * p for p in slopes) / self.n)}
        if not any(slopes):
            return self.no_move(**seen)
        terms = [(key, p / self.n) for key, p in zip(self.keys(t), slopes, strict=True)]

        def direction(name: str) -> Tensor | tuple[Tensor, Tensor]:
            if not is_matrix(self.weights.source(name)):
                return self.weights.numbers(name, self.kind.stream, terms).mul_(self.vectors)
            core = msign(self.kind.core(self.weights, name, terms))
            return self.kind.projection(self.weights, name, terms[0][0]), core.T

        self.check_size(lr * self._entry)
        self.weights.move([(Key(self.seed, t, 0), -lr)], Explicit(direction), **self.pass_options(t, lr))
        return seen


def msign(x: Tensor, steps: int = 5) -> Tensor:
    """U Vᵀ of x = U S Vᵀ, nearly: singular values between 0.7 and 1.2, but for those far below the largest."""
    norm = x.norm()
    if norm == 0.0:
        return torch.zeros_like(x)
    a, b, c = _STEP
    y = (x.T if x.shape[0] > x.shape[1] else x) / norm
    for _ in range(steps):
        gram = y @ y.T
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.T if x.shape[0] > x.shape[1] else y
