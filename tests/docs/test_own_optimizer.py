"""docs/own-optimizer.md: its method as it stands there, added to a copy of the project, and in a package of its own."""

import json
import re

import pytest
import torch

from zo import MeZO, ModuleLook

from .copies import copied, execute
from .pages import ROOT, files

PAGE = files(ROOT / "docs" / "own-optimizer.md")
CODE, YAML = PAGE["zo/optimizers/clipzo.py"], PAGE["conf/optimizer/clipzo.yaml"]
SHORT = ("budget.steps=3", "task.train=16", "task.dev=8", "task.test=8", "batch.size=4", "threads=1")


def clipzo():
    names: dict = {"__name__": "clipzo"}
    exec(compile(CODE, "clipzo.py", "exec"), names)
    return names["ClipZO"]


def run(kind, **arguments):
    """Weights after 20 steps on ½‖θ − target‖², with a batch of outliers at every fifth."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 1)
    optimizer = kind(model, lr=3e-3, **arguments)
    look = ModuleLook(model, lambda m, batch: (m(batch[0])[:, 0] - batch[1]).square(), optimizer)
    seen = []
    for t in range(20):
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(t))
        batch = (inputs, inputs.sum(1) * (100.0 if t % 5 == 4 else 1.0))
        seen.append(optimizer.tell(t, look(optimizer.ask(t), batch)))
    return [parameter.detach().clone() for parameter in model.parameters()], seen


def test_with_a_large_bound_it_is_mezo_and_else_the_slopes_are_cut():
    (mezo, _), (same, _), (cut, seen) = run(MeZO), run(clipzo(), clip=1e9), run(clipzo(), clip=1.0)
    assert all(torch.equal(a, b) for a, b in zip(mezo, same, strict=True))
    assert not torch.equal(mezo[0], cut[0])
    assert any(told["projected_gradient"] > told["bound"] for told in seen)


def test_the_bound_is_the_bias_corrected_mean_of_the_slopes():
    _, seen = run(clipzo(), clip=3.0, beta=0.5)
    slopes = [told["projected_gradient"] for told in seen]  # n = 1: |p|
    for k in (1, 2, 7):
        weights = [0.5 ** (k - 1 - j) for j in range(k)]
        mean = sum(w * p for w, p in zip(weights, slopes, strict=False)) / sum(weights)
        assert seen[k - 1]["bound"] == pytest.approx(3.0 * mean, rel=1e-12)


@pytest.mark.slow
def test_added_to_the_project_it_passes_the_battery_runs_and_replays(tmp_path):
    copied(tmp_path)
    for name, text in PAGE.items():
        (tmp_path / name).write_text(text)
    said = execute(tmp_path, "-m", "pytest", "-q", "tests/optimizers/test_battery.py", "tests/conf/test_groups.py",
                   "-k", "clipzo")  # fmt: skip
    passed = re.search(r"(\d+) passed", said)
    assert passed and int(passed[1]) > 15 and "failed" not in said
    assert "clipzo on sentiment" in execute(
        tmp_path, "launch.py", "optimizer=clipzo", "optimizer.lr=3e-4", *SHORT
    )
    (result,) = tmp_path.rglob("result.json")
    assert json.loads(result.read_text())["method"] == "clipzo"
    assert "The bits are those of the run." in execute(
        tmp_path, "-m", "experiments", "replay", str(result.parent)
    )


@pytest.mark.slow
def test_in_a_package_of_its_own_it_runs_too(tmp_path):
    project, package = copied(tmp_path / "project"), tmp_path / "elsewhere" / "mypackage"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "clipzo.py").write_text(CODE)
    local = project / "conf" / "local" / "optimizer"
    local.mkdir(parents=True)
    (local / "clipzo.yaml").write_text(YAML.replace("zo.optimizers.clipzo", "mypackage.clipzo"))
    said = execute(project, "launch.py", "optimizer=clipzo", "optimizer.clip=3", *SHORT, path=package.parent)
    assert "clipzo on sentiment" in said
    battery = ("-m", "pytest", "-q", "tests/optimizers/test_battery.py", "-k", "clipzo")
    passed = re.search(r"(\d+) passed", execute(project, *battery, path=package.parent))
    assert passed and int(passed[1]) > 15
