"""report --passes-to: the first evaluation past a target, censored runs by name, ratios within evaluations' spacing."""

import csv
import math
from statistics import fmean, stdev
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.report.comparison import comparison
from experiments.report.passes import Ratio, parse_target
from experiments.report.runs import read_runs
from experiments.report.tables.builders import costs, passes
from tests.report.made import dev_rows, run
from zo.errors import ConfigError

T1 = math.tan(0.475 * math.pi)  # of t with one degree of freedom, at 0.975


def ratio_of(made: Any, method: str, task: str = "t") -> Ratio:
    (found,) = [each for each in made.ratios if (each.method, each.task) == (method, task)]
    return found


def test_over_one_seed_the_interval_is_the_spacing_of_the_evaluations(tmp_path):
    run(tmp_path, "MeZO", rows=dev_rows(*[0.5] * 17, 0.9, 0.9, every=100))  # within (1700, 1800]
    run(tmp_path, "FZOO", rows=dev_rows(0.5, 0.9, every=90))  # within (90, 180]
    made = comparison(read_runs([tmp_path]), target=0.9)
    found = ratio_of(made, "fzoo")
    assert (made.reference, found.reference) == ("mezo", "mezo") and found.ratio == pytest.approx(1800 / 180)
    assert (found.low, found.high) == (pytest.approx(1700 / 180), pytest.approx(1800 / 90))
    assert (found.spacing_low, found.spacing_high) == (pytest.approx(found.low), pytest.approx(found.high))
    assert found.text == "10 [9.44, 20]"


def test_over_seeds_it_is_t_of_the_logarithms_beyond_the_spacing(tmp_path):
    for seed, (a, b) in enumerate([(9, 3), (12, 2)]):  # evaluations until the target
        run(tmp_path, "MeZO", seed, rows=dev_rows(*[0.5] * (a - 1), 0.9, every=100))
        run(tmp_path, "FZOO", seed, rows=dev_rows(*[0.5] * (b - 1), 0.9, every=100))
    found = ratio_of(comparison(read_runs([tmp_path]), target=0.9), "fzoo")
    assert found.ratio == pytest.approx(math.sqrt(9 / 3 * 12 / 2))
    least, most = [math.log(8 / 3), math.log(11 / 2)], [math.log(9 / 2), math.log(12 / 1)]
    assert math.log(found.low) == pytest.approx(fmean(least) - T1 * stdev(least) / math.sqrt(2))
    assert math.log(found.high) == pytest.approx(fmean(most) + T1 * stdev(most) / math.sqrt(2))
    assert found.spacing_low == pytest.approx(math.sqrt(8 / 3 * 11 / 2)) and found.seeds == (0, 1)


def test_a_reference_that_never_gets_there_leaves_the_upper_end_open(tmp_path):
    run(tmp_path, "MeZO", rows=dev_rows(*[0.5] * 18, every=100))
    run(tmp_path, "FZOO", rows=dev_rows(0.5, 0.9, every=50))
    run(tmp_path, "LOZO", rows=dev_rows(0.5, 0.6, every=50))
    made = comparison(read_runs([tmp_path]), target=0.9)
    assert ratio_of(made, "fzoo").ratio is None and ratio_of(made, "fzoo").text == "> 18"
    assert ratio_of(made, "lozo").text == "–"  # neither of the two got there
    table = passes(made)
    rows = {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}
    assert rows == {
        "fzoo": ["100", "1 of 1", "–", "> 18"],
        "lozo": ["–", "0 of 1", "seed 0 (100)", "–"],
        "mezo": ["–", "0 of 1", "seed 0 (1,800)", "1"],
    }
    back = comparison(made.runs, target=0.9, reference="fzoo")
    assert ratio_of(back, "mezo").text == "< 0.0556"


def test_one_censored_seed_of_two_is_named_and_leaves_the_end_open(tmp_path):
    run(tmp_path, "MeZO", 0, rows=dev_rows(*[0.5] * 7, 0.9, every=100))
    run(tmp_path, "MeZO", 3, rows=dev_rows(*[0.5] * 9, every=100))
    for seed in (0, 3):
        run(tmp_path, "FZOO", seed, rows=dev_rows(0.5, 0.9, every=50))
    made = comparison(read_runs([tmp_path]), target=0.9)
    found = ratio_of(made, "fzoo")
    least = [math.log(700 / 100), math.log(900 / 100)]
    assert found.ratio is None and math.isinf(found.high)
    assert math.log(found.low) == pytest.approx(fmean(least) - T1 * stdev(least) / math.sqrt(2))
    (row,) = [row for row in passes(made).rows if row[0].text == "mezo"]
    assert [entry.text for entry in row[1:4]] == ["800", "1 of 2", "seed 3 (900)"]


def test_a_first_evaluation_past_the_target_may_have_come_at_any_time_before(tmp_path):
    run(tmp_path, "MeZO", rows=dev_rows(0.5, 0.9, every=100))
    run(tmp_path, "FZOO", rows=dev_rows(0.9, every=50))
    found = ratio_of(comparison(read_runs([tmp_path]), target=0.9), "fzoo")
    assert found.ratio == pytest.approx(4) and math.isinf(found.high) and found.text == "4 (> 2)"
    run(tmp_path / "both", "MeZO", rows=dev_rows(0.9, every=100))
    run(tmp_path / "both", "FZOO", rows=dev_rows(0.9, every=50))
    assert ratio_of(comparison(read_runs([tmp_path / "both"]), target=0.9), "fzoo").text == "2 (no bound)"


def test_a_loss_is_reached_from_above(tmp_path):
    run(tmp_path, "MeZO", rows=dev_rows(0.9, 0.9, 0.9, 0.9, every=100, losses=(0.9, 0.8, 0.6, 0.5)))
    run(tmp_path, "FZOO", rows=dev_rows(0.5, 0.5, every=100, losses=(0.7, 0.4)))
    made = comparison(read_runs([tmp_path]), target=0.5, target_by="loss")
    found = ratio_of(made, "fzoo")
    assert found.ratio == pytest.approx(2) and (found.low, found.high) == (
        pytest.approx(1.5),
        pytest.approx(4),
    )
    assert (
        passes(made).title == "Forward passes to loss 0.5 on dev" and "to loss 0.5 on dev" in costs(made).head
    )


def test_over_several_tasks_there_is_a_geometric_mean_of_the_ratios(tmp_path):
    for task, a in (("t", 9), ("u", 4)):
        run(tmp_path, "MeZO", task__name=task, rows=dev_rows(*[0.5] * (a - 1), 0.9, every=100))
        run(tmp_path, "FZOO", task__name=task, rows=dev_rows(0.5, 0.9, every=50))
    made = comparison(read_runs([tmp_path]), target=0.9)
    (mean,) = [each for each in made.ratios if each.columns == 2]
    assert mean.ratio == pytest.approx(math.sqrt(9 * 4)) and mean.low == pytest.approx(math.sqrt(8 * 3))
    assert passes(made).rows[-1][1].text == "2 columns, geometric mean"


def test_the_command_writes_every_format(tmp_path, capsys, monkeypatch):
    run(tmp_path / "runs", "MeZO", rows=dev_rows(*[0.5] * 18, every=100))
    run(tmp_path / "runs", "FZOO", rows=dev_rows(0.5, 0.9, every=50))
    monkeypatch.setenv("COLUMNS", "200")
    asked = ["report", str(tmp_path / "runs"), "--passes-to"]
    assert main([*asked, "0.9", "--reference", "mezo"]) == 0
    printed = capsys.readouterr().out
    assert "Forward passes to 90 % on dev" in printed and "> 18" in printed and "seed 0 (1,800)" in printed
    assert main([*asked, "loss=0.2", "--out", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out" / "tables"
    for name in ("passes.md", "passes.tex", "costs.md"):
        assert "loss 0.2 on dev" in (folder / name).read_text(encoding="utf-8")
    with (folder / "passes.csv").open(encoding="utf-8") as file:
        (fzoo, mezo) = list(csv.DictReader(file))
    assert (fzoo["forward_passes"], fzoo["short_of"], fzoo["censored"]) == ("100", "50", "False")
    assert (mezo["forward_passes"], mezo["short_of"], mezo["censored"]) == ("", "1800", "True")
    with (folder / "ratios.csv").open(encoding="utf-8") as file:
        (row,) = list(csv.DictReader(file))
    assert (row["ratio"], row["high"]) == ("", "") and float(row["low"]) == pytest.approx(18)
    assert "times fewer than mezo" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["0", "1.5", "80", "nan", "loss=", "loss=x", "f1=0.5", "loss=inf"])
def test_a_target_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--passes-to"):
        parse_target(text)


def test_a_reference_that_is_no_method_is_refused(tmp_path, capsys):
    run(tmp_path, "FZOO", rows=dev_rows(0.9))
    assert main(["report", str(tmp_path), "--passes-to", "0.5", "--reference", "mezo"]) == 2
    assert "No run uses this method. Methods are fzoo." in " ".join(capsys.readouterr().err.split())
    assert main(["report", str(tmp_path), "--reference", "fzoo"]) == 2
