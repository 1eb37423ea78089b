"""What an optimizer says of when its options act is so, bit for bit, on a problem where every bound binds."""

import importlib
import itertools
import json
import warnings
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from experiments.config.acting import MEMORY_ONLY, conditions, idle, settled
from experiments.config.compose import compose
from experiments.config.signatures import Unreadable
from tests.optimizers.test_battery import YAMLS
from zo import ConfigError, ModuleLook

STEPS = 8
# Where an option's own default is of the size of real models, one of this problem's.
SIZES: dict[str, dict[str, Any]] = {
    "adamezo": {"horizon": 3, "warmup": 2, "update_scale": 1.0, "adam_eps": 1e-2},
    "adamw": {"eps": 1e-2, "clip": 1.0},
    "fzoo": {"n": 4, "clip": 1.0},
    "fzoo_ablation": {"n": 4, "clip": 1.0},
    "fzoor": {"n": 4, "clip": 1.0},
    "eggroll": {"n": 2},
    "helene": {"anneal": 3.0, "refresh": 2, "batch": 4},
    "hizoo": {"alpha": 0.1, "smooth_steps": 3},
    "hizool": {"alpha": 0.1, "smooth_steps": 3},
    "lozo": {"nu": 3},
    "lozom": {"nu": 3, "rank": 2},
    "meazo": {"zeta": 1e-2},
    "mezoswitch": {"record": "RECORD"},
    "radazo": {"zeta": 1e-2},
    "sgd": {"momentum": 0.5, "clip": 1.0},
    "subzero": {"rank": 2, "refresh": 3},
    "zoadam": {"adam_eps": 1e-2},
    "zoadamu": {"warmup": 1, "annealed": 6, "alpha": 0.3, "beta1": 0.4, "beta2": 0.2, "sigma": 1e-2},
    "zosign": {"eps": 1.0},  # of a slope the sign alone counts
    "zomuon": {"rank": 2, "nu": 3, "vectors": 0.1},
}
# Values of the options that others may hang on, declared or not: every combination is a place to look.
GATES: dict[str, dict[str, list[Any]]] = {
    "adamezo": {"horizon": [1, 3], "betas": [(0.7, 0.9), (0.7, 0.0)], "adam_eps": [0.0, 1e-2]},
    "adamw": {"dropout": [True, False]},
    "fzoo_ablation": {"sides": ["one", "two"], "baseline": ["l0", "others"], "running": [0.0, 0.5]},
    "fzoor": {"reuse": ["spread", "directions"]},
    "helene": {"clip": ["layer", "constant"]},
    "hizoo": {"alpha": [0.0, 0.1], "smooth": ["constant", "drop", "linear", "cosine"]},
    "hizool": {"alpha": [0.0, 0.1], "smooth": ["constant", "drop", "linear", "cosine"]},
    "mezo_momentum": {"momentum": [0.0, 0.5], "horizon": [1, 3]},
    "mezoswitch": {"lr": [0.0, 1e-2], "record": [None, "RECORD"]},
    "radazo": {"sides": ["one", "two"]},
    "sgd": {"momentum": [0.0, 0.5], "dropout": [True, False]},
    "zoadam": {"sides": ["one", "two"]},
    "zoadamu": {"alpha": [1.0, 0.3], "beta1": [1.0, 0.4], "beta2": [1.0, 0.2], "signed": [False, True]},
    "zoconservative": {"sides": ["one", "two"]},
    "zomomentum": {"sides": ["one", "two"]},
    "zosgd": {"sides": ["one", "two"]},
    "zosign": {
        "n": [1, 2],
        "sides": ["one", "two"],
        "directions": ["gaussian", {"kind": "rademacher"}],
        "weight_decay": [0.0, 0.5],
    },
}
# Other values of an option; a number that is not here is tried at twice and at half.
OTHERS: dict[str, list[Any]] = {
    "adam_eps": [2e-2, 3e-2],
    "alpha": [0.0, 0.5],
    "baseline": ["l0", "others"],
    "betas": [(0.5, 0.5), (0.1, 0.9)],
    "clip": [0.5, None],
    "ddof": [0, 1],
    "delta": [0.5],
    "directions": ["gaussian", "rademacher", "sphere"],
    "drop": [0.3],
    "dropout": [True, False],
    "eps": [0.3, 0.02],
    "eps_inside": [True, False],
    "estimator": ["paper", "code"],
    "factor": [3.0, 1.0],
    "floor": [0.3, 10.0],
    "horizon": [2, 4],
    "lr": [3e-2],
    "momentum": [0.9, 0.3],
    "n": [2, 4, 6],
    "nu": [1, 5],
    "rank": [1, 3],
    "record": ["OTHER", None],
    "refresh": [1, 3],
    "reuse": ["spread", "directions"],
    "running": [0.9, 0.3],
    "sides": ["one", "two"],
    "sign": ["element", "scalar"],
    "signed": [True, False],
    "smooth": ["constant", "drop", "linear", "cosine"],
    "smooth_steps": [1, 6],
    "sparsity": [0.3],
    "warmup": [0, 4],
    "weight_decay": [1.0],
}


class Layers(nn.Module):
    """Two layers and a head, with dropout between: curved, and not even, so that the size of a probe matters."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        sizes = {"layers": [(6, 5), (5, 6)], "head": [(2, 5)]}
        self.layers = nn.ParameterList(torch.randn(s, generator=generator) * 0.6 for s in sizes["layers"])
        self.head = nn.Parameter(torch.randn(2, 5, generator=generator))
        self.offset = nn.Parameter(torch.randn(2, generator=generator))
        self.drop = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.layers
        seen = self.drop(torch.tanh(x @ first) @ second)
        return (seen.exp().clamp(max=4.0)[:, :5] @ self.head.T + self.offset).square().sum(1)


def objective(model: Any, batch: torch.Tensor) -> torch.Tensor:
    return model(batch)


def trained(name: str, options: dict[str, Any], records: dict[str, str]) -> list[torch.Tensor] | None:
    """The weights after a few steps; None for options that are refused together."""
    arguments = {k: records.get(v, v) if isinstance(v, str) else v for k, v in options.items()}
    module, _, kind = arguments.pop("_target_").rpartition(".")
    model = Layers().eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = getattr(importlib.import_module(module), kind)(model, **arguments)
    except ConfigError:
        return None
    look = ModuleLook(model, objective, optimizer)
    for t in range(STEPS):
        batch = torch.randn(4, 6, generator=torch.Generator().manual_seed(t))
        optimizer.tell(t, optimizer.step(t, batch, look))
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.fixture
def records(tmp_path) -> dict[str, str]:
    """Lengths of steps, long and short ones, by the names that the tables above have for the files."""
    lengths = {"RECORD": [1.0, 1e-6] * STEPS, "OTHER": [5.0, 1e-6] * STEPS}
    for name, values in lengths.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    return {name: str(tmp_path / f"{name}.json") for name in lengths}


def written(name: str) -> dict[str, Any]:
    """A YAML's options at the size of this problem."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(YAMLS[name]))
    plain = {key: value for key, value in loaded.items() if not str(value).startswith("${")}
    eps = {"eps": 0.1} if "eps" in plain else {}
    return plain | {"lr": 1e-2} | eps | SIZES.get(name, {})


def others(option: str, value: Any) -> list[Any]:
    if isinstance(value, str) and option == "clip":  # of HELENE
        return ["layer" if value == "constant" else "constant"]
    if option in OTHERS:
        return [other for other in OTHERS[option] if other != value]
    number: Any = value
    whole = isinstance(number, int)
    return [number * 2, max(1, number // 2) if whole else number / 2]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", YAMLS)
def test_an_option_is_said_to_have_no_effect_where_and_only_where_the_bits_are_equal(name, records):
    gates = GATES.get(name, {})
    wrong = []
    for values in itertools.product(*gates.values()):
        base = written(name) | dict(zip(gates, values, strict=True))
        start = trained(name, base, records)
        if start is None or (base["lr"] == 0.0 and base["record"] is None):  # refused, or nothing moves
            continue
        said = idle(base)
        for option in base.keys() - {"_target_", *MEMORY_ONLY}:
            ends = [trained(name, base | {option: other}, records) for other in others(option, base[option])]
            ends = [end for end in ends if end is not None]
            if not ends:  # all others are refused beside these
                continue
            same = all(equal(start, end) for end in ends)
            if same != (option in said):
                wrong.append(
                    (option, "is the same" if same else "differs", dict(zip(gates, values, strict=True)))
                )
    assert wrong == [], "\n".join(map(str, wrong))


@pytest.mark.parametrize("name", [name for name in YAMLS if GATES.get(name)])
def test_what_is_settled_has_the_bits_of_what_was_written(name, records):
    """The form that the hash sees, of every combination; two that settle to one are one run."""
    gates, seen = GATES[name], {}
    for values in itertools.product(*gates.values()):
        base = written(name) | dict(zip(gates, values, strict=True))
        if (end := trained(name, base, records)) is None:
            continue
        form = settled(base)
        again = trained(name, form, records)
        assert again is not None and equal(end, again), base
        assert equal(end, seen.setdefault(json.dumps(form, sort_keys=True), end)), base
        assert settled(form) == form


def test_momentum_over_one_step_is_none_and_then_its_horizon_says_nothing_either():
    mezo = {"_target_": "zo.optimizers.MeZOMomentum", "momentum": 0.9, "horizon": 1}
    assert settled(mezo) == {"_target_": "zo.optimizers.MeZOMomentum", "momentum": 0.0, "horizon": 10}
    assert set(idle(mezo)) == {"momentum"}


OWN = """
class Base:
    acts_when = {said}

    def __init__(self, params, lr: float = 0.1, betas: tuple[float, float] = (0.9, 0.9), horizon: int = 3):
        pass


class Mine(Base):
    pass
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package of one's own with a class that inherits its `acts_when`; each is another, as sources are read once."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, said: dict[str, str]) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(OWN.replace("{said}", repr(said)))
        return f"{name}.Mine"

    return make


@pytest.mark.parametrize(
    ("condition", "betas", "acts"),
    [
        ("betas == [0.9, 0.0]", [0.9, 0.0], True),
        ("lr < 0.5 and (horizon >= 4 or horizon in (1, 3))", [0.9, 0.9], True),
        ("lr > 0.5 or horizon not in (1, 3)", [0.9, 0.9], False),
        ("betas is not None", [0.9, 0.9], True),
    ],
)
def test_a_condition_is_read_from_the_source_of_any_class(mine, condition, betas, acts):
    target = mine(f"own{abs(hash(condition))}", {"horizon": condition})
    assert conditions(target) == {"horizon": condition}
    assert idle({"_target_": target, "betas": betas}) == ({} if acts else {"horizon": condition})


@pytest.mark.parametrize(
    ("said", "problem"),
    [({"horizon": "nonesuch > 1"}, "names nonesuch, which it does not take"), ({"other": "lr > 1"}, "names other"),
     ({"horizon": "lr >"}, "'lr >', which is no condition")],
)  # fmt: skip
def test_what_is_no_condition_is_told_before_anything_runs(mine, said, problem):
    name = f"bad{abs(hash(problem))}"
    with pytest.raises(Unreadable, match=problem):
        conditions(mine(name, said))
    (found,) = compose([f"optimizer._target_={name}.Mine"]).problems
    assert "This cannot be called" in found.what and problem in found.what
