"""Train, dev and test of a task: its sources read, and rows of them drawn under seeds; without torch."""

import hashlib
import json
from collections.abc import Sequence

from experiments.config.task_config import TaskConfig
from experiments.tasks.data import Table, read_split, world_split
from experiments.tasks.records import Record, records
from experiments.tasks.sampling import draw, k_shot, train_and_dev

_SAMPLE = 32  # rows of each split that stand for the built-in world

Splits = tuple[list[Record], list[Record], list[Record]]


def sources_of(choice: TaskConfig) -> Sequence[Table]:
    """All rows that train and dev are drawn from, and all that test is; none of the built-in world, which makes its
    rows as they are drawn.
    """
    if choice.data_dir is None and choice.source.world is not None:
        return ()
    return read_split(choice, [choice.source.train]), read_split(choice, choice.source.tests)


def digest_of(choice: TaskConfig, sources: Sequence[Table]) -> str:
    """SHA-256 (hex) of the sources' contents, whatever is drawn of them; of the world, rows of a fixed seed."""
    tables = sources or [world_split(choice, split, _SAMPLE, 0) for split in ("train", "dev", "test")]
    total = hashlib.sha256()
    for number, table in enumerate(tables):
        for row in table.rows:
            line = json.dumps([number, row], ensure_ascii=False, sort_keys=True, default=str)
            total.update(line.encode() + b"\n")
    return total.hexdigest()


def draw_splits(
    choice: TaskConfig, fields: list[str], sources: Sequence[Table], seed: int, test_seed: int
) -> Splits:
    """Train and dev of one seed, test of another. As in the papers, test is drawn from the validation split."""
    if not sources:
        sizes = {"train": (choice.train, seed), "dev": (choice.dev, seed), "test": (choice.test, test_seed)}
        tables = [world_split(choice, split, n, drawn) for split, (n, drawn) in sizes.items()]
        train, dev, test = (records(t, choice, fields) if t.rows else [] for t in tables)
        return train, dev, test
    pool = records(sources[0], choice, fields)
    if choice.k is None:
        train_rows, dev_rows = train_and_dev(len(pool), choice.train, choice.dev, choice.dev_share, seed)
    else:
        labels = [record.golds[0] for record in pool]
        train_rows, dev_rows = k_shot(labels, choice.options or (), choice.k, seed, choice.scarce == "take")
    held_out = records(sources[1], choice, fields)
    test_rows = draw(len(held_out), choice.test, test_seed)
    return [pool[i] for i in train_rows], [pool[i] for i in dev_rows], [held_out[i] for i in test_rows]


def fingerprint(splits: Splits) -> str:
    """SHA-256 (hex) over the texts, labels and places of every split."""
    total = hashlib.sha256()
    for name, rows in zip(("train", "dev", "test"), splits, strict=True):
        for r in rows:
            line = [name, r.index, sorted(r.fields.items()), r.golds, r.answers, r.candidates]
            total.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()
