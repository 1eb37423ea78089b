"""sweeps/papers: each table's file is valid and has a run for every number that the table prints."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.config.compose import compose
from experiments.config.expand import expand
from experiments.launching.sweep_file import FOLDER, read_sweep
from experiments.papers import published

FILES = sorted((FOLDER / "papers").glob("*.yaml"))
TABLES = {
    "fzoo": (1, 2, 3, 4, 6, 7, 11, 14),
    "mezo": (1, 18, 20),
    "adamezo": (2, 3, 5, 6, 9, 12, 13, "figure-1", "figure-4"),
}
# Their numbers are ratios of forward passes and curves, which experiments/papers does not hold.
WITHOUT_NUMBERS = {"fzoo-6", "adamezo-figure-1", "adamezo-figure-4"}
METHODS = {"linear_probe": "linearprobe"}
# MeZO's row LP is head tuning where there are no labels to regress on; Table 18's FT rows are all there.
ELSEWHERE = {("opt-13b", task, "linearprobe", "none", None) for task in ("copa", "record", "squad", "drop")}


def lines_of(path: Path) -> list[list[list[str]]]:
    """The overrides of every run, line by line."""
    _, lines, problems = read_sweep(str(path), [])
    expanded = [expand(line) for line in lines]
    assert problems == [] and [problem for _, wrong in expanded for problem in wrong] == []
    return [runs for runs, _ in expanded]


def values_of(overrides: list[str], keys: list[str]) -> tuple[tuple[str, Any], ...]:
    """What overrides set some keys to, lists as tuples."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    values = {each.key_or_group: each.value() for each in parsed}
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return tuple((key, frozen.get(key)) for key in keys)


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
    numbers = [n for n in published(paper) if n.table == table]
    assert bool(numbers) == (path.stem not in WITHOUT_NUMBERS)
    missing = set()
    for keys in {tuple(key for key, _ in n.settings) for n in numbers}:
        having = [n for n in numbers if tuple(key for key, _ in n.settings) == keys]
        printed = {((n.model, n.task, n.method, n.peft, n.k), n.settings) for n in having}
        missing |= printed - {(cell_of(run), values_of(run, list(keys))) for run in runs}
    assert {cell for cell, _ in missing} <= ELSEWHERE
    assert len({tuple(sorted(run)) for run in runs}) == len(runs)
    assert compose(runs[-1]).problems == []
    assert f"python launch.py -m sweeps/papers/{path.name} --dry-run" in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_line_of_a_file_is_valid(path):
    for line in lines_of(path):
        assert compose(line[0]).problems == []
        assert compose(line[-1]).problems == []


def test_speeds_are_compared_on_evaluations_equally_many_forward_passes_apart():
    """FZOO's Table 6 is a ratio of forward passes: MeZO takes two a step, FZOO nine."""
    (path,) = (path for path in FILES if path.stem == "fzoo-6")
    pairs: dict[tuple[str, str], dict[str, int]] = {}
    for run in (run for line in lines_of(path) for run in line):
        text = dict(each.split("=", 1) for each in run)
        passes = {"mezo": 2, "fzoo": 9}[text["optimizer"]] * int(text["stop.every"])
        pairs.setdefault((text["experiment"], text["task"]), {})[text["optimizer"]] = passes
    assert set(pairs) == {
        ("fzoo/roberta-large", "snli"), ("fzoo/phi-2", "copa"), ("fzoo/opt-13b", "wic"), ("fzoo/llama-3-8b", "cb")
    }  # fmt: skip
    assert all(passes == {"mezo": 900, "fzoo": 900} for passes in pairs.values())


def test_every_run_of_the_betas_and_of_the_horizon_draws_its_examples_by_its_seed():
    for stem in ("adamezo-6", "adamezo-9", "adamezo-figure-1", "adamezo-figure-4"):
        (path,) = (path for path in FILES if path.stem == stem)
        runs = [run for line in lines_of(path) for run in line]
        assert all("seeds.split=null" in run for run in runs)
        assert {text for run in runs for text in run if text.startswith("seed=")} == {
            f"seed={seed}" for seed in range(4)
        }
