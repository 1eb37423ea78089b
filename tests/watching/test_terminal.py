"""Runs and `watch` on a real pseudo-terminal: what a person sees, and the terminal afterwards."""

import re
import threading
import time
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.commands.launch import main as launch
from experiments.rundir.folder import RunFolder
from experiments.rundir.lock import Lock
from tests.watching.terminal import Terminal
from tests.watching.test_follow import begun, ends, row

SMALL = ("task.train=16", "task.dev=8", "task.test=8", "batch.size=4", "stop.every=2", "save=false")
CURSOR_AT = re.compile(rb"\x1b\[\?25([hl])")


def command(folder: Path, *overrides: str):
    import experiments.training.run  # noqa: F401  # the child has it then, without the seconds it takes

    return lambda: launch([*SMALL, f"paths.runs={folder / 'runs'}", *overrides])


def found(pattern: str, text: str) -> int:
    """The number that a pattern finds in a text."""
    match = re.search(pattern, text)
    assert match is not None, text
    return int(match[1].replace(",", ""))


def test_a_run_shows_a_panel_and_leaves_the_terminal_as_it_was(tmp_path):
    terminal = Terminal(command(tmp_path, "budget.steps=6"), columns=80, lines=50)
    assert terminal.ended() == 0 and terminal.sane
    shown = terminal.shown
    for said in (
        "100 %  54/54 forwards",
        "train loss",
        "dev accuracy",
        "σ",
        "MiB",
        "step 6: dev accuracy",
        "finished",
    ):
        assert said in shown, shown
    # The lines that were said stand above the panel, the closing table below; the panel is there once.
    assert shown.index("step 6: dev") < shown.index("54/54") < shown.index("accuracy before")
    assert shown.count("╭─") == 1 and shown.count("54/54") == 1


def test_narrow_resized_and_resumed(tmp_path):
    terminal = Terminal(command(tmp_path, "budget.steps=100000", "stop.every=50000"), columns=100, lines=30)
    terminal.until("train loss")
    terminal.resize(60, 30)
    terminal.until("(?m)^╭.{54}╮$")  # 60 columns less the four that stay free
    terminal.press("\x03")
    assert terminal.ended() == 130 and terminal.sane
    done = found(r"Stopped after ([\d,]+) steps", terminal.shown)
    # The same command begins where that one was.
    again = Terminal(command(tmp_path, "budget.steps=100000", "stop.every=50000"), columns=60, lines=30)
    again.until(r"ETA \d+:\d\d")  # once its own pace is known
    assert not re.search("ETA 0:", again.shown)  # as there are 900,000 forwards to do
    assert found(r"([\d,]+)/900,000 forwards", again.shown) > 9 * done
    # The second Ctrl-C ends it at once, and the cursor is there again.
    again.press("\x03\x03")
    assert again.ended() == 130
    assert CURSOR_AT.findall(again.raw)[-1] == b"h" and not again.screen.cursor.hidden
    assert again.after == again.before


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_terminals_that_want_less(tmp_path, environment):
    terminal = Terminal(command(tmp_path, "budget.steps=4"), lines=50, **environment)
    assert terminal.ended() == 0
    assert "36/36 forwards" in terminal.shown
    if environment == {"TERM": "dumb"}:
        assert b"\x1b" not in terminal.raw and terminal.shown.count("/36 forwards") > 2  # plain lines
    else:
        assert not re.search(rb"\x1b\[[\d;]*3[0-7]m", terminal.raw)  # a panel without colours


def test_watch_follows_runs_that_grow_and_come_until_all_have_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.commands.watch._FIND", 0.05)
    first = begun(tmp_path / "m-mezo-none" / "00aa" / "seed0", 10)

    def work() -> None:
        with Lock(first.path / "lock"):
            began.set()
            for step in range(11, 41):
                first.log(row(step))
                time.sleep(0.02)
            second = begun(tmp_path / "m-fzoo-none" / "00bb" / "seed0")
            with Lock(second.path / "lock"):
                for step in range(1, 101):
                    second.log(row(step))
                    time.sleep(0.01)
                ends(second)
            ends(first)

    began = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    began.wait()
    terminal = Terminal(lambda: main(["watch", str(tmp_path), "--every", "0.05"]), columns=120)
    terminal.until("running")
    terminal.until("fzoo 00bb")
    terminal.until("40 %")
    assert terminal.ended() == 0 and terminal.sane
    thread.join()
    assert "2 finished" in terminal.shown and "100 %" in terminal.shown
    assert (
        len([line for line in terminal.shown.splitlines() if "finished" in line]) == 3
    )  # two runs, the totals


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
def test_watch_ends_on_a_key_and_shows_a_run_that_died(tmp_path, key, code):
    run = begun(tmp_path / "m-mezo-none" / "00aa" / "seed0", 10)
    RunFolder(tmp_path / "m-mezo-none" / "00aa" / "seed1").write_config({})
    begun(tmp_path / "m-mezo-none" / "00aa" / "seed1").write_status("queued")
    with Lock(run.path / "lock"):
        terminal = Terminal(lambda: main(["watch", str(tmp_path), "--every", "0.05"]), columns=60)
        terminal.until("running")
    terminal.until("is gone")
    assert "failed" in terminal.shown and "queued" in terminal.shown
    terminal.press(key)
    assert terminal.ended() == code and terminal.sane
