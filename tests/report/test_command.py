"""python -m experiments report, over real runs and over folders written by hand: filters, files, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.cli import main as launch
from experiments.report.runs import read_runs
from experiments.report.where import where
from tests.report.made import run
from zo.errors import ConfigError

ROOT = Path(__file__).parents[2]
SMALL = ("task.train=32", "task.dev=16", "task.test=16", "batch.size=4", "stop.every=2", "budget.steps=4")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two methods, two rates, two seeds on the small shipped model."""
    folder = tmp_path_factory.mktemp("real")
    for optimizer in ("mezo", "fzoo"):
        for lr in ("1e-4", "1e-3"):
            for seed in (0, 1):
                choices = (
                    f"optimizer={optimizer}",
                    f"optimizer.lr={lr}",
                    f"seed={seed}",
                    f"paths.runs={folder}",
                )
                assert launch(["model=tiny-clm", "task=sentiment", "select=best", *SMALL, *choices]) == 0
    return folder


def test_a_report_of_real_runs(real, tmp_path, capsys):
    assert main(["report", str(real), "--target", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "8 of 8 runs ended" in said and "dev, seeds 0, 1" in said and "to 50 % on dev" in said
    out = tmp_path / "report"
    assert main(["report", str(real), "--out", str(out)]) == 0
    made = json.loads((out / "comparison.json").read_text())
    results = [json.loads(path.read_text()) for path in real.rglob("result.json")]
    assert len(made["runs"]) == len(results) == 8
    for cell in made["cells"]:
        # From the files by hand: of the settings of a method the mean on dev decides, the mean on test is reported.
        by_rate: dict[str, list[dict]] = {}
        for result in results:
            if result["method"] == cell["method"]:
                by_rate.setdefault(result["config_hash"], []).append(result)
        best = max(sum(result["best_dev"] for result in group) / 2 for group in by_rate.values())
        means = {sum(r["best_dev"] for r in g) / 2: sum(r["after"] for r in g) / 2 for g in by_rate.values()}
        assert (cell["tries"], cell["n"]) == (2, 2)
        if list(means) != [best]:  # no tie
            assert cell["mean"] == pytest.approx(means[best])
        # Forward passes are steps times those of a step.
        assert cell["forward_passes"] == 4 * (9 if cell["method"] == "fzoo" else 2)
    for name in ("results", "choices", "costs", "differences", "settings"):
        assert (out / "tables" / f"{name}.md").is_file() and (out / "tables" / f"{name}.tex").is_file()
    for name in ("cells", "settings", "runs", "differences", "curves"):
        assert (out / "tables" / f"{name}.csv").is_file()


def test_conditions_leave_the_runs_of_which_all_hold(real):
    runs = read_runs([real])
    assert len(where(runs, ["method=fzoo"])) == 4
    assert len(where(runs, ["method=fzoo,mezo", "optimizer.lr=1e-3"])) == 4
    assert len(where(runs, ["optimizer.lr=0.001", "seed=0,1", "status=finished", "peft=none"])) == 4
    (one,) = where(runs, ["method=mezo", "optimizer.lr=1e-4", "seed=1"])
    assert (one.method, one.seed, one.config["optimizer"]["lr"]) == ("mezo", 1, 1e-4)
    assert where(runs, [f"config_hash={one.config_hash[:8]}", "seed=1"]) == [one]
    assert len(where(runs, [f"setting={one.setting}"])) == 2


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("task=sst3", "Of 8 runs, task is sentiment (8)."),
        ("optimizer.lr=3", "optimizer.lr is 0.0001 (4) or 0.001 (4)"),
        ("tsk=sst2", "Did you mean task?"),
        ("optimizer.lrr=1", "Did you mean optimizer.lr?"),
        ("optimizer=fzoo", "It is a group"),
        ("task", "KEY=VALUE"),
    ],
)
def test_a_condition_that_leaves_nothing_says_what_there_is(real, condition, said):
    with pytest.raises(ConfigError) as error:
        where(read_runs([real]), [condition])
    assert said in str(error.value)


def test_conditions_that_exclude_each_other(real):
    runs = read_runs([real])
    hashes = {run.method: run.config_hash for run in runs}
    with pytest.raises(ConfigError, match="no run has all of it"):
        where(runs, ["method=fzoo", f"config_hash={hashes['mezo']}"])


def test_wrong_input_ends_with_2_and_writes_nothing(tmp_path, capsys):
    run(tmp_path / "runs")
    runs = str(tmp_path / "runs")
    for arguments in (
        [str(tmp_path / "nowhere")],
        [runs, "--where", "task=nothing"],
        [runs, "--target", "80"],
        [runs, "--out", str(tmp_path / "table.csv")],
        [runs, "--out", str(tmp_path / "out"), "--where", "task=nothing"],
    ):
        assert main(["report", *arguments]) == 2
        assert capsys.readouterr().err.strip().endswith(".")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_runs_that_all_failed_are_a_report_too(tmp_path, capsys):
    run(tmp_path, after=None, status="failed")
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "0 of 1 runs ended, 1 failed" in said


def test_a_report_needs_neither_torch_nor_the_extra_packages_for_its_tables(tmp_path):
    for seed in (0, 1):
        run(tmp_path, seed=seed)
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'pandas', 'matplotlib', 'jinja2'): sys.modules[name] = None\n"
        "from experiments.__main__ import main\n"
        f"sys.exit(main(['report', {str(tmp_path)!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "50.0 ± 0.0 (2)" in done.stdout
