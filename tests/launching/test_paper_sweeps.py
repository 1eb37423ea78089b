"""sweeps/papers: each table's file is valid and has a run for every number that the table prints."""

from pathlib import Path

import pytest

from experiments.config.compose import compose
from experiments.config.expand import expand
from experiments.launching.sweep_file import FOLDER, read_sweep
from experiments.papers import published

FILES = sorted((FOLDER / "papers").glob("*.yaml"))
TABLES = {
    "fzoo": (1, 2, 3, 4, 11),
    "mezo": (1, 18, 20),
    "adamezo": (2, 3, 5, 12, 13),
}
METHODS = {"linear_probe": "linearprobe"}
# MeZO's row LP is head tuning where there are no labels to regress on; Table 18's FT rows are all there.
ELSEWHERE = {("opt-13b", task, "linearprobe", "none", None) for task in ("copa", "record", "squad", "drop")}


def lines_of(path: Path) -> list[list[list[str]]]:
    """The overrides of every run, line by line."""
    _, lines, problems = read_sweep(str(path), [])
    expanded = [expand(line) for line in lines]
    assert problems == [] and [problem for _, wrong in expanded for problem in wrong] == []
    return [runs for runs, _ in expanded]


def cell_of(overrides: list[str]) -> tuple[str, str, str, str, int | None]:
    """The cell a run belongs to, from its overrides: model, task, method, peft, k."""
    said = dict(text.split("=", 1) for text in overrides)
    paper, model = said["experiment"].split("/")
    method = said.get("optimizer", paper)
    if method == "none":
        method = "icl" if said.get("task.demonstrations") else "zeroshot"
    k = int(said.get("task.k", 16)) if model == "roberta-large" and method != "zeroshot" else None
    return model, said["task"], METHODS.get(method, method), said.get("peft", "none"), k


def test_there_is_a_file_for_every_table():
    assert {path.stem for path in FILES} == {
        f"{paper}-{n}" for paper, tables in TABLES.items() for n in tables
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_has_a_run_for_every_published_number(path):
    paper, _, table = path.stem.partition("-")
    runs = [run for line in lines_of(path) for run in line]
    printed = {(n.model, n.task, n.method, n.peft, n.k) for n in published(paper) if n.table == table}
    assert printed and printed - {cell_of(run) for run in runs} <= ELSEWHERE
    assert len({tuple(sorted(run)) for run in runs}) == len(runs)
    assert compose(runs[-1]).problems == []
    assert f"python launch.py -m sweeps/papers/{path.name} --dry-run" in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_line_of_a_file_is_valid(path):
    for line in lines_of(path):
        assert compose(line[0]).problems == []
        assert compose(line[-1]).problems == []
