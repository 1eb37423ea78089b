"""The study of a search: what is drawn, told and kept. No run is started."""

import pytest

from experiments.commands.launch import main
from experiments.display.console import new_console
from experiments.launching.check import Asked, check
from experiments.launching.plan import plan
from experiments.launching.search import Study, show
from experiments.launching.search_space import read_space
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import Lock

pytest.importorskip("optuna")


def space_of(*overrides):
    space, problems = read_space(overrides)
    assert problems == []
    return space


def test_what_is_copied_is_what_was_tried(tmp_path, capsys):
    space = space_of("peft.targets=[q_proj,v_proj],[v_proj,q_proj]", "optimizer.lr=interval(1e-5,1e-3)")
    study = Study(tmp_path / "s", space)
    trial, values = study.ask()
    study.tell(trial, 0.5)
    show(new_console(soft_wrap=True), study, space)
    said = capsys.readouterr().out
    assert said.count(values["peft.targets"]) == 2  # in the table, and to copy
    assert said.splitlines()[-1] == " ".join(f"{key}={value}" for key, value in values.items())


def test_a_name_that_holds_another_search_is_refused_before_a_trial(small, tmp_path, capsys):
    folder = tmp_path / "runs" / "sweeps" / "lr"
    Study(folder, space_of("optimizer.lr=1e-5,1e-4"))
    Study(folder, space_of("optimizer.lr=1e-5,1e-4"))
    for other in ("optimizer.lr=1e-5,1e-3", "optimizer.eps=1e-3,1e-2"):
        words = ["-m", *small("optimizer=mezo", other), "--trials", "1", "--name", "lr"]
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "optimizer.lr=1e-05,0.0001" in said and "--name" in said and "--rerun" in said
    assert [path.name for path in folder.parent.parent.iterdir()] == ["sweeps"]


def test_a_trial_at_which_another_process_is_ends_the_search_with_a_message(small, tmp_path, capsys):
    words = small("optimizer=mezo", "optimizer.eps=1e-3,1e-3")
    made, _ = plan(check(Asked(words)))
    assert made is not None
    RunFolder(made.runs[0].folder)
    with Lock(made.runs[0].folder / "lock"):
        assert main(["-m", *words, "--trials", "1"]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of these runs is at work in other processes" in said and made.runs[0].folder.name in said


def test_a_search_that_begins_again_has_no_trials_and_may_have_another_space(tmp_path):
    study = Study(tmp_path / "s", space_of("optimizer.lr=1e-5,1e-4"))
    study.tell(study.ask()[0], 0.5)
    assert study.done == 1
    assert Study(tmp_path / "s", space_of("optimizer.eps=1e-5,1e-4"), anew=True).done == 0
