"""Multinomial logistic regression in float64, its regularisation chosen by cross-validation.

    minimise over W [C, d], b [C]:    ½ ‖W‖² + c Σ_i −log softmax(W x_i + b)_{y_i}

b, where there is one, is not regularised. That is scikit-learn's LogisticRegression(C=c), which MeZO and LM-BFF
probe with; with two classes W has two rows, which are each other's negatives. Solved by L-BFGS from zero, in the
form divided by c n, until no entry of the gradient is above `tol`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

GRID = tuple(10.0 ** (-4 + 8 * i / 9) for i in range(10))  # of c: scikit-learn's, 1e-4 to 1e4


def fit(
    x: Tensor, y: Tensor, classes: int, c: float, *, intercept: bool, tol: float = 1e-4, steps: int = 5000
) -> tuple[Tensor, Tensor]:
    """Returns (W [classes, d], b [classes]) for features x [n, d] and labels y [n]; b is 0 without an intercept."""
    x = x.double()
    w = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(classes, dtype=torch.float64, requires_grad=intercept)
    solver = torch.optim.LBFGS(
        [w, b] if intercept else [w],
        max_iter=steps,
        tolerance_grad=tol,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ w.T + b, y) + (w * w).sum() / (2 * c * len(x))
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    return w.detach(), b.detach()


def choose(
    x: Tensor,
    y: Tensor,
    classes: int,
    *,
    intercept: bool,
    folds: int = 5,
    tol: float = 1e-4,
    steps: int = 5000,
) -> float:
    """The c of GRID with the highest accuracy over stratified folds, the smallest where several have it.

    The i-th example of a class is held out in fold i mod `folds`.
    """
    fold = torch.zeros(len(y), dtype=torch.long)
    for label in y.unique():
        members = (y == label).nonzero()[:, 0]
        fold[members] = torch.arange(len(members)) % folds
    held_out = [
        fold == number for number in range(folds) if (fold == number).any() and (fold != number).any()
    ]
    scores = [_accuracy(x, y, classes, c, held_out, intercept, tol, steps) for c in GRID]
    return GRID[max(range(len(GRID)), key=scores.__getitem__)]


def _accuracy(
    x: Tensor,
    y: Tensor,
    classes: int,
    c: float,
    held_out: Sequence[Tensor],
    intercept: bool,
    tol: float,
    steps: int,
) -> float:
    """Mean over the folds."""
    right = []
    for out in held_out:
        w, b = fit(x[~out], y[~out], classes, c, intercept=intercept, tol=tol, steps=steps)
        right.append(((x[out].double() @ w.T + b).argmax(-1) == y[out]).double().mean().item())
    return sum(right) / len(right) if right else 0.0
