"""Splits: numpy's permutation under the seed, dev from the end of what is drawn."""

import json

import numpy as np
import pytest

from experiments.tasks.sampling import draw, train_and_dev
from zo.errors import DataError

from ..models.tiny import conf, load_task


def test_rows_are_drawn_as_mezo_draws_them():
    np.random.seed(13)
    wanted = np.random.permutation(5000).tolist()
    train, dev = train_and_dev(5000, 1000, 500, dev_share=0.4, seed=13)
    assert (train, dev) == (wanted[:1000], wanted[1000:1500])
    assert draw(5000, 1000, seed=13) == wanted[:1000]


def test_drawing_leaves_the_global_generator_alone():
    np.random.seed(3)
    wanted = np.random.rand()
    np.random.seed(3)
    train_and_dev(50, 10, 5, dev_share=0.4, seed=1)
    assert np.random.rand() == wanted


@pytest.mark.parametrize(
    ("pool", "train", "dev", "share", "sizes"),
    [
        (2000, 1000, 500, 0.4, (1000, 500)),
        (1500, 1000, 500, 0.4, (1000, 500)),
        (250, 1000, 100, 0.4, (150, 100)),  # CB as published
        (400, 1000, 100, 0.4, (300, 100)),  # COPA as published
        (554, 1000, 500, 0.4, (333, 221)),  # WSC, a sane split
        (554, 1000, 500, 1.0, (54, 500)),  # WSC as published
        (550, 100, 500, 0.4, (100, 450)),  # what train leaves
        (250, 1000, 0, 0.4, (250, 0)),
    ],
)
def test_small_pools(pool, train, dev, share, sizes):
    one, two = train_and_dev(pool, train, dev, share, seed=0)
    assert (len(one), len(two)) == sizes
    assert len({*one, *two}) == sum(sizes)


def test_nothing_left_to_train_on_is_an_error():
    with pytest.raises(DataError, match=r"none is left to train on.*task\.dev"):
        train_and_dev(400, 1000, 500, dev_share=1.0, seed=0)


def test_splits_are_functions_of_their_seed_and_disjoint(clm, shared):
    choice = conf("task", "sst2", data_dir=str(shared / "data" / "sst2"), train=100, dev=50, test=60)

    def rows(seed):
        task = load_task(choice, clm, seed, seed)
        return [[e.index for e in split] for split in (task.train, task.dev, task.test)]

    train, dev, test = rows(0)
    assert rows(0) == [train, dev, test]
    assert (len(train), len(dev), len(test)) == (100, 50, 60)
    assert not {*train} & {*dev}
    assert all(one != two for one, two in zip(rows(0), rows(1), strict=True))


def test_the_worlds_splits_are_its_own(clm):
    task = load_task(conf("task", "sentiment", train=30, dev=20, test=25), clm)
    sentences = [{e.fields["sentence"] for e in split} for split in (task.train, task.dev, task.test)]
    assert [len(s) for s in sentences] == [30, 20, 25]
    assert len(set.union(*sentences)) == 75
    again = load_task(conf("task", "sentiment", train=30, dev=20, test=25), clm)
    other = load_task(conf("task", "sentiment", train=30, dev=20, test=25), clm, seed=1)
    assert again.fingerprint == task.fingerprint != other.fingerprint
    assert again.sources == task.sources == other.sources


def test_test_has_a_seed_of_its_own(clm, shared):
    for choice in (
        conf("task", "sst2", data_dir=str(shared / "data" / "sst2"), train=50, dev=20, test=30),
        conf("task", "sentiment", train=30, dev=20, test=25),
    ):
        one, other, third = (load_task(choice, clm, *seeds) for seeds in ((0, 0), (1, 0), (1, 1)))
        assert one.test == other.test != third.test
        assert (one.train, one.dev) != (other.train, other.dev) == (third.train, third.dev)


def test_the_sources_are_all_rows_that_could_be_drawn(clm, tmp_path):
    """One that no seed of these drew counts, and where the files lie does not."""
    rows = [{"sentence": f"film {i}", "label": i % 2} for i in range(40)]

    def task(folder, rows):
        folder.mkdir()
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_task(conf("task", "sst2", data_dir=str(folder), train=4, dev=2, test=2), clm)

    one, copied = task(tmp_path / "a", rows), task(tmp_path / "b", rows)
    drawn = {e.index for split in (one.train, one.dev, one.test) for e in split}
    unread = next(i for i in range(40) if i not in drawn)
    rows[unread] = {**rows[unread], "sentence": "another"}
    changed = task(tmp_path / "c", rows)
    assert one.fingerprint == changed.fingerprint
    assert one.sources == copied.sources != changed.sources
