"""Metrics on answers whose score is known."""

import pytest

from experiments.tasks.metrics import exact_match, f1, normalise, wilson


def test_answers_are_normalised_as_squad_does():
    assert normalise(" The  Quick, brown fox's (A) den! ") == "quick brown foxs den"
    assert exact_match("the Eiffel tower.", ["Eiffel Tower", "x"]) == 1.0
    assert exact_match("Eiffel", ["Eiffel Tower"]) == 0.0


def test_f1_counts_words_that_both_have():
    assert f1("in the old house", ["old house"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert f1("house house", ["house"]) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert f1("tree", ["old house", "a tree"]) == 1.0
    assert f1("", ["house"]) == 0.0
    assert f1("no answer", ["no answer"]) == 1.0
    assert f1("an answer", ["no answer"]) == 0.0


def test_wilsons_interval():
    low, high = wilson(0.5, 100)  # from the formula by hand: 0.5 ± 0.0962
    assert (low, high) == (pytest.approx(0.40383, abs=1e-5), pytest.approx(0.59617, abs=1e-5))
    assert wilson(0.0, 10)[0] == pytest.approx(0.0, abs=1e-12)
    assert wilson(1.0, 10) == (pytest.approx(0.72246, abs=1e-5), pytest.approx(1.0))
