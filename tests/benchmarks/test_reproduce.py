"""One row of a paper by one command: download, run, verdict; on stand-ins of the repository for models and data."""

import json

import pytest
import torch

from benchmarks import reproduce
from experiments.config.compose import compose
from experiments.estimating import estimate
from experiments.papers import published

ONE_GPU = 15.0  # minutes that the named row has to fit in


@pytest.fixture
def words(tmp_path):
    """What makes a row's run one of a shipped model, on sentences that hold their label's word."""
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation", "test"):
        lines = [
            json.dumps({"sentence": f"a {('bad', 'good')[n % 2]} film", "label": n % 2}) for n in range(80)
        ]
        (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def of(model, *more):
        place = [f"model.path=package:experiments/world/{model}", "model.revision=null", "model.device=cpu"]
        return [*place, f"task.data_dir={data}", "threads=1", "--runs", str(tmp_path / "runs"), *more]

    return of


def verdict_of(tmp_path, row):
    return json.loads((tmp_path / "runs" / row / "verdict.json").read_text(encoding="utf-8"))


def test_every_row_is_a_published_number_and_the_named_one_fits_a_gpu_for_15_minutes(capsys):
    assert reproduce.main(["--list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(lines) == set(reproduce.ROWS)
    minutes = {name: float(line.split()[1]) for name, line in lines.items()}
    assert minutes["roberta-large-sst2"] <= ONE_GPU < minutes["opt-125m-sst2"]
    (number,) = (
        n
        for n in published("mezo")
        if (n.table, n.task) == ("6", "sst2") and ("optimizer.n", 1) in n.settings
    )
    assert number.value == 89.6 and "89.6 within 2.0" in lines["roberta-large-sst2"]


def test_a_row_is_run_and_judged_beside_the_published_number(words, tmp_path, capsys):
    row = "roberta-large-sst2-adamw"
    few = ["budget.steps=3", "batch.size=4"]
    assert reproduce.main([row, *words("tiny-mlm", *few)]) == 1  # 3 steps of a small stand-in
    printed = capsys.readouterr().out
    assert "prints 91.9" in printed and "part of" not in printed
    first = verdict_of(tmp_path, row)
    assert (first["verdict"], first["n"], first["published"]["value"]) == ("not reproduced", 1, 91.9)
    assert first["published"]["within"] == 2.0 and first["runs"][0]["status"] == "finished"
    assert f"Not reproduced: {first['ours']:.1f} over 1 seed; published 91.9, the mean of 5 seeds" in printed
    # The same command shows the run that is there; another seed joins it.
    assert reproduce.main([row, *words("tiny-mlm", *few)]) == 1
    assert verdict_of(tmp_path, row)["runs"] == first["runs"]
    assert reproduce.main([row, *words("tiny-mlm", *few, "seed=21")]) == 1
    both = verdict_of(tmp_path, row)
    assert both["n"] == 2
    assert both["ours"] == pytest.approx(50 * sum(run["after"] for run in both["runs"]))


def test_a_number_near_the_published_one_is_reproduced(words, tmp_path, capsys, monkeypatch):
    """The stand-in's own number, put in the published one's place."""
    row = "roberta-large-sst2-zeroshot"
    assert reproduce.main([row, *words("tiny-mlm")]) == 1
    ours = verdict_of(tmp_path, row)["ours"]
    number = next(n for n in published("fzoo") if (n.table, n.task, n.method) == ("1", "sst2", "zeroshot"))
    monkeypatch.setattr(
        reproduce, "expected", lambda config: [type(number)(**vars(number) | {"value": ours + 1.9})]
    )
    assert reproduce.main([row, *words("tiny-mlm")]) == 0
    assert verdict_of(tmp_path, row)["verdict"] == "reproduced"
    assert "Reproduced: " in capsys.readouterr().out


def test_a_decoders_row_takes_its_first_steps(words, tmp_path, capsys):
    few = ["budget.forward_passes=18", "batch.size=2", "task.train=8", "task.dev=4", "task.test=8"]
    assert reproduce.main(["opt-125m-sst2", *words("tiny-clm", *few, "--minutes", "60")]) == 1
    content = verdict_of(tmp_path, "opt-125m-sst2")
    assert (content["published"]["value"], content["runs"][0]["forward_passes"]) == (84.5, 18)
    assert "over seeds that the paper does not say" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", reproduce.ROWS)
def test_a_rows_minutes_are_those_of_the_estimate(name):
    """To a fifth, or three seconds of rounding: what is reckoned for evaluation may change a little."""
    row = reproduce.ROWS[name]
    composed = compose(row.overrides)
    assert composed.config is not None
    assert row.minutes == pytest.approx(60 * estimate(composed.config).hours, rel=0.2, abs=0.05)


@pytest.mark.slow
def test_the_named_row_runs_in_full_on_a_stand_in(words, tmp_path):
    """10,000 forward passes."""
    assert reproduce.main(["roberta-large-sst2", *words("tiny-mlm", "stop.every=1000")]) in (0, 1)
    content = verdict_of(tmp_path, "roberta-large-sst2")
    assert (content["n"], content["runs"][0]["forward_passes"]) == (1, 10_000)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["roberta-large-sst"], "Did you mean roberta-large-sst2?"),
        (["opt-125m-sst2", "model.device=cpu"], "takes an estimated 31 minutes"),
        (["roberta-large-sst2"], "No GPU was found"),
        (["roberta-large-sst2", "budget.forward_passes=200"], "has no number for this run"),
        (["roberta-large-sst2", "optimizer.lrr=1"], "optimizer.lrr"),
        (["roberta-large-sst2-zeroshot", "model.device=cpu", "model.path=nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(argv, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reproduce.main([*argv, "--runs", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
