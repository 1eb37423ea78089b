"""The tries of benchmarks/reliability.py come out as they must; here some of each kind, with another seed."""

import itertools
from pathlib import Path

import pytest

from benchmarks import libraries
from benchmarks.faults import TRACEBACK, Faults, child
from benchmarks.reliability import page
from benchmarks.trials import Trials, Try


@pytest.fixture
def trials(tmp_path):
    return Trials(tmp_path, seed=3, every=40)


def wrong(tries):
    return [each for each in tries if each.problem is not None]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kind, every", [("crashes", 1), ("damages", 17), ("disks", 6), ("processes", 5), ("fuzz", 9)]
)
def test_some_of_each_kind_of_try(trials, kind, every):
    trials.warm_up()
    tries = list(itertools.islice(getattr(trials, kind)(), 0, None, every))
    assert tries and wrong(tries) == []


@pytest.mark.slow
def test_two_futures_of_a_cut_journal(tmp_path):
    assert wrong(libraries.futures(tmp_path)) == []


@pytest.mark.slow
def test_every_third_byte_of_a_journal(tmp_path):
    tries = list(libraries.journals(tmp_path))
    assert len(tries) > 300 and wrong(tries) == []


def test_a_rank_that_is_killed(tmp_path):
    assert wrong(libraries.ranks(tmp_path)) == []


def test_the_nth_operation_fails_and_only_that(tmp_path):
    def task(n, kind):
        def work() -> int:
            Faults(tmp_path, n, kind).install()
            for number in range(3):
                (tmp_path / str(number)).mkdir()
            return 0

        return child(work)

    assert task(2, "before").code == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]
    (tmp_path / "0").rmdir()
    assert task(2, "behind").code == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    for path in tmp_path.iterdir():
        path.rmdir()
    failed = task(3, "ENOSPC")
    assert failed.code == TRACEBACK and "No space left on device" in failed.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_the_page_counts_and_names_what_came_out_wrong():
    import argparse

    request = argparse.Namespace(seed=5, every=2, only=[])
    text = page(
        [Try("crash", "1"), Try("crash", "2", "other weights"), Try("disk", "4 KiB")], request, 12.0, 13.0
    )
    assert "--seed 5 --every 2" in text and "3 tries" in text
    assert "| crash | 2 | 1 |" in text and "| disk | 1 | 0 |" in text
    assert "- crash; 2: other weights" in text
    assert Path("docs/reliability.md").name in text
