"""AdaMeZO's tables of memory, passes and time: published numbers beside our own, as files."""

import csv

import pytest
import torch

pytest.importorskip("transformers")

from benchmarks import cases, cost_tables
from benchmarks.cases import Case
from benchmarks.noise_alone import NoiseAlone
from zo.look import ModuleLook
from zo.optimizers import MeZO
from zo.weights import Weights

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "ffn_dim": 64,
        "num_attention_heads": 4,
        "vocab_size": 96,
    }
    monkeypatch.setitem(cases.SIZES, "10m", size)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.slow
def test_table_1_counts_copies_of_the_weights_and_passes(tmp_path, capsys):
    assert cost_tables.main(["adamezo-1", "--model", "tiny-clm", "--out", str(tmp_path)]) == 0
    assert "(1 + δ)P" in capsys.readouterr().out
    rows = {row["method"]: row for row in rows_of(tmp_path / "adamezo-1.csv")}
    assert {name: int(row["forward passes"]) for name, row in rows.items()} == {
        name: passes for name, (_, passes) in cost_tables.TABLE_1.items()
    }
    memory = {name: float(row["weights and state / P"]) for name, row in rows.items()}
    # The weights are fp32 here, as every state is, so that copies are whole but for AdaMeZO's slopes.
    assert memory == pytest.approx({"adamw": 3, "mezo": 1, "helene": 3, "hizoo": 2, "adamezo": 1}, rel=1e-3)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".tex", ".csv"}


@pytest.mark.slow
def test_table_4_has_the_ratio_to_mezo_beside_the_published_one(tmp_path, capsys):
    assert (
        cost_tables.main(["adamezo-4", "--model", "tiny-clm", "--length", "32", "--out", str(tmp_path)]) == 0
    )
    assert "4.40 / " in capsys.readouterr().out
    rows = rows_of(tmp_path / "adamezo-4.csv")
    assert len(rows) == 12
    mezo = {row["task"]: float(row["peak"]) for row in rows if row["method"] == "mezo"}
    for method in cost_tables.TABLE_4:
        mine = [row for row in rows if row["method"] == method]
        mean = sum(float(row["peak"]) / mezo[row["task"]] for row in mine) / 3
        assert [float(row["ratio"]) for row in mine] == pytest.approx([mean] * 3)
    ratios = {row["method"]: float(row["ratio"]) for row in rows}
    assert ratios["mezo"] == 1.0 <= ratios["adamezo"] < ratios["hizoo"] < ratios["adamw"]


@pytest.mark.slow
def test_table_7_times_each_method_and_mezo_with_the_noise_alone(small, tmp_path, capsys):
    words = ["adamezo-7", "--size", "10m", "--dtype", "float32", "--tokens", "2x8", "--rounds", "1"]
    assert cost_tables.main([*words, "--out", str(tmp_path)]) == 0
    assert "MeZO that makes the directions of 10 steps and uses one" in " ".join(
        capsys.readouterr().out.split()
    )
    rows = rows_of(tmp_path / "adamezo-7.csv")
    assert [row["method"] for row in rows[::3]] == ["mezo", "hizoo", "mezo + a.", "adamezo", "adamw"]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert {row["published"] for row in rows if row["method"] == "mezo + a."} == {"0.23", "0.24"}


def test_the_noise_alone_moves_nothing_and_is_made_for_the_whole_window(small, monkeypatch):
    """The same weights as MeZO's, bit for bit; at step t the directions of steps t − H + 1 to t − 1 again."""
    case = Case("mezo", "gaussian", "10m", "2x8", "float32")
    inputs = cases.batch(case, CPU)
    networks = [cases.model(case, CPU) for _ in range(2)]
    weights = [Weights(network) for network in networks]
    methods = [MeZO(weights[0], lr=1e-3), NoiseAlone(weights[1], remembered=3, lr=1e-3)]
    drawn = []
    direction = Weights.direction

    def seen(self, name, key, directions):
        drawn.append((name, key.step))
        return direction(self, name, key, directions)

    monkeypatch.setattr(Weights, "direction", seen)
    for network, method in zip(networks, methods, strict=True):
        look = ModuleLook(network, cases.objective, method)
        for t in range(5):
            method.tell(t, method.step(t, inputs, look))
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)
    per_tensor = [0, 0, 1, 1, 2, 2, 3]  # steps 1, 2, 3 and 4
    names = list(weights[1].tensors)
    assert sorted(step for _, step in drawn) == sorted(step for step in per_tensor for _ in names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["adamezo-7", "--device", "cuda"], "no GPU was found"),
        (["adamezo-7", "--rounds", "0"], "at least 1"),
        (["adamezo-4", "--model", "opt-1.4b"], "opt-1.3b"),
    ],
)
def test_wrong_input_is_a_sentence(words, message, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cost_tables.main(words) == 2
    assert message in capsys.readouterr().err
