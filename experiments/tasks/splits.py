"""Train, dev and test of a task: its sources read, and rows of them drawn under seeds; without torch."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from experiments.config.task_config import TaskConfig
from experiments.tasks.data import Table, read_split, world_split
from experiments.tasks.records import Record, records
from experiments.tasks.sampling import draw, k_shot, train_and_dev
from zo.errors import DataError

_SAMPLE = 32  # rows of each split that stand for the built-in world
CUT_SEED = 42  # of the permutation that task.test_share cuts, whatever the run's seeds
SPLITS: tuple[str, ...] = ("train", "dev", "test")

Shown = tuple[list[list[Record]], list[list[Record]]]
Splits = tuple[list[Record], list[Record], list[Record]]


def sources_of(choice: TaskConfig) -> Sequence[Table]:
    """Returns the tables that train, dev and test are drawn from.

    Empty for the built-in world, which makes its rows as they are drawn.
    """
    if choice.data_dir is None and choice.source.world is not None:
        return ()
    train = read_split(choice, [choice.source.train])
    return (train,) if choice.test_share is not None else (train, read_split(choice, choice.source.tests))


def digest_of(choice: TaskConfig, sources: Sequence[Table]) -> str:
    """SHA-256 (hex) of the sources' contents, whatever is drawn of them; of the world, rows of a fixed seed."""
    tables = sources or [world_split(choice, split, _SAMPLE, 0) for split in ("train", "dev", "test")]
    total = hashlib.sha256()
    for number, table in enumerate(tables):
        for row in table.rows:
            line = json.dumps([number, row], ensure_ascii=False, sort_keys=True, default=str)
            total.update(line.encode() + b"\n")
    return total.hexdigest()


def world_tables(choice: TaskConfig, seed: int, test_seed: int) -> list[Table]:
    """Train and dev of the built-in world under one seed, test under another."""
    sizes = {"train": (choice.train, seed), "dev": (choice.dev, seed), "test": (choice.test, test_seed)}
    return [world_split(choice, split, n, drawn) for split, (n, drawn) in sizes.items()]


def draw_splits(
    choice: TaskConfig, fields: list[str], sources: Sequence[Table], seed: int, test_seed: int
) -> Splits:
    """Train and dev of one seed, test of another. As in the papers, test is drawn from the validation split."""
    if not sources:
        tables = world_tables(choice, seed, test_seed)
        train, dev, test = (records(t, choice, fields) if t.rows else [] for t in tables)
        return train, dev, test
    pool, held_out = _pools(choice, fields, sources)
    if choice.k is None:
        train_rows, dev_rows = train_and_dev(len(pool), choice.train, choice.dev, choice.dev_share, seed)
    else:
        labels = [record.golds[0] for record in pool]
        train_rows, dev_rows = k_shot(labels, choice.options or (), choice.k, seed, choice.scarce == "take")
    test_rows = draw(len(held_out), choice.test, test_seed)
    return [pool[i] for i in train_rows], [pool[i] for i in dev_rows], [held_out[i] for i in test_rows]


def _pools(
    choice: TaskConfig, fields: list[str], sources: Sequence[Table]
) -> tuple[list[Record], list[Record]]:
    """The rows that train and dev are drawn from, and those that test is.

    With task.test_share both are of the train split: of its permutation under CUT_SEED the first are test's.
    """
    pool = records(sources[0], choice, fields)
    if choice.test_share is None:
        return pool, records(sources[1], choice, fields)
    cut = round(len(pool) * choice.test_share)
    if not 0 < cut < len(pool):
        raise DataError(
            f"task.test_share={choice.test_share} of {len(pool)} rows leaves {cut} for test and {len(pool) - cut} for "
            f"the rest; each needs at least one."
        )
    held = set(draw(len(pool), cut, CUT_SEED))
    return [r for n, r in enumerate(pool) if n not in held], [r for n, r in enumerate(pool) if n in held]


def draw_shown(
    choice: TaskConfig, fields: list[str], splits: Splits, sources: Sequence[Table], seed: int
) -> Shown | None:
    """Demonstrations for each example of dev and of test, where every example has its own.

    As MeZO draws them (large_models/tasks.py, sample_train_sets): one generator under the seed gives each example a
    seed below 10,000, under which the train split is permuted. An example is never its own demonstration.
    """
    if not choice.demonstrations or choice.demonstrations_per == "run":
        return None
    train, dev, test = splits
    pool = train
    if sources:
        pool, _ = _pools(choice, fields, sources)
    if choice.demonstrations >= len(pool):
        raise DataError(
            f"task.demonstrations={choice.demonstrations}, but the train split has {len(pool)} examples to show before "
            f"one of them. Lower it."
        )

    def sets(rows: list[Record], own: bool) -> list[list[Record]]:
        seeds = np.random.RandomState(seed).randint(0, 10_000, len(rows))
        some = []
        for row, one in zip(rows, seeds, strict=True):
            drawn = [pool[place] for place in draw(len(pool), choice.demonstrations + 1, int(one))]
            others = [record for record in drawn if not own or record.index != row.index]
            some.append(others[: choice.demonstrations])
        return some

    return sets(dev, own=pool is not train), sets(test, own=False)


def fingerprint(splits: Splits, shown: Shown | None = None) -> str:
    """SHA-256 (hex) over the texts, labels and places of every split, and of the examples' own demonstrations."""
    total = hashlib.sha256()
    parts: list[tuple[str, list[Record]]] = list(zip(SPLITS, splits, strict=True))
    for sets in shown or ():
        parts += [("shown", some) for some in sets]
    for name, rows in parts:
        for r in rows:
            line = [name, r.index, sorted(r.fields.items()), r.golds, r.answers, r.candidates]
            total.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()
