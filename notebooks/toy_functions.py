"""Runs the toy functions of the AdaMeZO paper (Cai, Chen, Zhu, ICML 2026, Table 10) as the authors did.

Three functions of two numbers, MeZO, Adam and AdaMeZO from the same start. Directions come from torch's generator,
seeded with 0 and 1 in turn; the weights are walked in place in fp32 (zo.look.InPlace); AdaMeZO has H = 20 and no
factor of 100. What a run leaves is its path and how long that is (notebooks/toy_functions.ipynb draws it).

The length of a path is the sum of the fp32 norms of the moves as they were computed, before they were added to the
weights. In this arithmetic (`Published`) MeZO's lengths are the published ones to the last bit and Adam's to 1e-8.
AdaMeZO's feel how each operation rounds, by 1e-7 on TF1 and 1e-3 on TF2 and TF3. In the order here they are the
published ones to 9e-10.

What is left is the root: torch's in fp32 is MKL's on a CPU, whose bits depend on the processor, so it is taken through
fp64 here. With that of MKL's AVX-512 kernel, where 0.6 % of roots are one bit lower, the lengths are 4.507765908,
5.320683644 and 1.857673706: the published ones to all digits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zo.directions import Directions, Key, Terms, Theta
from zo.kernels.adam_window import Moments, f32
from zo.look import InPlace
from zo.optimizers import AdaMeZO, MeZO
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Block, Rule, Weights


@dataclass(frozen=True)
class Toy:
    """A function, where a run starts, how many steps it takes, and the rates of Adam and of MeZO and AdaMeZO."""

    formula: str
    function: Callable[[Tensor, Tensor], Tensor]
    start: tuple[float, float]
    steps: int
    adam_lr: float
    zo_lr: float


def _polynomial(x: Tensor, y: Tensor) -> Tensor:
    return 8 * (x - 1) ** 2 * (1.3 * x**2 + 2 * x + 1) + 0.5 * (y - 4) ** 2


def _beale(x: Tensor, y: Tensor) -> Tensor:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2 + 1e-3


def _ellipse(x: Tensor, y: Tensor) -> Tensor:
    return 100 * x**2 + y**2


TOYS = {
    "TF1": Toy("8(x−1)²(1.3x²+2x+1) + 0.5(y−4)²", _polynomial, (0.25, 6.75), 600, 0.01, 0.01),
    "TF2": Toy("Beale's function + 1e-3", _beale, (-1.0, -1.0), 2500, 0.01, 0.002),
    "TF3": Toy("100x² + y²", _ellipse, (-1.0, 1.0), 500, 0.01, 0.002),
}
METHODS = ("mezo", "adam", "adamezo")


class Generator(Directions):
    """Draws z from torch's own generator on the CPU, seeded with the step modulo `seeds`."""

    name = "generator"

    def __init__(self, seeds: int = 2):
        self.seeds = seeds

    def plain(self, weights: Theta, name: str) -> bool:
        return False

    def total(self, weights: Theta, name: str, terms: Terms, rows: Tensor | None = None) -> Tensor:
        shape = weights.source(name).shape
        total = torch.zeros(shape)
        for key, scale in terms:
            z = torch.randn(shape, generator=torch.Generator().manual_seed(key.step % self.seeds))
            total += z * scale
        return total if rows is None else total[rows]


class Point(nn.Module):
    """Two numbers, with a function of them as the loss of a single example."""

    def __init__(self, toy: Toy):
        super().__init__()
        self.toy = toy
        self.theta = nn.Parameter(torch.tensor(toy.start))

    def forward(self) -> Tensor:
        return self.toy.function(self.theta[0], self.theta[1])


class Published(TwoPoint):
    """The arithmetic of the authors' notebook: slopes in fp32, and the fp32 norm of each move as it is made."""

    moves: list[float]

    def slopes(self, losses: Sequence[float]) -> list[float]:
        pairs = zip(losses[0::2], losses[1::2], strict=True)
        return [f32(f32(plus - minus) / f32(2 * self.eps)) for plus, minus in pairs]

    def apply(self, t: int, terms: Sequence[tuple[Key, float]], lr: float) -> None:
        moved = self.directions.total(self.weights, "theta", [(key, f32(c)) for key, c in terms])
        self.moves.append(moved.norm().item())
        super().apply(t, terms, lr)

    def apply_rule(self, t: int, rule: Rule | Moments, keys: Sequence[Key], lr: float) -> None:
        def seen(block: Block) -> Tensor:
            step = rule(block)
            self.moves.append(step.norm().item())
            return step

        super().apply_rule(t, seen, keys, lr)


class PublishedMeZO(Published, MeZO):  # pyright: ignore[reportGeneralTypeIssues]  # the authors' rounding, for one figure
    """MeZO in that arithmetic."""


class PublishedAdaMeZO(Published, AdaMeZO):  # pyright: ignore[reportGeneralTypeIssues]
    """AdaMeZO in that arithmetic: the moments in fp32, newest step first, each product from left to right."""

    def _move_by_ratio(self, t: int, lr: float) -> None:
        newest_first = self.window.steps[::-1]
        slopes = [torch.tensor(p) for _, (p,) in newest_first]
        beta1, beta2 = self.betas

        def rule(block: Block) -> Tensor:
            m, v = torch.zeros(2), torch.zeros(2)
            for k, (p, z) in enumerate(zip(slopes, block.noise, strict=True)):
                m += p * z * beta1**k
                v += p**2 * beta2**k * z**2
            return -lr * m / (v.double().sqrt().float() + self.adam_eps)

        self.apply_rule(t, rule, [key for step, _ in newest_first for key in self.keys(step)], lr)


@dataclass(frozen=True)
class Path:
    """points: fp32 [steps + 1, 2], the start first. length: of all moves. loss: at the end."""

    points: Tensor
    length: float
    loss: float


def run(method: str, toy: Toy) -> Path:
    """Runs one of METHODS on one of TOYS."""
    point = Point(toy)
    moves: list[float] = []
    take = _first_order(point, toy) if method == "adam" else _zeroth_order(point, toy, method, moves)
    points = [point.theta.detach().clone()]
    for t in range(toy.steps):
        take(t)
        points.append(point.theta.detach().clone())
    path = torch.stack(points)
    length = sum(moves) if moves else path.double().diff(dim=0).norm(dim=1).sum().item()
    return Path(path, length, point().item())


def _first_order(point: Point, toy: Toy) -> Callable[[int], object]:
    adam = torch.optim.Adam(point.parameters(), lr=toy.adam_lr)

    def take(t: int) -> None:
        adam.zero_grad()
        point().backward()
        adam.step()

    return take


def _zeroth_order(point: Point, toy: Toy, method: str, moves: list[float]) -> Callable[[int], object]:
    weights, lr = Weights(point, kernels="eager"), f32(toy.zo_lr)
    optimizer = (
        PublishedAdaMeZO(weights, lr=lr, horizon=20, betas=(0.7, 0.9), update_scale=1.0, adam_eps=1e-8)
        if method == "adamezo"
        else PublishedMeZO(weights, lr=lr)
    )
    optimizer.directions, optimizer.moves = Generator(), moves
    look = InPlace(point, lambda model, batch: model().expand(1), optimizer)
    example = torch.zeros(1)  # a look needs a batch; the functions read none
    return lambda t: optimizer.tell(t, look(optimizer.ask(t), example))


# What the authors' notebook printed, as the project's notes have it: lengths in the order of METHODS.
PUBLISHED = {
    "TF1": (4.665946733322926, 3.0227014701, 4.507765908),
    "TF2": (5.5404819330142345, 4.354970210, 5.320683644),
    "TF3": (1.4243322202237323, 1.4142193412, 1.8576737062394386),
}
Paths = Mapping[str, Mapping[str, Path]]


def table(paths: Paths) -> str:
    """Returns lines of function, method, length, published length, loss."""
    lines = [f"{'':4} {'method':8} {'length':>10} {'published':>10} {'loss':>9}"]
    for name, by_method in paths.items():
        for (method, path), published in zip(by_method.items(), PUBLISHED[name], strict=True):
            lines.append(f"{name:4} {method:8} {path.length:10.6f} {published:10.6f} {path.loss:9.2e}")
    return "\n".join(lines)


def figure(paths: Paths) -> Any:
    """Draws a matplotlib figure: one panel per function, one line per method."""
    from matplotlib import pyplot  # of the extra `report`

    figure, (panels,) = pyplot.subplots(1, len(paths), figsize=(4 * len(paths), 3.6), squeeze=False)
    for panel, (name, by_method) in zip(panels, paths.items(), strict=True):
        points = torch.cat([path.points for path in by_method.values()])
        low, high = points.amin(0) - 0.3, points.amax(0) + 0.3
        x, y = (torch.linspace(float(a), float(b), 120) for a, b in zip(low, high, strict=True))
        levels = TOYS[name].function(x[None, :].expand(120, -1), y[:, None].expand(-1, 120))
        panel.contour(x, y, levels.log1p(), levels=14, colors="0.8", linewidths=0.7)
        for method, path in by_method.items():
            panel.plot(path.points[:, 0], path.points[:, 1], label=method, linewidth=1.2)
        panel.plot(*TOYS[name].start, "ko", markersize=4)
        panel.set_title(f"{name}: {TOYS[name].formula}", fontsize=8)
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    return figure
