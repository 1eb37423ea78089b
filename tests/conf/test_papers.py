"""docs/papers.md: every command composes, every name is an option."""

import re
import shlex
from pathlib import Path

import pytest

from experiments.config.compose import compose, groups

CONF = Path(__file__).parents[2] / "conf"
PAGE = (Path(__file__).parents[2] / "docs" / "papers.md").read_text()
COMMANDS = re.findall(r"`python launch\.py (.*?)`", PAGE)
ROWS = PAGE.split("## Which table")[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cell_composes(command):
    assert compose(shlex.split(command)).problems == []


def test_there_is_a_command_for_every_table():
    tables = {"FZOO": (1, 2, 3, 4, 5, 11), "MeZO": (1, 18, 20, 22, 23), "AdaMeZO": (2, 3, 5, 6, 12, 13)}
    assert all(f"| {paper} {number}" in PAGE for paper, numbers in tables.items() for number in numbers)


@pytest.mark.parametrize("group", ["task", "model", "optimizer", "peft"])
def test_names_are_options(group):
    """Each line of the table names a first option with its group, and more without it."""
    named = set()
    for line in ROWS.splitlines():
        if found := re.search(rf"`{group}=([\w.-]+)`((?: `[\w.-]+`)*)", line):
            named |= {found[1], *re.findall(r"`([\w.-]+)`", found[2])}
        named |= set(re.findall(rf"`(?:[^`]* )?{group}=([\w.-]+)", line))
    assert named and named <= set(groups()[group])


PRESETS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix(""))
    for path in (CONF / "experiment").glob("*/*.yaml")
)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_models_inputs_and_numbers_are_the_authors(preset):
    """OPT's rows begin with <s> in MeZO and its forks, whose RoBERTa has an output matrix of its own."""
    config = compose((f"experiment={preset}",)).config
    assert config is not None
    model = config["model"]
    assert model["first_token"] == ("<s>" if "/opt-" in preset else None)
    assert model["untie"] == preset.endswith("/roberta-large")
    drawn = "run" if preset.endswith("/roberta-large") else "example"
    assert config["task"]["demonstrations_per"] == drawn
