"""Closed forms of the interval of a difference, its inverse, Holm's adjustment, and coverage in a simulation."""

import json
import math
from statistics import NormalDist, fmean, variance

import numpy as np
import pytest

from experiments.report.cells import cells_of
from experiments.report.intervals import Parts, bounded, crossed, holm, is_mean_of, p_value
from experiments.report.runs import read_runs
from experiments.report.statistics import differences
from tests.report.made import run

# Quantiles of t in closed form: 1 degree of freedom tan(π (p − 1/2)), 2 degrees (2p − 1) √(2 / (4 p (1 − p))).
T1, T2 = math.tan(0.475 * math.pi), 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))


def test_the_interval_is_that_of_t_where_the_seeds_are_all_that_varies():
    for seeds, t in ((2, T1), (3, T2)):
        assert Parts(0.04, 0.0, seeds, 200).half_width(0.05) == pytest.approx(t * 0.2, rel=1e-9)


def test_the_interval_is_that_of_t_where_the_examples_are_all_that_varies():
    assert Parts(0.0, 0.04, 3, 3).half_width(0.05) == pytest.approx(T2 * 0.2, rel=1e-9)
    normal = NormalDist().inv_cdf(0.975)
    assert Parts(0.0, 0.04, 3, 10**6).half_width(0.05) == pytest.approx(normal * 0.2, rel=1e-5)


def test_between_the_two_it_is_the_quantiles_weighted_by_the_variances():
    half = Parts(0.03, 0.01, 2, 3).half_width(0.05)
    assert half == pytest.approx((0.03 * T1 + 0.01 * T2) / 0.2, rel=1e-9)


def test_the_parts_are_those_of_two_way_tables_in_closed_form():
    # d_si = r_s + c_i without a residual: the variances are those of r and of c.
    rows, columns = [0.1, 0.3, 0.5], [0.0, 0.2, 0.1, 0.3]
    additive = [[r + c for c in columns] for r in rows]
    zero = [[0.0] * 4 for _ in rows]
    parts = crossed(additive, zero)
    assert parts.seeds == pytest.approx(variance(rows) / 3)
    assert parts.examples == pytest.approx(variance(columns) / 4)
    assert (parts.seed_count, parts.example_count) == (3, 4)
    # Rows and columns of sum zero: all of it is residual. The seeds' part holds it once, the examples' none of it.
    residual = [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]
    assert crossed(residual, [[0.0] * 3] * 2) == Parts(0.0, 0.0, 2, 3)


def test_without_answers_the_bound_is_the_binomial_variance_of_both_and_never_less():
    parts = bounded([0.8, 0.9], [0.5, 0.7], 100)
    assert parts.seeds == pytest.approx(variance([0.3, 0.2]) / 2)
    assert parts.examples == pytest.approx((0.85 * 0.15 + 0.6 * 0.4) / 100)
    rng = np.random.default_rng(0)
    for _ in range(50):  # scores between 0 and 1 of positively correlated arms
        easy = rng.random(40)
        a, b = (((easy + rng.random((3, 40))) / 2).tolist() for _ in range(2))
        bound = bounded([fmean(row) for row in a], [fmean(row) for row in b], 40)
        assert bound.examples > crossed(a, b).examples


def test_p_is_the_level_at_which_the_interval_touches_zero():
    # t of one degree of freedom is Cauchy: p = 1 − 2 atan(|x|) / π. Of two: 1 − |x| / √(2 + x²).
    for x in (0.1, 1.0, 3.0, 40.0):
        assert p_value(-x, Parts(1.0, 0.0, 2, 9)) == pytest.approx(1 - 2 * math.atan(x) / math.pi, rel=1e-9)
        assert p_value(x, Parts(0.0, 1.0, 2, 3)) == pytest.approx(1 - x / math.sqrt(2 + x * x), rel=1e-6)
        both = Parts(0.6, 0.4, 3, 200)
        p = p_value(x, both)
        assert p is not None and both.half_width(p) == pytest.approx(x, rel=1e-9)
    assert p_value(0.0, Parts(1.0, 1.0, 3, 9)) == pytest.approx(1.0)
    assert p_value(0.3, Parts(0.0, 0.0, 3, 0)) is None


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5; the third is not below the second.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0]) and holm([]) == []


def test_a_macro_average_is_no_mean_of_answers():
    assert is_mean_of(0.75, [1, 1, 1, 0]) and not is_mean_of(0.7, [1, 1, 1, 0])
    assert not is_mean_of(0.0, None) and not is_mean_of(0.0, [])


def answers(rng, seeds: int, n: int, skill: float, spread: tuple[float, float, float], easy) -> np.ndarray:
    """Right or wrong by seed and example: a normal latent above zero. spread: of seed, method × example, residual."""
    latent = skill + rng.normal(0, spread[0], (seeds, 1)) + easy + rng.normal(0, spread[1], n)
    return (latent + rng.normal(0, spread[2], (seeds, n)) > 0).astype(float)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    ("name", "spread"),
    # Standard deviations of seed, method × example, residual; that of the examples' difficulty is 1.
    [("of both", (0.15, 0.6, 0.5)), ("of seeds", (0.4, 0.4, 0.4)), ("of single answers", (0.1, 0.2, 1.0))],
)
def test_coverage_is_95_of_100_where_seeds_and_examples_vary(seeds, name, spread):
    """2,000 experiments of 200 examples each; the truth is Φ(skill / total deviation). Fixed random numbers."""
    rng, n, skills, trials = np.random.default_rng(15), 200, (1.0, 0.8), 2000
    total = math.sqrt(1 + sum(deviation**2 for deviation in spread))
    a, b = (NormalDist().cdf(skill / total) for skill in skills)
    covered = bootstrap = 0
    for _ in range(trials):
        easy = rng.normal(0, 1, n)
        arms = [answers(rng, seeds, n, skill, spread, easy) for skill in skills]
        d = arms[0] - arms[1]
        error = abs(d.mean() - (a - b))
        parts = crossed(arms[0].tolist(), arms[1].tolist())
        covered += error <= parts.half_width(0.05)
        # What a bootstrap of the examples gives in the limit of many draws: the normal interval of their means.
        bootstrap += error <= NormalDist().inv_cdf(0.975) * d.mean(0).std() / math.sqrt(n)
    assert 0.93 <= covered / trials <= 0.97
    assert bootstrap / trials < 0.90


def tell(folder, scores) -> None:
    (folder / "answers.json").write_text(json.dumps({"correct": scores}), encoding="utf-8")


def test_a_report_takes_the_answers_where_they_are_and_the_bound_where_not(tmp_path):
    rng = np.random.default_rng(3)
    scores = {m: (rng.random((3, 50)) < p).astype(int).tolist() for m, p in (("FZOO", 0.9), ("MeZO", 0.6))}
    for method, rows in scores.items():
        for seed, row in enumerate(rows):
            folder = run(tmp_path, method, seed, after=fmean(row), n_test=50)
            tell(folder, row)
    (found,) = differences(cells_of(read_runs([tmp_path])))
    parts = crossed(scores["FZOO"], scores["MeZO"])
    assert found.examples == "answers" and found.spread.low is not None and found.spread.high is not None
    assert found.spread.high - found.spread.low == pytest.approx(2 * parts.half_width(0.05))
    assert found.p == found.p_holm == p_value(found.spread.mean, parts)

    tell(folder, [0.5] * 50)  # no mean of this run's metric: all fall back to the bound
    (bound,) = differences(cells_of(read_runs([tmp_path])))
    values = [[fmean(row) for row in scores[m]] for m in ("FZOO", "MeZO")]
    assert bound.examples == "bound" and bound.p == p_value(
        found.spread.mean, bounded(values[0], values[1], 50)
    )
    assert bound.p is not None and found.p is not None and bound.p > found.p


def test_equal_seeds_do_not_make_an_interval_without_width(tmp_path):
    """Runs that differ in nothing but the seed's name: +7.5 [+7.5, +7.5] on 9b8c166."""
    for method, after in (("AdamW", 0.535), ("FZOO", 0.46)):
        for seed in (0, 1):
            run(tmp_path, method, seed, after=after, n_test=200)
    (found,) = differences(cells_of(read_runs([tmp_path])))
    low, high = found.spread.low, found.spread.high
    assert low is not None and high is not None and low < 0 < high
    # Two binomial variances of 200 answers: 1.96 √(0.535 × 0.465 / 200 + 0.46 × 0.54 / 200), as t(199).
    assert high - found.spread.mean == pytest.approx(
        1.972 * math.sqrt((0.535 * 0.465 + 0.46 * 0.54) / 200), rel=1e-3
    )


def test_where_each_seed_draws_its_test_rows_their_variance_is_in_the_seeds_already(tmp_path):
    values = {"FZOO": (0.9, 0.8, 0.85), "MeZO": (0.7, 0.75, 0.7)}
    for method, afters in values.items():
        for seed, after in enumerate(afters):
            run(tmp_path, method, seed, after=after, seeds__test=None)
    (found,) = differences(cells_of(read_runs([tmp_path])))
    pairs = [a - b for a, b in zip(*values.values(), strict=True)]
    assert found.examples == "drawn anew" and found.spread.high is not None
    assert found.spread.high - fmean(pairs) == pytest.approx(T2 * math.sqrt(variance(pairs) / 3))


def test_holm_is_over_all_pairs_of_the_report(tmp_path):
    for task in ("t", "u"):
        for shift, method in enumerate(("FZOO", "LOZO", "MeZO")):
            for seed in range(3):
                run(
                    tmp_path,
                    method,
                    seed,
                    after=0.5 + 0.1 * shift + 0.02 * seed * (shift - 1),
                    task__name=task,
                )
    found = differences(cells_of(read_runs([tmp_path])))
    plain = [each.p for each in found if each.p is not None]
    assert len(plain) == 6 and [each.p_holm for each in found] == pytest.approx(holm(plain))
