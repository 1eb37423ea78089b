"""The list of the study: every line is accepted, has a search or a rate, and runs to files that a report reads."""

import shutil

import pytest

pytest.importorskip("transformers")

from benchmarks import study_runs
from experiments.config.compose import compose
from experiments.config.expand import key_of
from experiments.config.run_id import trains
from experiments.report.runs import read_runs


@pytest.fixture
def lines(monkeypatch, tmp_path):
    monkeypatch.setenv("ZO_SHARED", str(tmp_path))
    return study_runs.lines_of([], [])


@pytest.mark.slow
def test_every_line_is_accepted_and_has_a_rate_or_a_search(lines):
    assert len(lines) > 50
    for line in {(o.part, o.setting): o for o in lines}.values():
        composed = compose(line.overrides)
        assert composed.config is not None, (line, composed.problems)
        rated = any(key_of(text) == "optimizer.lr" for text in line.overrides)
        if rated or not trains(composed.config):
            continue
        found = study_runs.searches_for(line, lines)
        assert len({o.setting for o in found}) == 1, line  # one search, not several
        assert len(found) >= 2, line
        budgets = {text for o in found for text in o.overrides if key_of(text) == "budget.forward_passes"}
        assert len(budgets) == 1, line  # rates are compared at one budget


@pytest.mark.slow
def test_a_list_is_cut_by_part_and_by_keys(lines):
    cut = study_runs.lines_of(["c1"], ["seed=3"])
    assert {line.part for line in cut} == {"c1-copa-rates", "c1-trec-rates"}
    assert all(line.overrides[-1] == "seed=3" for line in cut)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.slow
def test_runs_follow_their_search_and_are_kept(monkeypatch, tmp_path):
    """Part d in small: three searches, the best on dev, the run at that rate; a second call runs nothing."""
    monkeypatch.setenv("ZO_SHARED", str(tmp_path))
    monkeypatch.setattr(study_runs.os, "nice", lambda value: 0)  # this process is the tests' own
    monkeypatch.chdir(study_runs.ROOT)
    small = [
        "model=tiny-clm", "model.dtype=float32", "task=sentiment", "task.data_dir=null", "task.train=32", "task.dev=16",
        "optimizer=mezo", f"paths.runs={tmp_path / 'runs'}",
    ]  # fmt: skip
    searched = study_runs.lines_of(["d1"], [*small, "budget.forward_passes=20"])
    lines = study_runs.lines_of(["d2"], [*small, "task.test=16", "budget.forward_passes=40"])
    planner = study_runs.Planner()
    assert study_runs._all(lines, searched, tmp_path / "kept") == 1  # its search is not finished
    assert not (tmp_path / "kept").exists()
    assert study_runs._all(searched, searched, tmp_path / "kept") == 0
    losses = {run.config["optimizer"]["lr"]: run.dev_loss or 0.0 for run in read_runs([tmp_path / "kept"])}
    assert len(losses) == 3
    assert float(study_runs.rate_of(lines[0], searched, planner) or 0) == min(
        losses, key=lambda lr: losses[lr]
    )
    assert study_runs._all(lines, searched, tmp_path / "kept") == 0
    (run,) = [r for r in read_runs([tmp_path / "kept"]) if r.result and r.result["forward_passes"] == 40]
    assert run.config["optimizer"]["lr"] == min(losses, key=lambda lr: losses[lr])
    assert (run.folder / "journal").stat().st_size > 0 and run.answers is not None
    log = next((tmp_path / "runs").rglob(f"{run.folder.parent.name}/seed0/log.txt"))
    before = log.stat().st_mtime_ns
    assert study_runs._all(lines, searched, tmp_path / "kept") == 0 and log.stat().st_mtime_ns == before
    for name in ("config.yaml", "provenance.json"):
        text = (run.folder / name).read_text(encoding="utf-8")
        assert str(tmp_path) not in text and str(study_runs.ROOT) not in text
    shutil.rmtree(tmp_path / "runs")  # another clone, which has what is kept
    study_runs.put_back(lines, searched, tmp_path / "kept")
    assert study_runs._all([*searched, *lines], searched, tmp_path / "kept") == 0
    assert not list((tmp_path / "runs").rglob("log.txt"))  # nothing was run
