"""The examples of docs/trainer.md run as they stand, in their order, each where its packages are installed."""

import importlib.util
import re
import shutil
from functools import cache

import pytest
import torch

from .pages import ROOT, blocks

PAGE = (ROOT / "docs" / "trainer.md").read_text(encoding="utf-8")
CODE = [block.text for block in blocks(PAGE) if block.language == "python"]
TRAINER, RESUMED, SFT, LIGHTNING, LOOP, TRAIN = CODE


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that has the shipped model where a checkout has it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "experiments" / "world").mkdir(parents=True)
    shutil.copytree(ROOT / "experiments/world/tiny-clm", folder / "experiments/world/tiny-clm")
    return folder


@cache
def names() -> dict:
    """What the examples have defined so far."""
    return {}


def run(code, place, monkeypatch):
    monkeypatch.chdir(place)
    exec(compile(code, "docs/trainer.md", "exec"), names())


def needs(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install {package}")


def test_the_trainer_trains_resumes_and_writes_a_card(place, monkeypatch):
    run(TRAINER, place, monkeypatch)
    run(RESUMED, place, monkeypatch)
    card = (place / "out/trainer/README.md").read_text(encoding="utf-8")
    assert "Trained by FZOO of zo" in card and "8 steps of 9 forward passes, 72 in all" in card
    assert (place / "out/trainer/model/model.safetensors").exists()


def test_trl(place, monkeypatch):
    needs("trl")
    if "MODEL" not in names():
        run(TRAINER, place, monkeypatch)
    run(SFT, place, monkeypatch)
    assert names()["supervised"].state.global_step == 4


def test_lightning_takes_the_steps_of_a_plain_loop_and_resumes(place, monkeypatch):
    """12 steps in one go, and 8 with the rest from Lightning's checkpoint; then the page's two loops."""
    needs("lightning")
    names().setdefault("zo", __import__("zo"))
    run(LIGHTNING, place, monkeypatch)
    whole = names()["module"]
    torch.manual_seed(0)
    half = names()["Tuned"]()
    names()["fit"](half, epochs=2)
    (checkpoint,) = place.rglob("epoch=1-step=8*.ckpt")
    rest = names()["Tuned"]()
    names()["fit"](rest, epochs=3, checkpoint=str(checkpoint))
    assert rest.global_step == 12
    assert rest.zo.weights.sha256() == whole.zo.weights.sha256()
    run(LOOP, place, monkeypatch)
    run(TRAIN, place, monkeypatch)


def test_the_loops_are_one(place, monkeypatch):
    """Without Lightning, whose part of the page only gives them a network and data."""
    plain = re.sub(r"Tuned\(\)\.model", "network()", LOOP + "\n\n" + TRAIN)
    plain = re.sub(r"assert optimizer.*module.*", "ended.append(optimizer.weights.sha256())", plain)
    mine = {"zo": __import__("zo"), "torch": torch, "ended": []}
    mine["network"] = lambda: torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8)
    )
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    mine["loader"] = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, inputs.roll(1, dims=1)), batch_size=16
    )
    mine["losses"] = lambda model, batch: (model(batch[0]) - batch[1]).square().mean(dim=1)
    monkeypatch.chdir(place)
    (place / "out").mkdir(exist_ok=True)
    (place / "out" / "journal").unlink(missing_ok=True)
    exec(compile(plain, "docs/trainer.md", "exec"), mine)
    assert len(mine["ended"]) == 2 and len(set(mine["ended"])) == 1
