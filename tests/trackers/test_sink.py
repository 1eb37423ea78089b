"""Whatever a tracker does, the run has the same bits and all its numbers."""

import importlib.util
import json
import threading
import time
from pathlib import Path

import pytest

from experiments.trackers import opening, sink
from experiments.trackers.interface import About, metrics_of, summary_of
from experiments.trackers.sink import BATCH_ROWS, EVERY, REST_FACTOR, Sink
from tests.trackers.conftest import rows_of

VARYING = ("seconds", "gpu_hours", "peak_memory_bytes")
ABOUT = About("id", "name", "group", "train", (), {}, Path("runs/somewhere"))
ROW = {
    "kind": "train",
    "steps": 1,
    "forward_passes": 9,
    "seconds": 0.5,
    "tokens": 7,
    "gpu_hours": 0.0,
    "loss": 0.7,
}


class Kept:
    """Keeps what it is told; `fails` names the call that raises, `hangs` the one that never returns."""

    def __init__(self, fails="", hangs=""):
        self.fails, self.hangs = fails, hangs
        self.rows, self.end = [], None

    def _do(self, name):
        if name == self.fails:
            raise SystemExit("the tracker\ngives up")
        if name == self.hangs:
            threading.Event().wait()

    def start(self, about):
        self._do("start")
        return "started"

    def log(self, number, metrics):
        self._do("log")
        self.rows.append((number, metrics))

    def finish(self, status, summary):
        self._do("finish")
        self.end = (status, summary)


def bits(folder):
    timeless = [{k: v for k, v in row.items() if k not in VARYING} for row in rows_of(folder)]
    return json.loads((folder / "result.json").read_text())["last_sha256"], timeless


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_a_tracker_that_fails_or_hangs_does_no_harm(run, ended, monkeypatch, capsys, how):
    monkeypatch.setattr(sink, "CLOSE_TIMEOUT", 0.2)
    without = bits(ended)
    for call in ("start", "log", "finish"):
        monkeypatch.setattr(opening, "_tracker", lambda chosen, resumed, call=call: Kept(**{how: call}))
        began = time.monotonic()
        assert bits(run(under=call)) == without
        assert time.monotonic() - began < 60
        why = "the tracker gives up" if how == "fails" else "it did not finish within 0 s"
        said = capsys.readouterr().out
        assert said.count("Kept is dropped: ") == 1 and why in said
        assert "python -m experiments sync" in said


def test_rows_arrive_once_in_order_earlier_ones_first():
    kept = Kept()
    rows = [{**ROW, "steps": n} for n in range(30)]
    tracked = Sink(kept, ABOUT, rows[:10], lambda words: None)
    for row in rows[10:]:
        tracked.row(row)
    tracked.close("finished", {"status": "finished", "after": 0.75, "ci95": [0.7, 0.8], "task": "sst2"})
    assert kept.rows == [(n, metrics_of(row)) for n, row in enumerate(rows)]
    assert kept.end == ("finished", {"status": "finished", "result/after": 0.75})


def test_nothing_is_waited_for_while_the_run_goes_on():
    """A thousand rows into a tracker that needs 50 s for them cost the run less than a tenth of a second."""
    slow = Kept()
    slow.log = lambda number, metrics: time.sleep(0.05)
    tracked = Sink(slow, ABOUT, [], lambda words: None)
    began = time.perf_counter()
    for _ in range(1000):
        tracked.row(ROW)
    assert time.perf_counter() - began < 0.1


def test_the_thread_works_a_small_part_of_the_time():
    """A tracker that computes 1 ms a row rests REST_FACTOR ms a row, until the run ends and it takes all the rest."""

    def busy(number, metrics):
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass
        kept.rows.append(number)

    kept = Kept()
    kept.log = busy
    tracked = Sink(kept, ABOUT, [ROW] * (3 * BATCH_ROWS), lambda words: None)
    time.sleep(0.5)
    assert len(kept.rows) <= BATCH_ROWS and BATCH_ROWS * REST_FACTOR * 0.001 > EVERY > 0.5
    tracked.close("finished")
    assert kept.rows == list(range(3 * BATCH_ROWS))


def test_a_row_by_the_names_of_trackers():
    axes = {"forward_passes": 9, "seconds": 0.5, "tokens": 7, "gpu_hours": 0.0, "steps": 1}
    assert metrics_of(ROW) == {**axes, "train/loss": 0.7}
    assert metrics_of({**ROW, "loss": float("nan")}) == metrics_of({**ROW, "loss": None}) == axes
    dev = {
        **axes,
        "kind": "dev",
        "metric": "f1",
        "value": 0.5,
        "loss": 0.6,
        "n": 16,
        "eval_forward_passes": 2,
    }
    assert metrics_of(dev) == {**axes, "eval/dev_score": 0.5, "eval/dev_loss": 0.6}
    assert metrics_of({**dev, "kind": "after"}) == {**axes, "eval/test_score": 0.5, "eval/test_loss": 0.6}
    assert metrics_of({**axes, "kind": "stop"}) == axes


def test_a_run_without_a_result_has_a_status():
    assert summary_of("failed", None) == {"status": "failed"}


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "trackio"])
def test_a_missing_package_is_refused_before_anything_is_written(run, monkeypatch, capsys, tmp_path, name):
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None if wanted == name else there(wanted))
    run(f"tracker={name}", code=2)
    said = capsys.readouterr().err
    assert f"tracker={name} needs the package {name}" in said and "pip install" in said
    assert not (tmp_path / "runs").exists()
    run("-m", f"tracker={name}", "seed=0,1", code=2)
    assert f"needs the package {name}" in capsys.readouterr().err


def test_sweeps_that_list_a_run_are_its_tags(tmp_path):
    folder = tmp_path / "runs" / "default" / "m-t-fzoo-none" / "0123abcd" / "seed0"
    folder.mkdir(parents=True)
    for name, listed in (
        ("one", "../../default/m-t-fzoo-none/0123abcd/seed0"),
        ("two", "../../default/else"),
    ):
        (tmp_path / "runs" / "sweeps" / name).mkdir(parents=True)
        (tmp_path / "runs" / "sweeps" / name / "sweep.json").write_text(
            json.dumps({"runs": [{"folder": listed}]})
        )
    assert opening.sweeps_of(folder) == ("one",)
