"""Files that grow, are torn, cut or replaced while someone reads; how runs are and what they are called."""

import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from experiments.__main__ import main
from experiments.commands.watch import Keys, watch
from experiments.launching.states import states
from experiments.launching.submission import submission
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import Lock, holder_of
from experiments.watching.follow import Flock, Tail, eta_of_all, names_of
from experiments.watching.run_table import COLUMNS, Overview, fitting

CONFIG = {
    "optimizer": {"_target_": "zo.optimizers.FZOO"},
    "budget": {"steps": 100, "forward_passes": None, "minutes": None},
}


def row(steps: int, kind: str = "train", **more) -> dict:
    told = {"steps": steps, "forward_passes": 9 * steps, "seconds": 0.5 * steps, "loss": 1 / (1 + steps)}
    return {"kind": kind, **told, **more}


def begun(path: Path, steps: int = 0, state: str = "running", **more) -> RunFolder:
    """A run that has taken so many steps."""
    folder = RunFolder(path)
    folder.write_config(CONFIG)
    folder.write_status(state, steps=0, **more)
    for step in range(1, steps + 1):
        folder.log(row(step))
        if step % 10 == 0:
            folder.log(row(step, "dev", metric="accuracy", value=0.5 + step / 1000))
    return folder


def ends(folder: RunFolder, status: str = "finished") -> None:
    folder.write("result.json", {"status": status, "after": 0.75, "metric": "accuracy", "steps": 100,
                                 "peak_memory_bytes": 300 * 2**20})  # fmt: skip
    folder.write_status(status, steps=100)


def test_each_row_comes_once_and_a_torn_one_when_it_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.new() == ([], False) and tail.age is None
    lines = [json.dumps(row(step)).encode() + b"\n" for step in range(1, 6)]
    path.write_bytes(lines[0] + lines[1][:7])
    assert tail.new() == ([row(1)], False)
    with path.open("ab") as file:
        file.write(lines[1][7:])
        file.flush()
        assert tail.new() == ([row(2)], False) and tail.new() == ([], False)
        file.write(lines[2] + b'{"kind": tor\n' + lines[3])  # a line that no reader can use
        file.flush()
    assert tail.new() == ([row(3), row(4)], False)
    # A process that goes on cuts a torn line and writes another in its place.
    with path.open("ab") as file:
        file.write(lines[4][:9])
    assert tail.new() == ([], False)
    folder = RunFolder(tmp_path)
    os.truncate(path, path.stat().st_size - 9)
    folder.log(row(5))
    assert tail.new() == ([row(5)], False)
    assert tail.age is not None and 0 <= tail.age < 60


def test_bytes_that_come_one_at_a_time_give_the_same_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    data = b"".join(json.dumps(row(step)).encode() + b"\n" for step in range(6))
    tail, got = Tail(path), []
    for i in range(len(data)):
        with path.open("ab") as file:
            file.write(data[i : i + 1])
        rows, anew = tail.new()
        got += rows
        assert not anew
    assert got == [row(step) for step in range(6)]


@pytest.mark.parametrize("longer", [False, True])
def test_a_file_that_is_another_one_is_read_from_its_beginning(tmp_path, longer):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row(step)) + "\n" for step in range(3)))
    tail = Tail(path)
    assert len(tail.new()[0]) == 3
    other = [row(step) | {"seconds": 77.0} for step in range(9 if longer else 2)]
    path.unlink()
    path.write_text("".join(json.dumps(each) + "\n" for each in other))
    assert tail.new() == (other, True)


def test_a_flock_follows_what_runs_do(tmp_path):
    one, other = (
        begun(tmp_path / "a-mezo-none" / "00aa" / "seed0", 20),
        begun(tmp_path / "a-fzoo-none" / "11bb" / "seed0"),
    )
    other.write_status("queued")
    flock = Flock()
    folders = [one.path, other.path]
    with Lock(one.path / "lock"):
        flock.look(folders)
        assert [run.state.state for run in flock.runs] == ["running", "queued"]
        assert flock.names == ["mezo 00aa", "fzoo 11bb"]
        first = flock.runs[0]
        assert first.track.share == 0.2 and first.track.best == 0.52 and not flock.ended
        # 80 steps at half a second each, less what has passed since the row was written.
        assert first.eta is not None and 35 < first.eta <= 40
        one.log(row(21))
        flock.look(folders)
        assert flock.runs[0].track.steps == 21
        # A process that goes on has a pace of its own: its first step of this life is no part of it.
        one.write_status("running", steps=21)
        flock.look(folders)
        assert flock.runs[0].eta is None
        for step in (22, 23):
            one.log(row(step) | {"seconds": 1000.0 + 3 * step})
        flock.look(folders)
        assert flock.runs[0].track.eta() == pytest.approx(77 * 3)
    # Its process has ended and nothing says how: it was killed.
    flock.look(folders)
    assert flock.runs[0].state.state == "failed" and "is gone" in flock.runs[0].state.detail
    ends(other)
    flock.look(folders)
    assert flock.ended and flock.runs[1].state.state == "finished" and flock.runs[1].eta is None
    # Another run of the same folder (--rerun) begins at nothing.
    other.clear()
    other.write_status("running", steps=0)
    other.log(row(1))
    with Lock(other.path / "lock"):
        flock.look(folders)
    assert flock.runs[1].state.state == "running" and flock.runs[1].track.steps == 1


def test_steps_of_a_state_are_of_the_last_whole_row_of_a_long_file(tmp_path):
    folder = begun(tmp_path / "run", 400)
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    assert states([folder.path])[0].steps == 400


def test_names_are_what_tells_runs_apart(tmp_path):
    def named(*places: str) -> list[str]:
        folders = [tmp_path / place for place in places]
        return names_of(folders, [(submission(folder) or {}).get("overrides", []) for folder in folders])

    assert named("m-t-mezo-none/00aa/seed0") == ["m-t-mezo-none seed0"]
    assert named("m-t-mezo-none/00aa/seed0", "m-t-mezo-none/00aa/seed1") == ["seed0", "seed1"]
    assert named("m-t-mezo-none/00aa/seed0", "m-t-fzoo-none/00bb/seed0") == ["mezo 00aa", "fzoo 00bb"]
    assert named("m-t-mezo-none/00aa0/seed0", "m-t-mezo-none/00aa1/seed0") == ["00aa0", "00aa1"]
    assert named("zo-mezo/00aa/seed0", "zo-mezo-momentum/00aa/seed0") == ["mezo", "mezo-momentum"]
    for place, overrides in (
        ("a/b/c", ["task=t", "optimizer=mezo"]),
        ("a/b/d", ["task=t", "optimizer=fzoo"]),
    ):
        RunFolder(tmp_path / place).write("submission.json", {"overrides": overrides})
    assert named("a/b/c", "a/b/d") == ["optimizer=mezo", "optimizer=fzoo"]


@pytest.fixture
def several(tmp_path) -> list[Path]:
    """One of every state, in folders as runs have them."""
    made = [("adamezo", "running"), ("fzoo", "running"), ("mezo", "queued"), ("hizoo", "finished"),
            ("zosign", "failed"), ("lozo", "stopped"), ("zosgd", "diverged")]  # fmt: skip
    folders = []
    for number, (method, state) in enumerate(made):
        folder = begun(
            tmp_path / f"tiny-clm-sentiment-{method}-none" / f"{number:08x}" / "seed0", 10 * number, state
        )
        if state in ("finished", "diverged"):
            ends(folder, state)
        if state == "failed":
            folder.write_status(state, error="ValueError: no such thing")
        folders.append(folder.path)
    return folders


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_a_table_fits_and_tells_what_matters(several, width):
    flock = Flock()
    with Lock(several[0] / "lock"):
        flock.look(several)
    on = Console(file=io.StringIO(), width=width, record=True)
    on.print(Overview(flock))
    text = on.export_text()
    assert max(map(cell_len, text.splitlines())) <= width
    for said in ("running", "queued", "finished", "failed", "stopped", "diverged", "fzoo"):
        assert said in text, (said, text)
    if width >= 60:
        assert "10 %" in text and "53.0 / 53.0" in text and "7 runs   1 running" in text
        assert "process" in text and "is gone" in text  # the second one runs no more
    assert ("300 MiB" in text) == (width >= 140) and ("█" in text) == (width >= 100)


def test_columns_leave_in_an_order():
    widths = [sum(column.width + 2 for column in fitting(width)) for width in range(20, 160)]
    assert all(found <= max(width, 20) for width, found in enumerate(widths, 20))
    assert widths == sorted(widths) and fitting(200) == list(COLUMNS)


def test_a_low_terminal_shows_the_runs_that_go_on(several):
    flock = Flock()
    with Lock(several[1] / "lock"), Lock(several[0] / "lock"):
        flock.look(several)
    on = Console(file=io.StringIO(), width=100, record=True)
    on.print(Overview(flock, height=8))
    lines = on.export_text().splitlines()
    assert (
        len(lines) == 8 and "adamezo" in lines[1] and "fzoo" in lines[2] and lines[4].rstrip() == "and 4 more"
    )
    assert lines[5].endswith("ValueError: no such thing") and lines[6].startswith("7 runs")


def test_once_is_a_table_for_pipes(several, capsys):
    assert main(["watch", "--once", *map(str, several)]) == 1  # one failed
    said = capsys.readouterr().out
    assert said.count("\n") == 13 and "\x1b" not in said
    assert main(["watch", "--once", str(several[3])]) == 0
    assert main(["watch", str(several[0] / "nothing")]) == 2


def test_without_a_terminal_lines_tell_of_changes_until_all_have_ended(tmp_path):
    run = begun(tmp_path / "a" / "b" / "seed0")
    on = Console(file=io.StringIO(), width=200)
    found = [run.path]

    def work() -> None:
        with Lock(run.path / "lock"):
            for step in range(1, 101):
                run.log(row(step, **({"metric": "f1", "value": 0.5, "kind": "dev"} if step == 50 else {})))
                time.sleep(0.005)
            ends(run)

    thread = threading.Thread(target=work)
    thread.start()
    while holder_of(run.path / "lock") is None:
        time.sleep(0.001)
    assert watch(lambda: found, False, 0.01, on) == 0
    thread.join()
    lines = on.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert 4 < len(lines) <= 14  # at most one for each tenth, one for dev, begin and end
    assert lines[0].startswith("a seed0  running") and lines[-1].startswith(
        "a seed0  finished  100 %  900 forwards"
    )
    assert any("dev f1 50.0 %, best 50.0 %" in line for line in lines)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_falls_into_a_finaliser_is_not_lost():
    class Finaliser:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with Keys(Console()) as keys:
        one = Finaliser()
        del one  # what the signal raises in there Python prints and drops
        with pytest.raises(KeyboardInterrupt):
            keys.wait(0.0)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("parallel", "queued", "expected"),
    [(1, 0, 40.0), (1, 2, 140.0), (2, 2, 90.0), (3, 2, 50.0), (None, 1, None)],
)
def test_the_time_of_all_is_that_of_the_queued_runs_too(tmp_path, parallel, queued, expected):
    """One run is at 20 of 100 steps of half a second; a queued one takes 50 s, on the lane that is free first."""
    folders = [begun(tmp_path / "a" / "r" / "seed0", 20)]
    launch = {"name": "slurm"} if parallel is None else {"name": "local", "parallel": parallel}
    for number in range(queued):
        other = begun(tmp_path / "a" / f"q{number}" / "seed0", state="queued")
        other.write("submission.json", {"launch": launch})
        folders.append(other)
    flock = Flock()
    with Lock(folders[0].path / "lock"):
        flock.look([folder.path for folder in folders])
    # A second of leeway for the time that has passed since the row was written.
    found = eta_of_all(flock.runs)
    assert (found is None) if expected is None else (found is not None and expected - 3 < found <= expected)
