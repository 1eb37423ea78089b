"""A user's own optimizer, in a package elsewhere, declares what the battery must know; a wrong declaration is named."""

import contextlib
import inspect
import sys

import pytest

from tests.optimizers import test_battery as battery

HEAD = """
import math
from dataclasses import dataclass
from typing import final

import torch
from zo.directions import Key, Probe
from zo.fields import Count
from zo.optimizers import LeZO, Optimizer, Probing
from zo.optimizers.optimizer import DirectionKind, Radius, Rate
from zo.optimizers.twopoint import TwoPoint


@final
@dataclass(eq=False, kw_only=True)
"""
# Slopes from the loss at θ, over the class's own points and not TwoPoint's.
ONE_SIDED = """
class Own(Probing):
    lr: Rate = 1e-3
    eps: Radius = 1e-3
    n: Count = 2
    directions: DirectionKind = DirectionKind("gaussian")
    FACTS

    @property
    def losses_per_step(self):
        return self.n + 1

    def ask(self, t):
        return [Probe(), *(Probe(((key, self.eps),)) for key in self.keys(t))]

    def _move(self, t, losses, lr):
        here, *others = losses
        slopes = [(loss - here) / self.eps for loss in others]
        self.apply(t, [(key, -lr * p / self.n) for key, p in zip(self.keys(t), slopes)], lr)
        return {"loss": here}
"""
# The step is halved where the loss behind it is not lower: a second look, at a point that the first decides.
LOOKS_TWICE = """
class Own(TwoPoint):
    lr: Rate = 1e-3
    directions: DirectionKind = DirectionKind("gaussian")
    FACTS

    @property
    def losses_per_step(self):
        return 2 * self.n + 1

    def step(self, t, batch, look, lr=None):
        first = look(self.ask(t), batch)
        lr = self.rate(t) if lr is None else lr
        return first + look([Probe(self.terms(t, self.slopes(first), -lr))], batch)

    def required_losses(self, losses):
        return losses[:-1]

    def _move(self, t, losses, lr):
        first, after = losses[:-1], losses[-1]
        scale = 1.0 if after < math.fsum(first) / len(first) else 0.5
        self.apply(t, self.terms(t, self.slopes(first), -lr * scale), lr)
        return self.metrics(first, self.slopes(first))
"""
SLOPES = """
class Own(Probing):
    lr: Rate = 1e-3
    n: Count = 1
    directions: DirectionKind = DirectionKind("gaussian")
    FACTS

    @property
    def losses_per_step(self):
        return self.n + 1

    @property
    def forward_passes(self):
        return self.n

    def ask(self, t):
        return [Probe()]

    def step(self, t, batch, look, lr=None):
        return look.slopes(self.keys(t), batch)

    def _move(self, t, losses, lr):
        loss, *slopes = losses
        self.apply(t, [(key, -lr * s / self.n) for key, s in zip(self.keys(t), slopes)], lr)
        return {"loss": loss}
"""
LAYERS = """
class Own(TwoPoint):
    lr: Rate = 1e-3
    FACTS

    def begin(self):
        self.directions = {"kind": "layers", "drop": 0.75}
        super().begin()

    def _move(self, t, losses, lr):
        return self.descend(t, losses, lr)
"""
# Heavy ball on the slopes' mean, whose state is a field of one number that `state` gives.
MOMENTUM = """
class Own(TwoPoint):
    lr: Rate = 1e-3
    directions: DirectionKind = DirectionKind("gaussian")
    FACTS

    def begin(self):
        super().begin()
        self.usual = torch.zeros(1, dtype=torch.float64)

    def state(self):
        return super().state() | {"usual:": self.usual}

    def _move(self, t, losses, lr):
        slopes = self.slopes(losses)
        self.usual.mul_(0.9).add_(0.1 * abs(slopes[0]))
        size = self.usual.item()
        if size == 0.0:
            return self.no_move(**self.metrics(losses, slopes))
        self.apply(t, self.terms(t, slopes, -lr / size), lr)
        return self.metrics(losses, slopes)
"""
# As FZOO: slopes are compared with each other, so equal ones say nothing even if the loss at θ is another.
SPREAD = ONE_SIDED.replace(
    "        self.apply(",
    """        spread = max(slopes) - min(slopes)
        if spread == 0.0:
            return self.no_move(loss=here)
        self.apply(""",
)
FORGETS = MOMENTUM.replace('{"usual:": self.usual}', "{}")
TESTS = {name: test for name, test in vars(battery).items() if name.startswith("test_")}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Installs a module beside zo, with a YAML as conf/local/optimizer would hold it; battery runs one of its tests."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "own.yaml"
    monkeypatch.setitem(battery.OWN, "own", file)
    monkeypatch.delitem(sys.modules, "ownpackage", raising=False)

    def install(code, facts=""):
        text = HEAD.rstrip("\n") + code.replace("FACTS", facts or "pass")
        (tmp_path / "ownpackage.py").write_text(text, encoding="utf-8")
        radius = "eps: 1e-3\n" if "slopes(self.keys" not in code else ""
        file.write_text(f"_target_: ownpackage.Own\nlr: 1e-3\n{radius}", encoding="utf-8")

        def run(test):
            for arguments in arguments_of(TESTS[test]):
                if "tmp_path" in inspect.signature(TESTS[test]).parameters:
                    arguments["tmp_path"] = tmp_path
                with contextlib.suppress(pytest.skip.Exception):
                    TESTS[test]("own", **arguments)

        return run

    yield install
    sys.modules.pop("ownpackage", None)


def arguments_of(test):
    """The arguments beside the name with which pytest would call a test of the battery."""
    calls = [{}]
    for mark in getattr(test, "pytestmark", []):
        keys, values = mark.args[0].replace(" ", "").split(","), mark.args[1]
        rows = [value if len(keys) > 1 else (value,) for value in values]
        calls = [call | dict(zip(keys, row, strict=True)) for call in calls for row in rows]
    return calls


RIGHT = {
    "one-sided": (ONE_SIDED, "one_sided = True"),
    "spread": (SPREAD, ""),
    "twice": (LOOKS_TWICE, "looks_twice = True"),
    "slopes": (SLOPES, "tells_slopes = True"),
    "layers": (LAYERS, "moves_all = False"),
    "momentum": (MOMENTUM, ""),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("which", RIGHT)
def test_what_is_declared_passes_every_test_of_the_battery(own, which):
    run = own(*RIGHT[which])
    for test in TESTS:
        run(test)


EQUAL, ASKS = "test_equal_perturbed_losses_move_nothing", "test_asking_is_a_function_of_the_step"
LOOKS, BITS = "test_costs_and_looks_as_it_says", "test_sixteen_bits"
WRONG = [
    (ONE_SIDED, "", EQUAL, "declares one_sided = True"),
    (SPREAD, "one_sided = True", EQUAL, "Remove the declaration"),
    (LOOKS_TWICE, "", ASKS, "declares looks_twice or tells_slopes"),
    (LOOKS_TWICE, "", LOOKS, "looked 2 times for losses and looks_twice = False"),
    (LOOKS_TWICE, "tells_slopes = True", LOOKS, "looked 2 times for losses and looks_twice = False"),
    (MOMENTUM, "looks_twice = True", ASKS, "and no other does"),
    (SLOPES, "", "test_a_constant_added_to_every_loss_changes_nothing", "declares tells_slopes = True"),
    (SLOPES, "", LOOKS, "1 times for slopes and tells_slopes = False"),
    (SLOPES, "looks_twice = True", LOOKS, "looks_twice = True"),
    (LAYERS, "", BITS, "moves_all = False"),
    (
        MOMENTUM,
        "moves_all = False",
        "test_a_step_that_may_leave_tensors_leaves_some",
        "remove the declaration",
    ),
    (
        MOMENTUM,
        "state_copies = 1.0",
        "test_bytes_kept_are_those_of_what_is_there",
        "declares in state_copies",
    ),
    (MOMENTUM, "backward_passes = 1", "test_replays_from_its_losses", "'checkpoint'"),
    (FORGETS, "", "test_resumes_to_the_same_bits", "state() must give every tensor"),
    (ONE_SIDED, "small_problem = {'eps': 1e6}", "test_descends_a_quadratic", "`small_problem`"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("code", "facts", "test", "sentence"), WRONG, ids=[f"{i}" for i in range(len(WRONG))]
)
def test_a_wrong_declaration_is_named(own, code, facts, test, sentence):
    run = own(code, facts)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as error:
        run(test)
    assert sentence in str(error.value)
