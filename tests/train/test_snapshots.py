"""Snapshots: atomic, checked, few."""

import os
import random
from functools import partial

import pytest
import torch

from tests.train import forking
from tests.train.test_journal import limited
from zo import JournalError, Snapshots


def state(step, numel=1000):
    return {
        "weights:a": torch.full((numel,), float(step)),
        "weights:b": torch.full((3,), step, dtype=torch.bfloat16),
    }


def holds(found, step):
    number, tensors = found
    return number == step and all(bool((tensor == step).all()) for tensor in tensors.values())


def test_the_newest_within_the_limit(tmp_path):
    snapshots = Snapshots(tmp_path / "snapshots", keep=3)
    assert snapshots.newest(100) is None and snapshots.steps() == []
    for step in (2, 5, 9):
        snapshots.save(step, state(step))
    assert snapshots.steps() == [2, 5, 9]
    assert holds(snapshots.newest(100), 9) and holds(snapshots.newest(9), 9)
    assert holds(snapshots.newest(8), 5) and holds(snapshots.newest(2), 2)
    assert snapshots.newest(1) is None


def test_the_oldest_go_and_the_pinned_stay(tmp_path):
    snapshots = Snapshots(tmp_path)
    snapshots.pinned = 3
    for step in range(1, 8):
        snapshots.save(step, state(step))
    assert snapshots.steps() == [3, 6, 7]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"step-{step:08d}.{kind}" for step in (3, 6, 7) for kind in ("pt", "json")
    )
    snapshots.drop(6)
    assert snapshots.steps() == [3, 7]


@pytest.mark.parametrize(
    "damage", ["a bit", "half", "no payload", "a broken card", "another card", "an empty card"]
)
def test_a_damaged_one_falls_back_to_the_older(tmp_path, damage):
    snapshots = Snapshots(tmp_path)
    snapshots.save(4, state(4))
    snapshots.save(8, state(8))
    payload, card = tmp_path / "step-00000008.pt", tmp_path / "step-00000008.json"
    content = payload.read_bytes()
    if damage == "a bit":
        payload.write_bytes(content[:500] + bytes([content[500] ^ 4]) + content[501:])
    elif damage == "half":
        os.truncate(payload, len(content) // 2)
    elif damage == "no payload":
        payload.unlink()
    else:
        card.write_text({"a broken card": "{", "another card": '{"step": 8}', "an empty card": ""}[damage])
    assert holds(snapshots.newest(100), 4)
    snapshots.save(8, state(8))
    assert holds(snapshots.newest(100), 8)


def test_a_full_disk_leaves_the_older(tmp_path):
    Snapshots(tmp_path).save(1, state(1))

    def fills():
        with pytest.raises(
            JournalError, match=r"snapshot .*step-00000002.* could not be written.*Free space"
        ):
            Snapshots(tmp_path).save(2, state(2, 1_000_000))

    before = sorted(tmp_path.iterdir())
    assert limited(100_000, fills) == 0
    assert sorted(tmp_path.iterdir()) == before
    assert holds(Snapshots(tmp_path).newest(9), 1)


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="could not be written"):
        Snapshots(tmp_path / "file").save(1, state(1))


def test_killed_while_saving(tmp_path):
    """Signal 9 at random moments: the newest is whole and never older than before, and no litter stays."""
    pick = random.Random(0)
    last, hits = 0, 0

    def saves(start):
        snapshots = Snapshots(tmp_path)
        for step in range(start, start + 1000):
            snapshots.save(step, state(step, 300_000))

    for _ in range(12):
        killed = forking.kill(forking.start(partial(saves, last + 1)), pick.uniform(0.01, 0.15))
        assert killed
        hits += any(tmp_path.glob("*.tmp"))
        found = Snapshots(tmp_path).newest(10**6)
        if found is not None:
            assert found[0] >= last and holds(found, found[0])
            last = found[0]
    assert last > 0
    assert hits > 0  # some of the moments were within a save
    Snapshots(tmp_path).save(last + 1, state(last + 1))
    assert not list(tmp_path.glob("*.tmp"))
    assert len(list(tmp_path.glob("*.pt"))) == len(list(tmp_path.glob("*.json"))) == 2


def test_a_copy_under_another_name_is_no_snapshot(tmp_path):
    """File managers and rsync make them; each was a traceback."""
    snapshots = Snapshots(tmp_path)
    snapshots.save(3, state(3))
    for name in ("step-00000003 (copy).json", "step-x.json", "step-.json", "step-3.json.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert snapshots.steps() == [3]
    assert holds(snapshots.newest(9), 3)


def test_a_snapshot_is_of_the_journal_that_led_to_it(tmp_path):
    snapshots = Snapshots(tmp_path, keep=9)
    for step, digest in ((2, "a2"), (4, "a4"), (6, "b6"), (8, None)):
        snapshots.save(step, state(step), digest)
    assert holds(snapshots.newest(7, lambda step: f"a{step}"), 4)
    assert holds(snapshots.newest(9, lambda step: f"a{step}"), 8)  # an older version bound none
    snapshots.drop_from(7, lambda step: f"a{step}")
    assert snapshots.steps() == [2, 4]
