"""Linear probing: the regression, the rows it writes, and the model that is saved."""

import math

import pytest
import torch

from experiments.baselines import logistic_regression
from experiments.baselines.linear_probe import LinearProbe, output_alone, output_of
from experiments.baselines.logistic_regression import GRID, choose, fit
from experiments.commands import replay
from experiments.config.acting import idle
from experiments.models.loading import load
from experiments.peft import attach
from zo.errors import ConfigError, DataError
from zo.weights import Weights

from ..models.tiny import conf


def points(n=60, d=5, classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g)
    noise = torch.randn(n, classes, generator=g)
    return x, (x @ torch.randn(d, classes, generator=g) + noise).argmax(-1)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_fit_is_a_stationary_point(intercept, classes):
    """∇(½ ‖W‖² + c Σ loss) = 0: W = c Σ (e_y − p) xᵀ, and Σ (e_y − p) = 0 where there is an intercept."""
    x, y = points(classes=classes)
    w, b = fit(x, y, classes, 0.7, intercept=intercept, tol=1e-9)
    rest = torch.nn.functional.one_hot(y, classes) - (x.double() @ w.T + b).softmax(-1)
    torch.testing.assert_close(w, 0.7 * rest.T @ x.double(), rtol=0, atol=1e-6)  # c n tol
    if intercept:
        torch.testing.assert_close(rest.sum(0), torch.zeros(classes).double(), rtol=0, atol=1e-6)
    else:
        assert not b.any()
    torch.testing.assert_close(w.sum(0), torch.zeros(5).double(), rtol=0, atol=1e-6)  # of softmax


@pytest.mark.parametrize("intercept", [True, False])
def test_it_is_what_scikit_learn_finds(intercept):
    linear = pytest.importorskip(
        "sklearn.linear_model", reason="pip install scikit-learn (lm-eval brings it)"
    )
    x, y = points()
    theirs = linear.LogisticRegression(C=0.5, fit_intercept=intercept, tol=1e-10, max_iter=5000).fit(
        x.double(), y
    )
    w, b = fit(x, y, 3, 0.5, intercept=intercept, tol=1e-9)
    torch.testing.assert_close(w, torch.from_numpy(theirs.coef_), rtol=0, atol=1e-5)
    if intercept:
        torch.testing.assert_close(
            b - b.mean(), torch.from_numpy(theirs.intercept_ - theirs.intercept_.mean()), rtol=0, atol=1e-5
        )


def test_regularisation_is_chosen_by_held_out_accuracy(monkeypatch):
    x, y = points()
    assert choose(x, y, 3, intercept=True) in GRID
    scores = dict(zip(GRID, [0.1, 0.5, 0.7, 0.7, *[0.2] * 6], strict=True))
    monkeypatch.setattr(logistic_regression, "_accuracy", lambda x, y, classes, c, *_: scores[c])
    assert choose(x, y, 3, intercept=True) == GRID[2]


@pytest.mark.parametrize(
    ("model", "task", "rows"),
    [("tiny-clm", "sentiment", 2), ("tiny-clm", "entailment", 3), ("tiny-mlm", "entailment", 3)],
)
def test_only_the_rows_of_the_classes_change(model, task, rows):
    """The embeddings stay, though the head was tied to them."""
    from experiments.tasks.task import load_task

    loaded = load(conf("model", model, device="cpu"))
    before = loaded.model.get_input_embeddings().weight.detach().clone()  # type: ignore[operator]
    loaded = output_alone(attach(loaded, {"name": "head"}))
    layer = output_of(loaded)
    weights = Weights(loaded.model)
    assert all(p is layer.weight or p is layer.bias for p in loaded.model.parameters() if p.requires_grad)
    head = layer.weight.detach().clone()
    made = load_task(conf("task", task, train=40, dev=0, test=4), loaded)
    assert LinearProbe(weights, c=1.0).fit(loaded, made, 16) == 3
    assert torch.equal(loaded.model.get_input_embeddings().weight, before)  # type: ignore[operator]
    assert int((layer.weight != head).any(1).sum()) == rows


@pytest.mark.parametrize("model", ["tiny-clm", "tiny-mlm"])
def test_the_saved_model_is_the_probed_one(runs, model, capsys):
    result = runs("optimizer=linear_probe", f"model={model}", "task.train=96", "task.test=64")
    assert result["method"] == "linearprobe" and result["steps"] == 0
    assert result["forward_passes"] == 2 and result["after"] > result["before"]
    assert result["trainable_parameters"] > 0
    assert runs("optimizer=linear_probe", f"model={model}", "task.train=96", "task.test=64") == result
    again = runs(
        "optimizer=none", f"model.path={result['folder'] / 'model'}", "task.train=96", "task.test=64"
    )
    assert again["after"] == result["after"]
    assert again["loss_after"] == pytest.approx(result["loss_after"], abs=1e-6)
    with pytest.raises(DataError, match="were not kept"):
        replay.replay(result["folder"], None)


def test_what_does_not_fit_is_named(runs, capsys):
    runs("optimizer=linear_probe", "peft=lora", "optimizer.folds=2", code=2)
    printed = capsys.readouterr().err
    assert "peft=lora" in printed and "fits the head of the model as it is" in printed
    with pytest.raises(ConfigError, match=r"optimizer\.c = 0"):
        LinearProbe([("w", torch.nn.Parameter(torch.zeros(1)))], c=0.0)
    with pytest.raises(ConfigError, match=r"optimizer\.folds = 1"):
        LinearProbe([("w", torch.nn.Parameter(torch.zeros(1)))], folds=1)
    assert math.isclose(GRID[0], 1e-4) and math.isclose(GRID[-1], 1e4) and len(GRID) == 10


def probed(**options):
    """The head of the shipped model after a fit on few examples."""
    from experiments.tasks.task import load_task

    loaded = output_alone(attach(load(conf("model", "tiny-clm", device="cpu")), {"name": "head"}))
    weights = Weights(loaded.model)
    made = load_task(conf("task", "entailment", train=24, dev=0, test=4), loaded)
    LinearProbe(weights, **options).fit(loaded, made, 16)
    return output_of(loaded).weight.detach().clone()


def test_its_options_act_where_they_are_said_to():
    """folds beside c = null alone; the others always, bit for bit."""
    target = {"_target_": "experiments.baselines.LinearProbe"}
    assert idle({**target, "c": 1.0}) == {"folds": "c is None"} and idle({**target, "c": None}) == {}
    fixed = probed(c=1.0)
    assert torch.equal(probed(c=1.0, folds=2), fixed)
    x, y = points(n=24, seed=0)
    assert len({choose(x, y, 3, intercept=False, folds=folds) for folds in (2, 3, 5)}) > 1
    for other in ({"c": 0.5}, {"c": 1.0, "tol": 1e-2}, {"c": 1.0, "steps": 2}):
        assert not torch.equal(probed(**other), fixed)
