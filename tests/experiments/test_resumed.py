"""A run that goes on decides as one that was never stopped, whatever its rows hold."""

import itertools
import json
import math
import time

import pytest

import experiments.training.run
from experiments.__main__ import main
from experiments.commands import replay
from experiments.config.compose import compose
from experiments.rundir.folder import RunFolder
from experiments.training.recorder import Recorder
from experiments.training.session import build


def test_the_best_weights_of_a_first_order_run_outlive_every_stop(runs, stopped, rows):
    """Each stop takes a snapshot, and of those the newest two stay beside the best."""
    choices = (
        "optimizer=adamw", "optimizer.lr=0.3", "schedule=constant", "select=best", "stop.every=4", "budget.steps=8"
    )  # fmt: skip
    for steps in (5, 6, 7):
        stopped(steps, *choices)
    result = runs(*choices)
    dev = {row["steps"]: row for row in rows(result["folder"]) if row["kind"] == "dev"}
    assert (dev[4]["value"], -dev[4]["loss"]) > (dev[8]["value"], -dev[8]["loss"])
    assert result["selected_step"] == 4 and result["best_dev"] == dev[4]["value"]


def test_a_loss_on_dev_that_is_no_number_is_the_worst(runs, stopped, rows):
    """JSON has no NaN: it is null when the run goes on."""
    choices = ("optimizer=mezo", "optimizer.lr=1e30", "schedule=constant", "stop.on_nan=skip", "select=best")
    stopped(7, *choices)
    result = runs(*choices)
    dev = [row for row in rows(result["folder"]) if row["kind"] == "dev"]
    assert [(row["steps"], row["loss"]) for row in dev] == [(5, None), (10, None), (12, None)]
    assert result["selected_step"] == 5
    assert result["status"] == "diverged" and "no finite numbers" in result["reason"]


def test_the_order_in_which_losses_come_does_not_matter(tmp_path):
    config = compose(["task.train=4", "task.dev=2", "task.test=2", "budget.steps=5"]).config
    assert config is not None
    session, folder = build(config), RunFolder(tmp_path)
    for order in itertools.permutations([0.7, math.nan, None, -math.inf]):
        looks = [
            {"kind": "dev", "steps": t, "seconds": 0.0, "value": 0.5, "loss": x} for t, x in enumerate(order)
        ]
        recorder = Recorder(session, folder, looks)
        assert recorder.best_step == order.index(0.7)
        for loss, better in ((math.nan, False), (math.inf, False), (0.8, False), (0.6, True)):
            row = {"kind": "dev", "steps": 9, "seconds": 0.0, "value": 0.5, "loss": loss}
            assert (Recorder(session, folder, [*looks, row]).best_step == 9) is better


def test_the_clock_ends_a_run_with_a_look_at_dev(runs, rows):
    result = runs(
        "budget.minutes=0.005", "stop.every=1000000", "select=best", "optimizer.lr=0.5", "schedule=constant"
    )
    (dev,) = [row for row in rows(result["folder"]) if row["kind"] == "dev"]
    assert dev["steps"] == result["steps"] == result["selected_step"] > 0
    assert result["best_dev"] == dev["value"]
    assert replay.replay(result["folder"], None) == 0


def test_a_look_at_dev_that_takes_the_rest_of_the_time_is_the_last(runs, rows, monkeypatch):
    """Not followed by one more step, and one more look."""
    evaluate = experiments.training.run.evaluate

    def slow(*args, **kwargs):
        time.sleep(0.4)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(experiments.training.run, "evaluate", slow)
    result = runs("budget.minutes=0.01", "stop.every=1")
    assert [row["steps"] for row in rows(result["folder"]) if row["kind"] == "dev"] == [1]
    assert result["steps"] == 1


def test_what_is_replayed_is_not_cut_by_the_clock(runs, stopped, rows):
    """Time was up when the process ended: all of its steps count, and one more shows that it is."""
    stopped(7, "budget.minutes=60")
    metrics = runs.only() / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row | {"seconds": 3601.0}) + "\n" for row in rows(runs.only())))
    result = runs("budget.minutes=60")
    assert result["steps"] == 8
    assert [row["steps"] for row in rows(result["folder"]) if row["kind"] == "dev"] == [5, 8]


@pytest.mark.parametrize("command", ["replay", "export"])
def test_a_diverged_run_is_replayed_to_its_last_weights(runs, tmp_path, capsys, command):
    result = runs("optimizer=mezo", "optimizer.lr=1e30", "schedule=constant", "save=true")
    assert result["status"] == "diverged" and 0 < result["steps"] == result["selected_step"] < 12
    if command == "replay":
        assert main(["replay", str(result["folder"])]) == 0
        assert "The bits are those of the run." in capsys.readouterr().out
    else:
        assert main(["export", str(result["folder"]), "--out", str(tmp_path / "out")]) == 0
        saved, exported = (f / "model.safetensors" for f in (result["folder"] / "model", tmp_path / "out"))
        assert saved.read_bytes() == exported.read_bytes()


def test_a_float16_run_resumes_with_its_loss_scale_and_counts_skipped_steps(
    runs, stopped, rows, tmp_path, capsys
):
    """At a scale of 65536 gradients leave float16's range; scale, counter and count are those of one run."""
    choices = (
        "optimizer=adamw",
        "model.dtype=float16",
        "optimizer.lr=1e-4",
        "optimizer.dropout=false",
        "save=false",
    )
    whole = runs(*choices, f"paths.runs={tmp_path / 'whole'}")
    assert whole == {}  # it is below another folder
    (whole_folder,) = {path.parent for path in (tmp_path / "whole").rglob("result.json")}
    whole = json.loads((whole_folder / "result.json").read_text(encoding="utf-8"))
    stopped(7, *choices)
    result = runs(*choices)
    assert result["last_sha256"] == whole["last_sha256"] and result["after"] == whole["after"]
    assert result["skipped_steps"] == whole["skipped_steps"] >= 1
    train = [
        [row for row in rows(folder) if row["kind"] == "train"] for folder in (whole_folder, result["folder"])
    ]
    for row, again in zip(*train, strict=True):
        assert [row[key] == again[key] for key in ("loss_scale", "skipped", "loss")] == [True] * 3
        assert row["skipped"] == round(16 - math.log2(row["loss_scale"]))
    assert train[0][-1]["skipped"] == whole["skipped_steps"]
    screen = " ".join(capsys.readouterr().out.split())
    assert "no move, because its loss or gradient left float16's range; the loss scale is now" in screen
    assert "losses or gradients that are not" in screen and "skipped steps" in screen
