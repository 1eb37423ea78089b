"""The panel and the table at several widths: nothing is broken, nothing sticks out, what matters stays."""

import io
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from experiments.display.panel import REFRESH, Panel
from experiments.display.progress import Lines, view
from experiments.display.track import Goal

WIDTHS = (60, 80, 120, 200)


def console(width: int, encoding: str = "utf-8", **more) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, width=width, record=True, force_terminal=True, **more)


def filled(on: Console, steps: int = 40) -> Panel:
    """A panel after so many steps of FZOO out of 100, with dev every ten."""
    panel = Panel(on, "tiny-clm-sentiment-fzoo-none seed 0", Goal(steps=100))
    for step in range(1, steps + 1):
        row = {"steps": step, "forward_passes": 9 * step, "seconds": 0.5 * step}
        panel.take({"kind": "train", "loss": 2.0 / step, "sigma": 0.01 * step, "lr": 3.1e-3, **row,
                    "peak_memory_bytes": 551 * 2**20, "tokens": 9 * step * 700.0})  # fmt: skip
        if step % 10 == 0:
            panel.take(
                {"kind": "dev", "metric": "accuracy", "value": 0.5 + step / 100, "loss": 1.0 / step, **row}
            )
    return panel


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_there_and_nothing_sticks_out(width):
    on = console(width)
    on.print(filled(on))
    text = on.export_text()
    for said in (
        "tiny-clm-sentiment-fzoo-none seed 0", "40 %", "360/900 forwards", "ETA 0:30", "train loss", "0.05", "dev loss",
        "0.025", "dev accuracy", "90.0 %", "best 90.0 % at step 40", "σ", "0.4", "lr 0.0031", "18 forwards/s",
        "12,600 tokens/s", "551 MiB", "█", "▁", "0:20",
    ):  # fmt: skip
        assert said in text, (said, text)
    # Four columns stay free for the ^C that the terminal writes itself.
    assert max(map(cell_len, text.splitlines())) <= min(width - 4, 110)
    assert {cell_len(line) for line in text.splitlines()} == {min(width - 4, 110)}


def test_what_does_not_fit_at_all_is_cut_and_never_broken():
    on = console(30)
    on.print(filled(on))
    assert all(cell_len(line) == 26 for line in on.export_text().splitlines())


def test_a_terminal_without_unicode_gets_plain_letters():
    on = console(80, "ascii")
    on.print(filled(on))
    text = on.export_text()
    assert text.isascii() and "sigma" in text and "train loss" in text and "#" in text


def test_no_color_has_the_same_letters():
    one, other = console(80, color_system="truecolor"), console(80, color_system="truecolor", no_color=True)
    written = []
    for each in (one, other):
        each.print(filled(each))
        each.file.flush()
        written.append(each.file.buffer.getvalue().decode())  # type: ignore[attr-defined]
    assert one.export_text() == other.export_text()
    assert "36m" in written[0] and "36m" not in written[1]


def test_a_resumed_run_shows_its_whole_curve_and_no_pace_of_the_past():
    on = console(80)
    panel = Panel(on, "run", Goal(steps=100))
    rows = [
        {"kind": "train", "steps": s, "forward_passes": s, "seconds": s, "loss": 9.0 - s} for s in range(1, 9)
    ]
    panel.recall(rows)
    panel.take(rows[3], replayed=True)
    on.print(panel)
    text = on.export_text()
    assert "8 %" in text and "ETA -" in text and "█▇▆▅▄▃▂▁" in text
    assert "step 4 again from the journal" in text


def test_no_terminal_gets_lines():
    for on in (Console(file=io.StringIO()), Console(file=io.StringIO(), force_terminal=True)):
        assert isinstance(view(on, "run", Goal()), Lines)


def test_lines_are_few_and_tell_of_steps_again_nothing():
    on = Console(file=io.StringIO(), width=100)
    lines = view(on, "run", Goal(steps=1000))
    for s in range(1, 1001):
        row = {
            "kind": "train",
            "steps": s,
            "forward_passes": 2 * s,
            "seconds": s / 10,
            "loss": 1.0,
            "lr": 0.1,
        }
        lines.take(row, replayed=s <= 500)
    said = on.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(said) == 11 and said[-1].startswith("run  2,000/2,000 forwards  loss 1")
    assert "ETA 0:25" in said[-6]  # at 750 of 1000 steps, 10 a second


def test_drawing_takes_less_than_a_hundredth_of_a_core():
    """In seconds of this thread, which other programs do not lengthen: 0.9 ms a drawing where this was written."""
    on = console(100)
    panel = filled(on)
    began = time.thread_time()
    for _ in range(50):
        on.render_lines(panel)
    drawing = (time.thread_time() - began) / 50
    row = {
        "kind": "train",
        "steps": 41,
        "forward_passes": 369,
        "seconds": 20.0,
        "loss": 1.0,
        "sigma": 0.1,
        "lr": 0.1,
    }
    began = time.thread_time()
    for _ in range(1000):
        panel.take(row)
    step = (time.thread_time() - began) / 1000
    assert REFRESH * drawing + 50 * step < 0.01  # with steps as fast as the smallest model's
