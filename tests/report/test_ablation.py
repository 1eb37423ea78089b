"""report --by: rows and curves per value of a swept key, tasks as columns, and a grid of two keys."""

import csv
from statistics import fmean, stdev

import pytest

from experiments.__main__ import main
from experiments.report.colours import STYLES, styles
from experiments.report.comparison import comparison
from experiments.report.filters import select_runs
from experiments.report.runs import read_runs
from experiments.report.tables.builders import results, tables
from tests.report.made import dev_rows, run
from zo.errors import ConfigError

BETAS = {(0.7, 0.9): (0.916, 0.755), (0.6, 0.9): (0.911, 0.758), (0.0, 0.0): (0.909, 0.745)}


@pytest.fixture
def betas(tmp_path):
    """AdaMeZO's Table 9: three betas on two tasks with three seeds, and two rates of which dev chooses; MeZO beside."""
    for pair, means in BETAS.items():
        for task, mean in zip(("sst2", "copa"), means, strict=True):
            for seed in range(3):
                value = mean + 0.01 * (seed - 1)
                rows = dev_rows(0.5, value, losses=(0.7, 1 - value))
                good = {"optimizer__betas": list(pair), "task__name": task, "rows": rows}
                run(tmp_path, "AdaMeZO", seed, after=value, dev=value, **good)
                run(tmp_path, "AdaMeZO", seed, after=0.99, dev=0.1, optimizer__lr=1e-6, **good)
    run(tmp_path, "MeZO", 0, after=0.8, dev=0.8, task__name="sst2", rows=dev_rows(0.8))
    return tmp_path


def test_a_row_is_a_value_and_a_column_a_task_with_deviations_over_seeds(betas):
    made = comparison(read_runs([betas]), by=["optimizer.betas"])
    table = results(made)
    assert table.head == ("method", "copa", "sst2") and table.title.endswith("by optimizer.betas")
    assert {row[0].text: [entry.text for entry in row[1:]] for row in table.rows} == {
        "adamezo, betas [0.0, 0.0]": ["74.5 ± 1.0 (3)", "90.9 ± 1.0 (3)"],
        "adamezo, betas [0.6, 0.9]": ["75.8 ± 1.0 (3)", "91.1 ± 1.0 (3)"],
        "adamezo, betas [0.7, 0.9]": ["75.5 ± 1.0 (3)", "91.6 ± 1.0 (3)"],
        "mezo": ["–", "80.0 (1)"],
    }
    (dev,) = [table for table in tables(made) if table.name == "by-dev"]
    row = next(row for row in dev.rows if row[0].text == "adamezo, betas [0.7, 0.9]")
    assert row[2].text == "91.6 ± 1.0; loss 0.084 ± 0.01 (3)"
    # Without the key there is one row for the method, of the betas that dev chose.
    assert [row[0].text for row in results(comparison(made.runs)).rows] == ["adamezo", "mezo"]


def test_each_value_has_a_curve_and_a_style_of_its_own(betas):
    made = comparison(read_runs([betas]), by=["optimizer.betas"])
    names = {c.method for c in made.curves if c.quantity == "dev loss" and c.task == "sst2"}
    assert names == set(made.methods) and len(made.methods) == 4
    looks = styles(made.methods)
    assert len({(look.light, look.marker, look.dash) for look in looks.values()}) == 4
    assert looks["mezo"] == STYLES["mezo"]


def test_values_are_in_the_order_of_their_size(tmp_path):
    for horizon in (100, 20, 5, 1):
        run(tmp_path, "AdaMeZO", optimizer__horizon=horizon)
    made = comparison(read_runs([tmp_path]), by=["optimizer.horizon"])
    assert made.methods == tuple(f"adamezo, horizon {horizon}" for horizon in (1, 5, 20, 100))


def test_two_keys_make_a_grid_with_averages(tmp_path):
    """FZOO's Table 14: n in rows, lr in columns."""
    values = {(n, lr): 0.5 + 0.01 * n + lr for n in (2, 8) for lr in (1e-5, 1e-4, 1e-3)}
    for (n, lr), mean in values.items():
        for seed, off in enumerate((-0.01, 0.01)):
            run(tmp_path, "FZOO", seed, after=mean + off, optimizer__n=n, optimizer__lr=lr)
    made = comparison(read_runs([tmp_path]), by=["optimizer.n", "optimizer.lr"])
    (grid,) = [table for table in tables(made) if table.name == "by-1"]
    assert grid.head == ("optimizer.n", "lr 1e-05", "lr 0.0001", "lr 0.001", "average")
    assert [row[0].text for row in grid.rows] == ["n 2", "n 8"]
    # Deviation of −1 and +1 point: √2.
    assert grid.rows[1][3].text == f"{100 * values[8, 1e-3]:.1f} ± 1.4 (2)" and stdev(
        (-1, 1)
    ) == pytest.approx(2**0.5)
    assert grid.rows[0][4].text == f"{100 * fmean(v for (n, _), v in values.items() if n == 2):.1f}"
    assert [entry.bold for entry in grid.rows[1][1:4]] == [False, False, True]


def test_a_key_of_the_examples_is_a_row_and_no_column_of_its_own(tmp_path):
    for k in (16, 512):
        run(tmp_path, "MeZO", task__k=k)
    made = comparison(read_runs([tmp_path]), by=["task.k"])
    assert [column[2] for column in made.columns] == ["t"] and made.methods == ("mezo, k 16", "mezo, k 512")


def test_the_command_writes_every_format(betas, tmp_path_factory, capsys, monkeypatch):
    out = tmp_path_factory.mktemp("out")
    assert main(["report", str(betas), "--by", "optimizer.betas", "--out", str(out)]) == 0
    with (out / "tables" / "cells.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["optimizer.betas"] for row in rows} == {"", "[0.0, 0.0]", "[0.6, 0.9]", "[0.7, 0.9]"}
    for name in ("by.md", "by.tex"):
        assert "betas" in (out / "tables" / name).read_text(encoding="utf-8")
    assert (out / "figures" / "dev-loss.png").is_file()
    assert "adamezo, betas [0.6, 0.9]" in (out / "index.html").read_text(encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    assert main(["report", str(betas), "--by", "optimizer.betas"]) == 0
    assert "On dev, metric in per cent and loss, by optimizer.betas" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["optimizer.beta"], "Did you mean optimizer.betas?"),
        (["seed"], "the deviations are over seeds"),
        (["peft.name"], "columns already"),
        (["batch.size"], "all runs have 8; keys with several values are"),
        (["optimizer.lr", "optimizer.betas", "batch.size"], "give one key, or two different ones"),
        (["optimizer.lr", "optimizer.lr"], "give one key, or two different ones"),
    ],
)
def test_a_key_that_makes_no_rows_is_refused(betas, keys, said):
    with pytest.raises(ConfigError) as error:
        comparison(select_runs(read_runs([betas]), ["method=adamezo"]), by=keys)
    assert said in str(error.value)


def test_published_numbers_are_not_judged_by_a_value_of_a_key(betas, capsys):
    assert main(["report", str(betas), "--by", "optimizer.betas", "--beside", "adamezo"]) == 2
    assert "one of the two at a time" in " ".join(capsys.readouterr().err.split())
