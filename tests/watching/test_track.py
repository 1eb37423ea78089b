"""Progress, ETA and curves in closed form."""

import math

import pytest

from experiments.display.sparkline import BLOCKS, PLAIN, Curve, sparkline
from experiments.display.track import Goal, Pace, Track, clock, goal_of, mebibytes
from experiments.rundir.metric_rows import AXES


def train(steps: int, seconds: float, cost: int = 9, **more) -> dict:
    return {
        "kind": "train",
        "steps": steps,
        "forward_passes": cost * steps,
        "seconds": seconds,
        "loss": 1.0,
        **more,
    }


def test_a_sparkline_is_linear_from_the_lowest_to_the_highest():
    assert sparkline(range(8), 8) == BLOCKS
    assert sparkline([0, 7], 8) == BLOCKS[0] + BLOCKS[7]
    assert sparkline(range(8), 8, plain=True) == PLAIN
    # Affine maps of the values change nothing; their negatives turn it over.
    values = [3.0, 1.0, 2.1, 2.4]
    assert sparkline([1e6 + 5 * v for v in values], 8) == sparkline(values, 8) == "█▁▅▆"
    assert sparkline([-v for v in values], 8) == "▁█▄▃"
    assert sparkline([2.0, 2.0, 2.0], 8) == "▄▄▄" and sparkline([], 8) == ""


@pytest.mark.parametrize("count", [9, 16, 100, 1001])
def test_more_values_than_columns_are_means_of_equal_parts(count):
    drawn = sparkline(range(count), 8)
    assert drawn == BLOCKS  # parts of a line lie on a line
    assert sparkline([1.0] * (count // 2) + [0.0] * (count - count // 2), 2) == "█▁"


def test_a_curve_keeps_means_of_equally_many_values_however_long_it_is():
    curve = Curve(points=8)
    for value in range(100):
        curve.add(float(value))
        assert len(curve.values) <= 8 + 1
    whole = curve.values[: 100 // curve.each]
    assert curve.each == 16
    assert whole == [math.fsum(range(i, i + 16)) / 16 for i in range(0, 96, 16)]
    assert curve.values[-1] == (96 + 97 + 98 + 99) / 4
    curve.add(math.nan)
    curve.add(None)
    assert curve.values[-1] == (96 + 97 + 98 + 99) / 4


def test_eta_is_what_is_left_at_the_pace_of_this_process():
    track = Track(Goal(steps=100))
    assert track.eta() is None and track.share == 0
    track.take(train(1, 30.0))  # the first step compiles: it is no part of the pace
    assert track.eta() is None
    for steps in range(2, 11):
        track.take(train(steps, 30.0 + 2 * (steps - 1)))
    # 9 steps in 18 seconds, 90 to go: 180 seconds, less what has passed since.
    assert track.eta() == pytest.approx(180) and track.eta(30.0) == pytest.approx(150)
    assert track.eta(1e9) == 0.0
    assert (track.total, track.forwards, track.share) == (900, 90, 0.1)
    assert track.pace.mean == track.pace.now == pytest.approx(4.5)
    # An evaluation counts: it took 9 seconds of 27 for 9 steps.
    track.take({"kind": "dev", "steps": 10, "forward_passes": 90, "seconds": 57.0, "metric": "accuracy", "value": 0.5,
                "loss": 1.0})  # fmt: skip
    assert track.eta() == pytest.approx(90 * 27 / 9)


def test_a_resumed_run_has_the_progress_of_all_and_the_pace_of_its_own_process():
    track = Track(Goal(steps=100))
    for steps in range(1, 51):
        track.take(train(steps, 1.0 * steps), live=False)
    assert track.share == 0.5 and track.eta() is None
    track.take(train(51, 200.0))  # after a wait, and a replay
    track.take(train(52, 203.0))
    assert track.eta() == pytest.approx(48 * 3) and track.forwards == 52 * 9


def test_the_pace_of_the_moment_is_that_of_the_last_seconds():
    pace = Pace()
    for i in range(100):
        pace.mark(float(i), i)
    for i in range(100):
        pace.mark(100.0 + i, 100 + 10 * i)
    assert pace.now == pytest.approx(10) and pace.mean == pytest.approx((100 + 990) / 199, rel=1e-2)


def test_every_kind_of_budget():
    config = {"optimizer": {"_target_": "zo.optimizers.FZOO"}}
    passes = Track(goal_of(config | {"budget": {"steps": None, "forward_passes": 100, "minutes": None}}))
    assert passes.total == 100
    passes.take(train(1, 1.0))
    assert passes.total == 99  # whole steps of 9
    timed = Track(goal_of(config | {"budget": {"steps": None, "forward_passes": None, "minutes": 2}}))
    timed.take(train(1, 30.0))
    assert (timed.total, timed.share, timed.eta(10.0)) == (None, 0.25, 80.0)
    none = goal_of({"optimizer": {"_target_": "experiments.baselines.ZeroShot"}, "budget": {"steps": 5}})
    assert none == Goal() and Track(none).share is None


def test_best_on_dev_is_the_highest_and_the_earliest_of_equal_ones():
    track = Track(Goal(steps=4))
    for steps, value in enumerate((0.5, 0.7, 0.7, 0.6), 1):
        track.take({"kind": "dev", "steps": steps, "forward_passes": steps, "seconds": 1.0, "metric": "f1",
                    "value": value, "loss": 1 - value})  # fmt: skip
    assert (track.dev, track.best, track.best_step, track.metric) == (0.6, 0.7, 2, "f1")


def test_of_equal_values_on_dev_the_best_has_the_lowest_loss_as_it_is_selected():
    """The rule of the selected weights, `experiments.rundir.metric_rows.standing`; a loss that is no number is the highest."""
    track = Track(Goal(steps=4))
    steps = []
    for step, (value, loss) in enumerate(
        [(0.7, None), (0.7, 0.5), (0.7, 0.3), (0.7, math.nan), (0.6, 0.1)], 1
    ):
        track.take({"kind": "dev", "steps": step, "forward_passes": step, "seconds": 1.0, "metric": "f1",
                    "value": value, "loss": loss})  # fmt: skip
        steps.append(track.best_step)
    assert (steps, track.best) == ([1, 2, 3, 3, 3], 0.7)


def test_what_every_row_has_is_nothing_that_the_method_noted():
    track = Track(Goal(steps=4))
    track.take({**train(1, 1.0, sigma=0.5), **dict.fromkeys(AXES, 1)})
    assert track.seen == {"sigma": 0.5}


def test_a_skipped_step_has_no_loss_and_leaves_the_rest():
    track = Track(Goal(steps=4))
    track.take(train(1, 1.0, sigma=0.5, lr=0.1))
    track.take(train(2, 2.0) | {"loss": None})
    assert track.loss is None and track.seen == {"sigma": 0.5} and track.lr == 0.1
    assert track.train.values == [1.0]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-"), (0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (183_840, "2 d 03:04")],
)  # fmt: skip
def test_clock(seconds, said):
    assert clock(seconds) == said


def test_sizes():
    assert (
        mebibytes(None) == "-" and mebibytes(551 * 2**20) == "551 MiB" and mebibytes(80 * 2**30) == "80.0 GiB"
    )
