"""Weights & Biases with its own SDK, offline, read back with its own reader."""

import json
import time

import pytest

pytest.importorskip("wandb", reason="the package wandb is not installed (pip install zo-finetune[wandb])")

import yaml

from experiments.__main__ import main
from experiments.report import tracker_sync
from experiments.trackers.interface import metrics_of
from experiments.trackers.sink import Sink
from experiments.trackers.wandb import Wandb
from tests.trackers.conftest import KEY, history, metrics, records, rows_of, run_below, summary
from zo.journal import Journal

OFFLINE = ("tracker=wandb", "tracker.mode=offline")


def said(folder):
    """Of each row of metrics.jsonl what W&B should hold."""
    return [metrics_of(row) | {"_step": number} for number, row in enumerate(rows_of(folder))]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run tracked offline from beginning to end."""
    return run_below(tmp_path_factory.mktemp("tracked"), *OFFLINE)


@pytest.fixture
def stopping(monkeypatch):
    """A STOP file is written at step 5."""
    append = Journal.append

    def append_and_ask(self, losses, lr=None):
        append(self, losses, lr)
        if len(self) == 5:
            (self.path.parent / "STOP").touch()

    monkeypatch.setattr(Journal, "append", append_and_ask)


def test_a_run_holds_every_row_the_configuration_and_the_result(tracked):
    assert history(tracked) == said(tracked)
    told, result = summary(tracked), json.loads((tracked / "result.json").read_text())
    name = f"tiny-clm-sentiment-fzoo-none-{result['config_hash'][:8]}"
    assert (told["project"], told["run_id"], told["name"]) == ("zo", f"{name}-seed0", f"{name}-seed0")
    assert (told["state"], told["exit_code"]) == ("finished", 0)
    assert told["tags"] == ["fzoo", "sentiment", "tiny-clm", "none"]
    config = yaml.safe_load((tracked / "config.yaml").read_text())
    del config["tracker"]
    made = told["config"].pop("run")
    assert told["config"] == config
    assert (made["method"], made["config_hash"]) == ("fzoo", result["config_hash"][:8])
    assert made["commit"] == json.loads((tracked / "provenance.json").read_text())["commit"]
    assert list((tracked / "wandb").glob("*/files/requirements.txt"))
    for key in ("after", "best_dev", "seconds", "peak_memory_bytes", "model_sha256", "tokens"):
        assert told["summary"][f"result/{key}"] == result[key]
    dev = [row["value"] for row in rows_of(tracked) if row["kind"] == "dev"]
    assert told["summary"]["eval/dev_score"] == {"last": dev[-1], "max": max(dev)}
    assert told["summary"]["status"] == "finished"


def test_forward_passes_are_the_axis_and_the_group_is_the_configuration_without_its_seed(tracked):
    defined = metrics(tracked)
    for name in ("train/*", "eval/*", "eval/dev_score", "eval/test_loss"):
        assert defined[name]["step_metric"] == "forward_passes"
    assert {"forward_passes", "seconds", "steps", "tokens", "gpu_hours"} < set(defined)
    told = next(record["run"] for record in records(tracked) if record["type"] == "run")
    assert told["run_id"] == told["run_group"] + "-seed0" and told["job_type"] == "train"


def test_synced_is_what_direct_tracking_gives_and_replaces_it(tracked):
    before, told = history(tracked), summary(tracked)
    assert main(["sync", str(tracked), "--mode", "offline"]) == 0
    assert history(tracked) == before and metrics(tracked)
    again = summary(tracked)
    clocks = {"_runtime", "_timestamp"}
    assert {k: v for k, v in again["summary"].items() if k not in clocks} == {
        k: v for k, v in told["summary"].items() if k not in clocks
    }
    for key in ("config", "run_id", "name", "project", "tags", "exit_code", "state"):
        assert again[key] == told[key]


def test_a_stopped_run_goes_on_as_one_run_without_a_row_twice(run, stopping):
    folder = run(*OFFLINE)
    assert summary(folder)["summary"]["status"] == "stopped" and len(history(folder)) == len(rows_of(folder))
    assert run(*OFFLINE) == folder
    assert history(folder) == said(folder)  # and there is one fragment
    assert [row["steps"] for row in rows_of(folder) if row["kind"] == "train"] == list(range(1, 9))


def test_no_key_is_written_anywhere(run, monkeypatch, tmp_path, capsys):
    """Online with a key that is nobody's and a server that does not answer: offline within seconds, and no key kept."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    folder = run("tracker=wandb", "tracker.timeout_seconds=1")
    told = capsys.readouterr()
    assert "so the run is tracked offline" in told.out
    assert history(folder) == said(folder)
    assert KEY not in told.out + told.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_without_a_key_the_run_is_tracked_offline_and_says_so(run, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    folder = run("tracker=wandb")
    assert "No valid W&B key was found" in capsys.readouterr().out
    assert len(history(folder)) == len(rows_of(folder))
    assert main(["sync", str(folder)]) == 2  # which was asked to upload
    assert "set WANDB_API_KEY" in capsys.readouterr().err
    assert len(history(folder)) == len(rows_of(folder))  # nothing was lost by it


def test_a_server_that_does_not_answer_fails_the_upload_and_loses_nothing(tracked, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(tracker_sync, "START", 0.5)
    assert main(["sync", str(tracked)]) == 1
    assert "not synced: " in capsys.readouterr().out and rows_of(tracked)


def test_disabled_is_disabled(run):
    folder = run("tracker=wandb", "tracker.mode=disabled")
    assert not list(folder.rglob("*.wandb")) and (folder / "result.json").exists()


@pytest.mark.slow
def test_the_environment_may_take_a_run_offline(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert history(run("tracker=wandb"))


@pytest.mark.slow
def test_tracking_takes_less_than_a_hundredth_of_a_run(tmp_path, monkeypatch):
    """Start-up and end apart: what the run's thread and the tracker's compute for it, in CPU seconds, and how often
    rows are handed on, for a row costs W&B's SDK about a third of a millisecond.
    """
    spent = {"row": 0.0, "log": 0.0}
    row, log, close = Sink.row, Wandb.log, Sink.close

    def timed(name, call):
        def wrapped(*arguments):
            began = time.thread_time()
            call(*arguments)
            spent[name] += time.thread_time() - began

        return wrapped

    def close_then_count(self, *arguments):
        spent["before the end"] = spent["row"] + spent["log"]
        close(self, *arguments)

    monkeypatch.setattr(Sink, "row", timed("row", row))
    monkeypatch.setattr(Wandb, "log", timed("log", log))
    monkeypatch.setattr(Sink, "close", close_then_count)
    whole = (
        "task.train=1000",
        "task.dev=100",
        "task.test=100",
        "batch.size=16",
        "stop.every=50",
        "budget.steps=100",
    )
    folder = run_below(tmp_path, *OFFLINE, *whole)
    seconds = json.loads((folder / "result.json").read_text())["seconds"]
    assert 0 < spent["before the end"] < 0.01 * seconds, (spent, seconds)
    assert history(folder) == said(folder)
