"""experiments/papers: names are ours, and the numbers add up to the averages that the papers print."""

from collections import Counter
from statistics import fmean
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from experiments.commands.expected import expected
from experiments.config.compose import CONF, compose, groups
from experiments.config.model_config import ModelConfig
from experiments.config.parsing import read
from experiments.config.run_id import method_of
from experiments.models.source import model_name
from experiments.papers import ANSWERED, FOLDER, POINTS, Published, papers, published
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
    cells = Counter((n.paper, n.table, n.model, n.task, n.method, n.peft, n.k) for n in NUMBERS)
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
