"""docs/own-task.md: its examples, run as they stand there on a few rows."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.commands.launch import main
from experiments.config.compose import CONF

from ..models.tiny import load_task

PAGE = (Path(__file__).parents[2] / "docs" / "own-task.md").read_text()
TASKS: dict[str, str] = {
    yaml.safe_load(text)["name"]: text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "tickets": [
        {"body": f" message {n} ", "queue": ("shipping", "billing", "technical")[n % 3]} for n in range(30)
    ],
    "quiz": [
        {
            "question": f"What {n}?",
            "choices": ["wood", "sand", "coal"][: 2 + n % 2],
            "right": [["wood"], 1][n % 2],
        }
        for n in range(30)
    ],
    "faq": [
        {"page": f"We open {n}.", "question": "When?", "answers": [f"at {n}", str(n)]} for n in range(30)
    ],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a copy of conf/ that has the page's tasks, and their data."""
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    for name, rows in ROWS.items():
        (tmp_path / "conf" / "task" / f"{name}.yaml").write_text(TASKS[name])
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("experiments.config.compose.CONF", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_the_examples_that_are_run():
    assert set(TASKS) == set(ROWS)


@pytest.mark.parametrize("name", list(ROWS))
def test_a_task_of_ones_own_runs(here, name):
    assert main([f"task={name}", "budget.steps=2", "batch.size=4", "save=false", "threads=1"]) == 0
    (result,) = here.rglob("result.json")
    assert json.loads(result.read_text())["n_test"] == 30


def test_its_prompts(here, clm):
    def texts(name):
        task = load_task(yaml.safe_load(TASKS[name]), clm)
        example = next(e for e in task.test if e.index == 1)
        return [clm.tokenizer.decode(row.ids) for row in example.rows], example.golds

    assert texts("tickets") == (
        [f"<s>message 1\nThis is about {word}" for word in ("delivery", "payment", "technology")],
        (1,),
    )
    assert texts("quiz") == ([f"<s>What 1?\nAnswer: {word}" for word in ("wood", "sand", "coal")], (1,))
    assert texts("faq") == (["<s>We open 1.\nQuestion: When?\nAnswer: at 1\n"], ())


def test_keys_that_the_short_file_leaves_out_can_be_set(here, capsys):
    assert (
        main(
            [
                "task=tickets",
                "task.k=3",
                "task.demonstrations=1",
                "task.calibrate=sfc",
                "budget.steps=1",
                "save=false",
            ]
        )
        == 0
    )
    assert main(["task=tickets", "task.k=6", "budget.steps=1"]) == 2
    assert "task.k=6 takes 6 examples of each option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task.templates.causal.prompt='{text} is'"], "{text}"),
        (
            ["task.labels=[shipping,billing,other]"],
            "label 'technical'; task.labels has 'shipping', 'billing', 'other'",
        ),
        (["task.source.test=held_out"], "no held_out.jsonl"),
        (["task.demonstrations=29"], "task.demonstrations=29, but train has"),
        (["task.options=[delivery,payment,'']"], "number 2 is empty"),
        (
            ["task.options=[true,payment,technology]"],
            "YAML reads yes and no without quotes as true and false",
        ),
        (["task.k=99"], "of delivery 10, payment 10, technology 10"),
    ],
)
def test_what_does_not_fit_is_named_with_exit_code_2(here, capsys, overrides, said):
    assert main(["task=tickets", *overrides]) == 2
    assert said in capsys.readouterr().err


def test_rows_without_choices_are_named_with_exit_code_2(here, capsys):
    lines = [
        json.dumps({**row, "choices": row["choices"] if n else []}) for n, row in enumerate(ROWS["quiz"])
    ]
    (here / "data" / "quiz" / "train.jsonl").write_text("\n".join(lines))
    assert main(["task=quiz"]) == 2
    assert "train.jsonl:1: choices is empty" in capsys.readouterr().err
