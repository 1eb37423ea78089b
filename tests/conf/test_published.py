"""experiments/papers: names are ours, and the numbers add up to the averages that the papers print."""

import re
from collections import Counter
from statistics import fmean
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from experiments.__main__ import main
from experiments.commands.expected import expected
from experiments.config.compose import CONF, compose, groups
from experiments.config.model_config import ModelConfig
from experiments.config.parsing import read
from experiments.config.run_id import method_of
from experiments.models.source import model_name
from experiments.papers import ANSWERED, FOLDER, POINTS, Published, papers, published
from experiments.papers.unpublished import unpublished
from zo.errors import ConfigError

NUMBERS = published()
ROWS = [
    (f"{path.stem} {table['table']} {table.get('model')} {row['method']}", row)
    for path in sorted(FOLDER.glob("*.yaml"))
    for table in yaml.safe_load(path.read_text())["tables"]
    for row in table["rows"]
]


def option(group: str, name: str) -> dict[str, Any]:
    """A file of conf/, as it stands."""
    content: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    return content


def methods() -> set[str]:
    """Methods as result.json names them."""
    tasks = [{"demonstrations": 0}, {"demonstrations": 32}]
    named = [option("optimizer", name) for name in groups()["optimizer"]]
    return {method_of({"optimizer": optimizer, "task": task}) for optimizer in named for task in tasks}


def test_every_name_is_an_option():
    options = groups()
    assert {number.model for number in NUMBERS} <= set(options["model"])
    assert {number.task for number in NUMBERS} <= set(options["task"])
    assert {number.peft for number in NUMBERS} <= set(options["peft"])
    assert {number.method for number in NUMBERS} <= methods()


def test_the_objective_is_that_of_the_task_but_where_the_paper_trains_on_the_metric():
    tasks = {name: option("task", name) for name in {number.task for number in NUMBERS}}
    assert set(ANSWERED) == {name for name, task in tasks.items() if task["objective"] == "answer"}
    others = {
        (n.paper, n.table, n.objective, n.demonstrations)
        for n in NUMBERS
        if (n.objective, n.demonstrations) != (tasks[n.task]["objective"], 0)
        and n.method not in ("zeroshot", "linearprobe")
    }
    assert others == {
        ("mezo", "3", "metric", 0), ("fzoo", "4", "metric", 0), ("mezo", "1", None, 32), ("mezo", "20", None, 32)
    }  # fmt: skip


def test_what_is_expected_of_a_run_is_of_its_objective_and_its_demonstrations():
    def tables(*overrides: str) -> set[str]:
        composed = compose(("experiment=mezo/opt-13b", "task=squad", *overrides))
        assert composed.config is not None
        return {f"{number.paper} {number.table}" for number in expected(composed.config)}

    assert tables("peft=prefix") == {"mezo 1"}
    assert tables("peft=prefix", "task.objective=metric") == {"mezo 3"}
    assert tables("optimizer=none", "task.demonstrations=32") == {"mezo 1"}
    assert tables("optimizer=none", "task.demonstrations=4") == set()
    assert tables("optimizer=none") == {"mezo 1", "adamezo 13", "fzoo 4"}


def test_a_run_of_the_model_has_the_name_that_the_numbers_have():
    for model in {number.model for number in NUMBERS}:
        assert model_name(read(ModelConfig, option("model", model), "model")) == model


def test_a_cell_of_a_table_is_there_once_and_a_percentage():
    cells = Counter((n.paper, n.table, n.model, n.task, n.method, n.peft, n.k, n.settings) for n in NUMBERS)
    assert cells.most_common(1)[0][1] == 1
    assert all(0 <= number.value <= 100 for number in NUMBERS)


def test_values_add_up_to_the_printed_averages():
    """The papers round or cut the mean to one digit; rows that disagree by more say so."""
    wrong = {}
    for where, row in ROWS:
        if "average" in row and abs(fmean(row["values"]) - row["average"]) > 0.1:
            said = f"the row's mean is {fmean(row['values']):.1f}, printed {row['average']}"
            wrong[where] = said in row.get("note", "")
    assert wrong == dict.fromkeys(
        [
            "fzoo 1 roberta-large zoadam",
            "fzoo 1 roberta-large adamw",
            "fzoo 2 phi-2 mezo",
            "fzoo 3 opt-30b hizool",
        ],
        True,
    )


def test_a_paper_is_chosen_by_name_and_an_unknown_one_refused():
    assert {number.paper for number in published("fzoo")} == {"fzoo"}
    assert len(NUMBERS) == sum(len(published(paper)) for paper in papers())
    with pytest.raises(ConfigError, match=r"Papers: adamezo, fzoo, hizoo, mezo\."):
        published("fzo")


def test_the_tolerance_is_two_deviations_or_two_points():
    snli = next(
        n for n in published("mezo") if (n.table, n.task, n.method, n.k) == ("18", "snli", "mezo", 16)
    )
    assert snli == Published(
        "mezo", "18", "roberta-large", "snli", "mezo", "none", 16, 68.5, 3.9, objective="options"
    )
    assert snli.tolerance == 2 * 3.9
    assert {number.tolerance for number in published("fzoo")} == {POINTS}


def test_adamezos_printed_deviations_are_there():
    """24 of its 32 rows of accuracies have some (its Table 9 repeats two of Table 3's)."""
    rows = [row for where, row in ROWS if where.startswith("adamezo ") and not where.startswith("adamezo 9")]
    assert (len(rows), sum("deviations" in row for row in rows)) == (32, 24)
    without = [row["method"] for row in rows if "deviations" not in row]
    assert without.count("zeroshot") == 6 and without.count("adamw") == 2
    (hizoo,) = (row for where, row in ROWS if where == "adamezo 13 opt-13b hizoo")
    assert [value is None for value in hizoo["values"]] == [each is None for each in hizoo["deviations"]]


def test_a_verdict_beside_adamezo_is_by_its_deviations():
    """The three examples of the review: two deviations of SST-2, WSC and RTE, which were 2.0 each."""
    of = {
        (n.method, n.task): (n.value, n.tolerance)
        for n in published("adamezo")
        if (n.table, n.model) == ("3", "opt-1.3b")
    }
    assert of["adamezo", "sst2"] == (91.6, pytest.approx(0.6))
    assert of["adamezo", "wsc"] == (53.5, pytest.approx(15.6))
    assert of["adamw", "rte"] == (64.0, pytest.approx(21.4))
    assert of["zeroshot", "rte"] == (53.4, POINTS)


def test_adamezos_betas_are_judged_by_the_runs_that_have_them_and_two_rows_are_the_same():
    def table9(*overrides: str) -> list[tuple[float, float | None]]:
        composed = compose(("experiment=adamezo/opt-1.3b", "task=copa", *overrides))
        assert composed.config is not None
        return [(n.value, n.deviation) for n in expected(composed.config) if n.table == "9"]

    assert table9() == [(75.5, 4.0)]
    assert table9("optimizer.betas=[0.8,0.9]") == [(74.3, 2.9)]
    assert table9("optimizer=mezo") == [(74.5, 3.6)]
    assert table9("optimizer.betas=[0.5,0.9]") == []
    rows = {n.settings: [] for n in published("adamezo") if n.table == "9" and n.settings}
    for n in published("adamezo"):
        if n.settings:
            rows[n.settings].append((n.task, n.value, n.deviation))
    twice, zero = (rows[(("optimizer.betas", betas),)] for betas in ((0.7, 0.99), (0.7, 0.0)))
    assert twice == zero
    alike = [n for n in published("adamezo") if "equal in every digit in the paper" in n.note]
    assert len(alike) == 6


def test_fzoos_table_14_is_in_per_cent_by_directions_rate_and_eps():
    cells = {n.settings: n.value for n in published("fzoo") if n.table == "14"}
    assert len(cells) == 35
    best = (("optimizer.lr", 2e-4), ("optimizer.eps", 5e-5), ("optimizer.n", 16))
    assert max(cells.values()) == cells[best] == 85.67


def test_expected_shows_deviations_and_says_where_there_are_none(capsys):
    assert main(["expected", "experiment=adamezo/opt-1.3b", "optimizer=none,adamezo", "task=wsc"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"adamezo .* 53\.5 .* 7\.8 .* 15\.6", printed)
    assert re.search(r"zeroshot .* 43\.2 .* – .* 2\.0", printed)
    assert "two published deviations, or, where the paper prints none (–), 2 points" in printed


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (("experiment=adamezo/opt-1.3b", "peft=prefix"), "optimizer.lr or optimizer.eps"),
        (("experiment=hizoo/opt-13b", "peft=prefix"), "optimizer.lr or optimizer.eps"),
        (("experiment=fzoo/opt-350m",), "optimizer.lr or optimizer.eps"),
        (("experiment=fzoo/phi-2", "optimizer=hizool"), "optimizer.lr, optimizer.eps or optimizer.alpha"),
        (("experiment=adamezo/opt-1.3b",), None),
        (("experiment=fzoo/opt-13b", "task=wsc"), None),
        (("optimizer=adamezo",), None),
    ],
)
def test_expected_says_which_values_of_a_preset_no_paper_prints(overrides, keys, capsys):
    composed = compose(overrides)
    assert composed.config is not None and composed.problems == []
    sentence = unpublished(composed.config)
    assert (sentence is None) == (keys is None)
    assert main(["expected", *overrides]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    if sentence is None:
        assert "this project's choice" not in printed
    else:
        assert f"no paper prints {keys} for it" in sentence and sentence in printed
