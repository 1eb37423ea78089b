"""Which rows are train, dev and test: as MeZO draws them, numpy's permutation of the pool under a seed."""

import math

import numpy as np

from zo.errors import DataError


def draw(pool: int, n: int, seed: int) -> list[int]:
    """The first n of the pool's row numbers in the seed's order; all of them where there are fewer."""
    return np.random.RandomState(seed).permutation(pool)[:n].tolist()


def train_and_dev(
    pool: int, train: int, dev: int, dev_share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Row numbers of train and dev, drawn together; dev is the end of what is drawn.

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
