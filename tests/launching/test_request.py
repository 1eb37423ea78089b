"""What a command line or a file of sweeps/ means: which runs, in which order, and all that is wrong at once."""

import pytest

from experiments.commands.launch import main
from experiments.config.expand import expand, replaced
from experiments.launching.check import SMOKE, Asked, Tally, check
from experiments.launching.search_space import Interval, Values
from experiments.launching.sweep_file import FOLDER, read_sweep, text_of


@pytest.mark.parametrize(
    ("overrides", "runs"),
    [
        (["seed=1"], ["seed=1"]),
        (["seed=0,1", "optimizer=mezo,fzoo"], ["seed=0 optimizer=mezo", "seed=0 optimizer=fzoo",
                                                "seed=1 optimizer=mezo", "seed=1 optimizer=fzoo"]),
        (["seed=range(0,3)"], ["seed=0", "seed=1", "seed=2"]),
        (["seed=range(4,0,step=-2)"], ["seed=4", "seed=2"]),
        (["task=glob(ss*)"], ["task=sst2", "task=sst5"]),
        (["schedule=glob([con*,lin*],exclude=lin*)"], ["schedule=constant"]),
        (["optimizer.lr=choice(1e-3,1e-4)"], ["optimizer.lr=0.001", "optimizer.lr=0.0001"]),
        (["optimizer.betas=[0.9,0.99],[0.8,0.9]"], ["optimizer.betas=[0.9,0.99]", "optimizer.betas=[0.8,0.9]"]),
        (["seed=0,1", "seed=5"], ["seed=5"]),
    ],
)  # fmt: skip
def test_hydras_grammar(overrides, runs):
    found, problems = expand(overrides)
    assert problems == []
    assert [" ".join(run) for run in found] == runs


def test_what_is_no_sweep_is_refused():
    _, problems = expand(["optimizer.lr=interval(1e-5,1e-3)", "seed"])
    assert [problem.where for problem in problems] == ["optimizer.lr=interval(1e-5,1e-3)", "seed"]


def test_a_later_word_replaces_an_earlier_one_and_a_budget_all_budgets():
    below = ["seed=0,1", "budget.steps=5", "task=sst2"]
    assert replaced(below, ["seed=7"]) == ["budget.steps=5", "task=sst2", "seed=7"]
    assert replaced(below, ["budget.minutes=1"]) == ["seed=0,1", "task=sst2", "budget.minutes=1"]


@pytest.mark.parametrize("value", [None, True, 3, 1e-6, "a b", "it's", "a,b", ["x", 1], {"a": [1, "b c"]}])
def test_a_value_is_written_as_hydra_reads_it(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"key={text_of(value)}").value() == value


def test_a_file_has_a_grid_zipped_values_seeds_and_a_budget(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("""\
overrides: [task=entailment, peft=none]
grid: {batch.size: [4, 8]}
zip:
  - {optimizer: mezo, optimizer.lr: 1e-4}
  - {optimizer: fzoo, optimizer.lr: "1e-3,1e-2", batch.size: 16}
seeds: 2
budget: {forward_passes: 1000}
""")
    found = check(Asked([], file=str(path)))
    assert (found.name, found.problems) == ("study", [])
    common = "task=entailment peft=none"
    assert [" ".join(run) for run, _ in found.runs] == [
        *(f"{common} batch.size={b} budget.forward_passes=1000 optimizer=mezo optimizer.lr=0.0001 seed={s}"
          for b in (4, 8) for s in (0, 1)),
        *(f"{common} budget.forward_passes=1000 optimizer=fzoo optimizer.lr={lr} batch.size=16 seed={s}"
          for lr in ("0.001", "0.01") for s in (0, 1)),
    ]  # fmt: skip
    above = check(Asked(["seed=9", "budget.steps=3", "optimizer=mezo"], file=str(path)))
    assert {text for run, _ in above.runs for text in run if text.startswith(("seed", "budget", "optimizer="))} == {
        "seed=9", "budget.steps=3", "optimizer=mezo"
    }  # fmt: skip


def test_a_wrong_file_is_told_apart_key_by_key(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("seed: [1]\ngrid: [1]\nzip: [a]\n")
    assert [p.where.rpartition(": ")[2] for p in read_sweep(str(path), [])[2]] == [
        "seed",
        "grid",
        "zip",
    ]
    path.write_text("grid: {a\n")
    assert "cannot be read" in read_sweep(str(path), [])[2][0].what
    assert "no such file" in read_sweep("nix", [])[2][0].what


def test_every_file_of_sweeps_is_right_and_says_what_it_is():
    for path in FOLDER.glob("*.yaml"):
        checked = check(Asked([], file=str(path)))
        assert checked.problems == [] and checked.runs
        assert path.read_text().startswith("# ")


def test_all_problems_of_all_runs_come_at_once_and_once(capsys):
    wrong = ["optimizer=mezo,fzo", "batch.size=0", "seed=0,1", "hydra/launcher=submitit_slurm", "--foo"]
    assert main(["-m", *wrong]) == 2
    said = capsys.readouterr().err
    assert said.startswith("4 problems")
    for where in ("optimizer=fzo", "batch.size=0", "hydra/launcher=submitit_slurm", "--foo"):
        assert said.count(f"  {where}\n") == 1
    assert "(2 of 4 runs)" in said and "launcher=local" in said


def test_what_a_sweep_shares_cannot_be_swept():
    problems = check(Asked(["paths.runs=a,b", "launcher.parallel=1,2"])).problems
    assert [problem.where for problem in problems] == ["launcher", "paths"]


def test_smoke_takes_one_step_and_keeps_model_and_batch():
    checked = check(Asked(["optimizer=mezo,fzoo", "batch.size=7"], smoke=True))
    assert checked.problems == []
    (_, config), *_ = checked.runs
    assert config.budget.steps == 1 and config.batch.size == 7 and config.experiment == "smoke"


def test_trials_of_a_smoke_take_one_step_too():
    words = ["optimizer.lr=tag(log,interval(1e-5,1e-2))", "budget.steps=500", "task.dev=9", "seed=0,1"]
    checked = check(Asked(words, smoke=True, trials=3, name="n"))
    assert checked.problems == [] and checked.space is not None and checked.name == "n-smoke"
    for run in checked.space.runs({"optimizer.lr": 1e-3}):
        assert set(SMOKE) < set(run) and not {"budget.steps=500", "task.dev=9"} & set(run)


def test_a_search_draws_from_intervals_and_values_and_repeats_seeds():
    checked = check(Asked(["optimizer.lr=tag(log,interval(1e-5,1e-2))", "optimizer.eps=1e-3,1e-4", "seed=0,1",
                           "task=sst2"], trials=3))  # fmt: skip
    assert checked.problems == [] and checked.space is not None
    assert checked.space.dimensions == {
        "optimizer.lr": Interval(1e-5, 1e-2, log=True), "optimizer.eps": Values(["0.001", "0.0001"])
    }  # fmt: skip
    assert checked.space.runs({"optimizer.lr": 1}) == [
        ["task=sst2", "optimizer.lr=1", f"seed={s}"] for s in (0, 1)
    ]
    assert len(checked.runs) == 2 * 3  # the seeds at the first ends, at the other end of each
    wrong = check(Asked(["optimizer.lr=tag(log,interval(0,1))", "optimizer.eps=interval(-1,1e-3)"], trials=1))
    assert [problem.where for problem in wrong.problems] == [
        "optimizer.lr=tag(log,interval(0,1))", "optimizer.eps=-1.0"
    ]  # fmt: skip
    assert [p.where for p in check(Asked(["task=sst2"], trials=1)).problems] == ["--trials"]


def test_one_sentence_of_many_runs_is_said_once():
    few, many = Tally(8), Tally(8)
    for place in range(8):
        few.note(f"seed={place % 2}", "no such file")
        many.note(f"seed={place}", "no such file")
    assert [(problem.where, problem.what) for problem in few.problems()] == [
        ("seed=0", "no such file (4 of 8 runs)"),
        ("seed=1", "no such file (4 of 8 runs)"),
    ]
    assert [(problem.where, problem.what) for problem in many.problems()] == [
        ("seed=0 and 7 more", "no such file")
    ]
