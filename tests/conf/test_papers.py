"""docs/papers.md: every command composes, every name is an option."""

import re
import shlex
from pathlib import Path

import pytest

from experiments.config.compose import compose, groups
from experiments.launching.sweep_file import FOLDER as SWEEPS

CONF = Path(__file__).parents[2] / "conf"
PAGE = (Path(__file__).parents[2] / "docs" / "papers.md").read_text()
COMMANDS = re.findall(r"`python launch\.py (.*?)`", PAGE)
# Tables, and numbered figures (FZOO's are named by what they show).
PAPERS: dict[str, tuple[range | tuple[int, ...], range]] = {
    "FZOO": (range(1, 15), range(0)),
    "MeZO": ((1, 6, 18, 20, 22, 23), range(0)),
    "AdaMeZO": (range(1, 16), range(1, 6)),
}
ROWS = PAGE.split("## Which table")[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cell_composes(command):
    assert compose(shlex.split(command)).problems == []


def test_there_is_a_command_for_every_table():
    """All 14 tables of FZOO and all 15 of AdaMeZO with its five figures; those that were not at hand say so."""
    first = [
        line.split(" | ")[0]
        for line in PAGE.splitlines()
        if line.startswith(("| FZOO", "| MeZO ", "| AdaMeZO"))
    ]
    named = {paper: " ".join(cell for cell in first if cell.startswith(f"| {paper}")) for paper in PAPERS}
    for paper, (tables, figures) in PAPERS.items():
        text = re.sub(r"\([^)]*\)", "", named[paper])
        assert set(tables) <= {int(n) for n in re.findall(r"\b\d+\b", text)}, paper
        assert all(re.search(rf"Figures? (\d and )?{n}", named[paper]) for n in figures), paper
    rows = [line for line in PAGE.splitlines() if line.startswith(("| FZOO", "| MeZO ", "| AdaMeZO"))]
    without = [row for row in rows if not re.search(r"python|sweeps/papers|at hand|no numbers|as Table", row)]
    assert without == []


def test_every_sweep_of_a_paper_is_named():
    files = {f"sweeps/papers/{path.name}" for path in (SWEEPS / "papers").glob("*.yaml")}
    assert files == set(re.findall(r"sweeps/papers/[\w-]+\.yaml", PAGE))


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
    model = config.model
    assert model.first_token == ("<s>" if "/opt-" in preset else None)
    assert model.untie == preset.endswith("/roberta-large")
    drawn = "run" if preset.endswith("/roberta-large") else "example"
    assert config.task.demonstrations_per == drawn
