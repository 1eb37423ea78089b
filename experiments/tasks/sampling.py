"""Draws the rows of train, dev and test as the papers' code does.

MeZO takes numpy's permutation of the pool under a seed. LM-BFF takes k rows of each label.
"""

import math
from collections.abc import Sequence

import numpy as np

from zo.errors import DataError


def draw(pool: int, n: int, seed: int) -> list[int]:
    """The first n of the pool's row numbers in the seed's order; all of them where there are fewer."""
    return np.random.RandomState(seed).permutation(pool)[:n].tolist()


def train_and_dev(
    pool: int, train: int, dev: int, dev_share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Returns the row numbers of train and dev, drawn together; dev is the end of the draw.

    Where the pool is smaller than train + dev, dev takes what train leaves, or `dev_share` of the pool if
    that is more, but never more than asked. With dev_share = 1 that is the published rule, which gives dev
    all it asks for: of WSC's 554 rows 54 are left to train on.
    """
    if pool < train + dev:
        dev = min(dev, max(math.floor(pool * dev_share), pool - train))
    rows = draw(pool, train + dev, seed)
    cut = min(train, len(rows) - dev)
    if cut < 1:
        raise DataError(
            f"The train pool has {pool} rows and dev takes {dev} of them, so none is left to train on. "
            f"Lower task.dev or task.dev_share."
        )
    return rows[:cut], rows[cut:]


def k_shot(
    labels: Sequence[int], options: Sequence[str], k: int, seed: int, take: bool = False
) -> tuple[list[int], list[int]]:
    """Row numbers of train and dev: of the pool in the seed's order the first k of each label, and the next k.

    An option with fewer than 2 k rows is refused, or with `take` gives what it has, to train first: LM-BFF's rule,
    under which 512 of TREC are fewer for three of its labels. Labels stand in the order of their first rows.
    """
    order = draw(len(labels), len(labels), seed)
    by_label: dict[int, list[int]] = {}
    for row in order:
        by_label.setdefault(labels[row], []).append(row)
    counts = [len(by_label.get(number, ())) for number in range(len(options))]
    short = [f"{option.strip()} {n}" for option, n in zip(options, counts, strict=True) if n < 2 * k]
    if short and not (take and max(counts) > k):
        raise DataError(
            f"task.k={k} takes {k} examples of each option for train and {k} for dev, but the train split has of "
            f"{', '.join(short)}. Lower task.k{'' if take else ', or set task.scarce=take to use what there is'}."
        )
    train = [row for rows in by_label.values() for row in rows[:k]]
    dev = [row for rows in by_label.values() for row in rows[k : 2 * k]]
    return train, dev
