"""Closed forms: the interval of t, paired differences, forward passes to a target, curves."""

import math
from statistics import fmean, stdev
from typing import Any

import pytest

from experiments.report.cells import cells_of
from experiments.report.runs import read_runs
from experiments.report.statistics import curves, differences, reach, spread
from experiments.rundir.metric_rows import AXES
from tests.report.made import dev_rows, run, train_rows


def test_the_interval_is_that_of_t():
    values = [0.7, 0.8, 0.9]
    found = spread(values)
    # t(2 degrees of freedom) has the closed quantile (2p − 1) √(2 / (4 p (1 − p))): 4.3027 at p = 0.975.
    t = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    assert (found.n, found.mean) == (3, pytest.approx(0.8))
    assert found.deviation == pytest.approx(0.1)
    assert found.low == pytest.approx(0.8 - t * 0.1 / math.sqrt(3), rel=1e-12)
    assert found.high == pytest.approx(0.8 + t * 0.1 / math.sqrt(3), rel=1e-12)
    # Of two values t has one degree of freedom, the Cauchy distribution: tan(0.95 π / 2).
    pair = spread([0.0, 1.0])
    assert pair.high == pytest.approx(
        0.5 + math.tan(0.95 * math.pi / 2) * math.sqrt(0.5) / math.sqrt(2), rel=1e-12
    )


def test_one_value_has_a_mean_and_nothing_else():
    found = spread([0.4])
    assert (found.n, found.mean, found.deviation, found.low, found.high) == (1, 0.4, None, None, None)


def test_the_interval_shifts_and_scales_with_the_values():
    values = [0.1, 0.4, 0.2, 0.9]
    one, other = spread(values), spread([3 - 2 * value for value in values])
    assert one.low is not None and one.high is not None
    assert (other.low, other.high) == (pytest.approx(3 - 2 * one.high), pytest.approx(3 - 2 * one.low))


def test_differences_are_paired_over_common_seeds_alone(tmp_path):
    a = {0: 0.60, 1: 0.75, 2: 0.70, 5: 0.10}
    b = {0: 0.55, 1: 0.65, 2: 0.68, 7: 0.99}
    for method, values in {"FZOO": a, "MeZO": b}.items():
        for seed, value in values.items():
            run(tmp_path, method, seed, after=value)
    (found,) = differences(cells_of(read_runs([tmp_path])))
    pairs = [a[seed] - b[seed] for seed in (0, 1, 2)]
    assert (found.a, found.b, found.seeds) == ("fzoo", "mezo", (0, 1, 2))
    # Nothing is known of the test examples here, so the interval is that of t over the seeds.
    assert found.examples == "unknown" and found.spread.low == pytest.approx(spread(pairs).low)
    assert found.spread.deviation == pytest.approx(stdev(pairs))
    # What all seeds of both methods share cancels, so a pair's interval is not that of two means.
    assert stdev(pairs) < stdev([a[seed] for seed in (0, 1, 2)])


def test_methods_without_a_common_seed_or_task_have_no_difference(tmp_path):
    run(tmp_path, "FZOO", 0)
    run(tmp_path, "MeZO", 1)
    run(tmp_path, "LOZO", 0, task__name="u")
    assert differences(cells_of(read_runs([tmp_path]))) == ()


def test_forward_passes_to_a_target_are_those_of_the_first_look_that_has_it(tmp_path):
    run(tmp_path, seed=0, rows=dev_rows(0.5, 0.8, 0.7))
    run(tmp_path, seed=1, rows=dev_rows(0.5, 0.6, 0.9))
    run(tmp_path, seed=2, rows=dev_rows(0.5, 0.6, 0.7))
    run(tmp_path, seed=3, rows=dev_rows(0.5), after=None, status="stopped")  # it may still get there
    (cell,) = cells_of(read_runs([tmp_path]))
    found = reach(cell, 0.8)
    assert (found.reached, found.run_count, found.never, found.mean) == ({0: 20, 1: 30}, 3, 1, 25)
    assert (reach(cell, 0.95).reached, reach(cell, 0.95).never) == ({}, 3)
    assert reach(cell, 0.95).mean is None
    # A lower target is never later.
    assert all(reach(cell, 0.6).reached[seed] <= passes for seed, passes in found.reached.items())


def test_a_curve_is_the_mean_of_its_runs_with_the_lowest_and_the_highest(tmp_path):
    lines = [(0.5, 0.6, 0.7), (0.6, 0.8, 0.9), (0.4, 0.7, 0.8)]
    for seed, values in enumerate(lines):
        run(tmp_path, seed=seed, rows=dev_rows(*values))
    (cell,) = cells_of(read_runs([tmp_path]))
    curve = next(each for each in curves(cell) if each.quantity == "dev")
    assert curve.forward_passes == (10, 20, 30) and curve.seconds == (1, 2, 3) and curve.n == (3, 3, 3)
    for i, column in enumerate(zip(*lines, strict=True)):
        assert curve.mean[i] == pytest.approx(fmean(column))
        assert (curve.low[i], curve.high[i]) == (min(column), max(column))


def test_runs_that_look_at_other_steps_meet_on_the_line_between_their_looks(tmp_path):
    # Both lie on the line 0.3 + x / 100, looked at every 10 and every 15 forward passes; one ends earlier.
    run(tmp_path, seed=0, rows=dev_rows(0.4, 0.5, 0.6, every=10))
    run(tmp_path, seed=1, rows=dev_rows(0.45, 0.6, 0.75, every=15))
    (cell,) = cells_of(read_runs([tmp_path]))
    curve = next(each for each in curves(cell) if each.quantity == "dev")
    assert curve.forward_passes == (10, 15, 20, 30, 45) and curve.n == (1, 2, 2, 2, 1)
    for x, mean in zip(curve.forward_passes, curve.mean, strict=True):
        assert mean == pytest.approx(0.3 + x / 100)


def test_what_an_optimizer_reports_is_a_curve_of_few_points(tmp_path):
    losses = [1 / (i + 1) for i in range(1000)]
    run(tmp_path, rows=train_rows(*losses, sigma=[0.1] * 1000))
    (cell,) = cells_of(read_runs([tmp_path]))
    found = {each.quantity: each for each in curves(cell)}
    assert set(found) == {"train loss", "sigma"} and set(found["sigma"].mean) == {0.1}
    loss = found["train loss"]
    assert len(loss.mean) == 200 and (loss.mean[0], loss.mean[-1]) == (losses[0], losses[-1])
    assert loss.forward_passes[-1] == 2000


def test_what_a_run_took_so_far_is_an_axis_and_no_curve(tmp_path):
    took: dict[str, Any] = {
        name: [1, 2] for name in AXES if name not in ("steps", "forward_passes", "seconds")
    }
    run(tmp_path, rows=train_rows(0.5, 0.4, sigma=[0.1, 0.2], lr=[1e-3, 1e-4], **took))
    (cell,) = cells_of(read_runs([tmp_path]))
    assert {each.quantity for each in curves(cell)} == {"train loss", "sigma", "lr"}


def test_a_look_at_dev_without_a_number_reaches_no_target(tmp_path):
    rows = dev_rows(0.5, 0.8)
    rows[0] |= {"value": None, "loss": None}
    run(tmp_path, rows=rows)
    (cell,) = cells_of(read_runs([tmp_path]))
    assert reach(cell, 0.8).reached == {0: 20}
    assert {each.quantity: each.mean for each in curves(cell)} == {
        "dev": (0.8,),
        "dev loss": (pytest.approx(0.2),),
    }


def test_a_step_takes_the_time_between_train_rows_without_a_look_at_dev_between(tmp_path):
    rows = train_rows(1.0, 1.0, 1.0, 1.0)  # half a second each
    rows.insert(
        2, {"kind": "dev", "steps": 2, "value": 0.5, "loss": 1.0, "forward_passes": 4, "seconds": 9.0}
    )
    for row in rows[3:]:
        row["seconds"] += 9.0
    run(tmp_path, rows=rows)
    (cell,) = cells_of(read_runs([tmp_path]))
    assert cell.seconds_per_step == 0.5
