"""Train, dev and test of a task: read, and drawn under a seed; without torch."""

import hashlib
import json

from experiments.config.task_config import TaskConfig
from experiments.tasks.data import read_split, world_split
from experiments.tasks.records import Record, records
from experiments.tasks.sampling import draw, k_shot, train_and_dev

TEST_SEED = 42  # LM-BFF's: with task.k, every seed meets the same test examples

Splits = tuple[list[Record], list[Record], list[Record]]


def draw_splits(choice: TaskConfig, fields: list[str], seed: int) -> Splits:
    """Train, dev and test. As in the papers, test is drawn from the validation split; with task.k always the
    same examples of it, else those of the seed.
    """
    if choice.data_dir is None and choice.source.world is not None:
        sizes = {"train": choice.train, "dev": choice.dev, "test": choice.test}
        tables = [world_split(choice, split, n, seed) for split, n in sizes.items()]
        train, dev, test = (records(t, choice, fields) if t.rows else [] for t in tables)
        return train, dev, test
    pool = records(read_split(choice, [choice.source.train]), choice, fields)
    if choice.k is None:
        train_rows, dev_rows = train_and_dev(len(pool), choice.train, choice.dev, choice.dev_share, seed)
    else:
        labels = [record.golds[0] for record in pool]
        train_rows, dev_rows = k_shot(labels, choice.options or (), choice.k, seed, choice.scarce == "take")
    held_out = records(read_split(choice, choice.source.tests), choice, fields)
    test_rows = draw(len(held_out), choice.test, seed if choice.k is None else TEST_SEED)
    return [pool[i] for i in train_rows], [pool[i] for i in dev_rows], [held_out[i] for i in test_rows]


def fingerprint(splits: Splits) -> str:
    """SHA-256 (hex) over the texts, labels and places of every split."""
    total = hashlib.sha256()
    for name, rows in zip(("train", "dev", "test"), splits, strict=True):
        for r in rows:
            line = [name, r.index, sorted(r.fields.items()), r.golds, r.answers, r.candidates]
            total.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()
