"""Runs that are killed, cut, damaged or left without a terminal end as if nobody had disturbed them, or say why not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import experiments.training.recorder
import experiments.training.run
from experiments.__main__ import main
from experiments.commands import replay
from experiments.commands.launch import main as launch
from experiments.rundir.json_files import read_configuration, read_rows
from tests.train import forking

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # .ci/run has them
# Each process compares stacks anew, so the passes of that are its own too.
VOLATILE = ("seconds", "gpu_hours", "peak_memory_bytes", "check_forward_passes", "folder")
FIRST_ORDER = ("optimizer=adamw", "optimizer.lr=3e-4", "select=best")
SNAPSHOTS = ("optimizer=hizoo", "select=best", "checkpoint.max_replay_minutes=1e-9")


def kept(values):
    """Without what differs from one process to the next."""
    return {key: value for key, value in values.items() if key not in VOLATILE}


def rows_of(folder):
    return [kept(row) for row in read_rows(folder)[0] if row["kind"] != "stop"]


@pytest.fixture
def apart(tmp_path):
    """Runs of the same command below a second folder."""

    def go(*overrides, name="whole"):
        from tests.experiments.conftest import Runs

        return Runs(tmp_path / name)(*overrides)

    return go


@pytest.mark.parametrize(
    "choices", [FIRST_ORDER, SNAPSHOTS, ("optimizer=fzoo",)], ids=["adamw", "hizoo", "fzoo"]
)
@pytest.mark.parametrize("place", ["before the look", "before its row", "behind its row"])
def test_a_kill_in_a_look_at_dev_does_not_lose_the_look(runs, apart, monkeypatch, choices, place):
    """Another step would be selected: the look that was lost is the best one."""
    evaluated, dev = experiments.training.recorder.Recorder._evaluated, experiments.training.run._evaluate

    def dies():
        def row(self, kind, steps, result):
            if (kind, steps) == ("dev", 12) and place == "before its row":
                os._exit(9)
            made = evaluated(self, kind, steps, result)
            if (kind, steps) == ("dev", 12) and place == "behind its row":
                os._exit(9)
            return made

        def look(current, examples):
            if len(current.journal) == 12 and place == "before the look":
                os._exit(9)
            return dev(current, examples)

        experiments.training.recorder.Recorder._evaluated = row
        experiments.training.run._evaluate = look
        launch(runs.arguments(*choices, "stop.every=3"))

    expected = apart(*choices, "stop.every=3")
    assert forking.wait(forking.start(dies)) == 9
    result = runs(*choices, "stop.every=3")
    assert kept(result) == kept(expected)
    assert rows_of(result["folder"]) == rows_of(expected["folder"])
    assert [row["steps"] for row in rows_of(result["folder"]) if row["kind"] == "dev"] == [3, 6, 9, 12]


def test_a_journal_that_is_moved_away_takes_everything_of_its_run_with_it(runs, stopped, rows):
    """Rows, snapshots and seconds of the dead run would be counted as the new one's."""
    choices = ("optimizer=adamw", "select=best", "stop.every=2", "checkpoint.max_replay_minutes=1e-9")
    stopped(7, *choices)
    folder = runs.only()
    metrics = folder / "metrics.jsonl"
    metrics.write_text(
        "".join(json.dumps(row | {"seconds": 7200.0}) + "\n" for row in rows(folder)), encoding="utf-8"
    )
    assert any((folder / "snapshots").iterdir())
    (folder / "journal").rename(folder.parent / "journal of before")
    result = runs(*choices)
    assert result["seconds"] < 3600
    assert all(row["seconds"] < 3600 for row in rows(folder))
    assert [row["kind"] for row in rows(folder)].count("before") == 1


def test_rows_of_a_future_that_was_cut_are_dropped(runs, stopped, rows):
    """A journal that lost its end goes on by the clock, and its old rows would decide which weights are the best."""
    choices = ("optimizer=fzoo", "budget.minutes=60", "stop.every=2")
    stopped(9, *choices)
    folder = runs.only()
    journal = folder / "journal"
    with open(journal, "r+b") as file:
        file.truncate(journal.stat().st_size - 6 * 48 - 5)  # of nine records three are left, one of them torn
    stopped(4, *choices)
    steps = [row["steps"] for row in rows(folder) if row["kind"] == "train"]
    assert steps == [1, 2, 3, 4]
    assert [row["steps"] for row in rows(folder) if row["kind"] == "dev"] == [2, 4]


@pytest.fixture
def finished(runs):
    return runs("optimizer=mezo", "budget.steps=6", "save=false")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    return bytes(data)


@pytest.mark.parametrize("command", ["replay", "export"])
def test_readers_leave_a_damaged_journal_as_it_is(finished, tmp_path, capsys, command):
    journal = finished["folder"] / "journal"
    data = flip(journal, -40)
    capsys.readouterr()
    assert (
        main(
            [
                command,
                str(finished["folder"]),
                *(["--out", str(tmp_path / "o")] if command == "export" else []),
            ]
        )
        == 1
    )
    assert "Record" in (said := capsys.readouterr().err) and "whole" in said
    assert journal.read_bytes() == data
    if command == "replay":  # what stands before the damage can be had
        assert main(["replay", str(finished["folder"]), "--steps", "1"]) == 0


def test_a_damaged_journal_stops_the_run_until_it_is_cut_and_then_ends_as_undisturbed(
    runs, stopped, apart, capsys
):
    choices = ("optimizer=fzoo", "checkpoint.max_replay_minutes=1e-9", "stop.every=2")
    stopped(9, *choices)
    folder = runs.only()
    data = flip(folder / "journal", -48 * 5)
    assert launch(runs.arguments(*choices)) == 1
    assert "is damaged" in capsys.readouterr().err
    assert (folder / "journal").read_bytes() == data
    assert main(["cut", str(folder)]) == 0
    (old,) = folder.glob("journal.damaged*")
    assert old.read_bytes() == data
    result, expected = runs(*choices), apart(*choices)
    assert kept(result) == kept(expected) and rows_of(folder) == rows_of(expected["folder"])
    assert main(["cut", str(folder)]) == 2  # there is nothing to cut


def test_a_damaged_line_of_metrics_is_made_again(runs, stopped, apart, capsys):
    choices = ("optimizer=fzoo", "checkpoint.max_replay_minutes=1e-9", "stop.every=2")
    stopped(9, *choices)
    path = runs.only() / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = b'{"kind": "dev", "st\n'
    path.write_bytes(b"".join(lines))
    capsys.readouterr()
    result, expected = runs(*choices), apart(*choices)
    assert "Line 5 of metrics.jsonl is damaged" in " ".join(capsys.readouterr().out.split())
    assert kept(result) == kept(expected) and rows_of(runs.only()) == rows_of(expected["folder"])
    assert (runs.only() / "metrics.jsonl.damaged").read_bytes() == b"".join(lines)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"half", b"bit"])
def test_a_damaged_result_is_written_again(finished, runs, damage):
    path = finished["folder"] / "result.json"
    content = path.read_bytes()
    at = content.index(b'"after": ') + 9
    changed = {b"half": content[: len(content) // 2], b"bit": content[:at] + b"9" + content[at + 1 :]}
    path.write_bytes(changed.get(damage, damage))
    assert kept(runs("optimizer=mezo", "budget.steps=6", "save=false")) == kept(finished)


def test_what_a_killed_process_left_undone_is_tidied(finished, runs):
    folder = finished["folder"]
    before = sorted(path.name for path in folder.iterdir())
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / "step-00000004.pt").write_bytes(b"x" * 1000)
    for name in (".result.json.7.tmp", "journal.7.tmp"):
        (folder / name).write_text("{", encoding="utf-8")
    (folder / "status.json").write_text('{"state": "running", "steps": 3}', encoding="utf-8")
    (folder / "config.yaml").write_text("", encoding="utf-8")
    runs("optimizer=mezo", "budget.steps=6", "save=false")
    assert sorted(path.name for path in folder.iterdir()) == before
    assert json.loads((folder / "status.json").read_text(encoding="utf-8"))["state"] == "finished"
    assert read_configuration(folder)[1] is None


@pytest.mark.parametrize("name", ["lock", "journal", "metrics.jsonl", "model", "snapshots"])
def test_nothing_is_written_through_a_link(runs, stopped, tmp_path, capsys, name):
    stopped(3, "optimizer=mezo")
    path = runs.only() / name
    precious = tmp_path / "precious"
    if path.is_dir() or name in ("model", "snapshots"):
        shutil.rmtree(path, ignore_errors=True)
        precious.mkdir()
        (precious / "step-00000001.pt").write_text("mine", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)
        precious.write_text("mine", encoding="utf-8")
    before = precious.stat().st_mtime_ns
    path.symlink_to(precious)
    for more in ([], ["--rerun"]):
        assert launch([*runs.arguments("optimizer=mezo"), *more]) == 1
        assert f"{path} is a link to {precious}" in capsys.readouterr().err
    assert precious.stat().st_mtime_ns == before and path.is_symlink()
    assert not precious.is_dir() or (precious / "step-00000001.pt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("damage", ["", "bad: [", "[]", "half", "bytes", "deleted"])
def test_a_damaged_configuration_is_named_and_the_other_runs_are_reported(runs, capsys, damage):
    for seed in (0, 1):
        runs("optimizer=mezo", "budget.steps=2", "save=false", f"seed={seed}", "seeds.split=0")
    path = next(runs.folder.rglob("seed0/config.yaml"))
    content = path.read_text(encoding="utf-8")
    lines = content.splitlines(keepends=True)
    half = "".join(lines[: len(lines) // 2]).encode()
    path.write_bytes({"half": half, "bytes": b"\xff"}.get(damage, damage.encode()))
    if damage == "deleted":
        path.unlink()
    for command in (["status", str(runs.folder)], ["watch", str(runs.folder), "--once"]):
        capsys.readouterr()
        assert main(command) == 1
        said = capsys.readouterr().out
        assert "unreadable" in said and "finished" in said
    assert main(["report", str(runs.folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 unreadable" in said and "the run is left out" in said
    assert "not chosen" not in said and "(1)" in said  # the cell of the whole run stands


def test_a_run_outlives_the_reader_of_its_output_and_a_full_disk_behind_it(runs, apart):
    expected = apart("optimizer=mezo", "save=false", name="expected")
    command = [sys.executable, str(ROOT / "launch.py"), *runs.arguments("optimizer=mezo", "save=false")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}', "bash", *command],
        cwd=ROOT, env=environment, capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (result,) = runs.results()
    assert kept(result) == kept(expected)
    shutil.rmtree(runs.folder)
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=full, stderr=full, timeout=200, check=False
        )
    assert done.returncode == 0
    (result,) = runs.results()
    assert kept(result) == kept(expected)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_closed_terminal_ends_the_step_and_ctrl_c_is_answered_at_once(runs, number):
    process = runs.start("optimizer=mezo", "budget.steps=100000", "save=false")
    while not [path for path in runs.folder.rglob("metrics.jsonl") if path.stat().st_size]:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, number)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == (130 if number == signal.SIGINT else 0), said
    status = json.loads((runs.only() / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["reason"]) == ("stopped", number.name)
    acknowledged = "Stops after this step; Ctrl-C again ends at once."
    assert (acknowledged in said) == (number == signal.SIGINT)
    if number == signal.SIGINT:
        assert said.index(acknowledged) < said.index("Stopped after")


def test_a_full_disk_while_the_model_is_saved_is_one_sentence(runs, monkeypatch, capsys):
    from safetensors import SafetensorError
    from transformers import PreTrainedModel

    def full(self, folder, **more):
        Path(folder).mkdir()
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        assert launch(runs.arguments("optimizer=mezo", "save=true")) == 1
    said = capsys.readouterr().err
    assert "The model could not be saved" in said and "No space left" in said and "Traceback" not in said
    assert not (runs.only() / "result.json").exists() and not (runs.only() / "model.unfinished").exists()
    assert runs("optimizer=mezo", "save=true")["status"] == "finished"
    assert replay.replay(runs.only(), None) == 0


@pytest.mark.parametrize("choices", [FIRST_ORDER, SNAPSHOTS], ids=["adamw", "hizoo"])
def test_a_run_that_an_older_version_began_goes_on(runs, stopped, apart, choices):
    """It bound neither rows nor snapshots to the journal, and config.yaml had no digest."""
    choices = (*choices, "stop.every=3", "checkpoint.max_replay_minutes=1e-9")
    stopped(7, *choices)
    folder = runs.only()
    for card in (folder / "snapshots").glob("*.json"):
        values = json.loads(card.read_text(encoding="utf-8"))
        del values["journal"]
        card.write_text(json.dumps(values), encoding="utf-8")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["journal"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(text[: text.rindex("# sha256")], encoding="utf-8")
    result, expected = runs(*choices), apart(*choices)
    assert kept(result) == kept(expected)
    bare = [{key: value for key, value in row.items() if key != "journal"} for row in rows_of(folder)]
    whole = rows_of(expected["folder"])
    assert bare == [{key: value for key, value in row.items() if key != "journal"} for row in whole]
    assert main(["status", str(folder)]) == 0
