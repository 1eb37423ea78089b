"""Tokens: the closed form is the sum over batches of what their attention masks let through."""

import pytest

from experiments.config.compose import compose
from experiments.training.session import build
from experiments.training.token_count import TokenCount


@pytest.mark.parametrize("steps", range(12))
def test_whole_epochs_and_a_part_of_one(steps):
    lengths, orders = [3, 1, 4, 1, 5], {0: [4, 3, 2, 1, 0], 1: [0, 2, 4, 1, 3]}
    count = TokenCount(lengths, 2, lambda epoch: orders[epoch % 2], cost=9)
    places = [orders[place // 5 % 2][place % 5] for place in range(2 * steps)]
    assert count(steps) == 9 * sum(lengths[place] for place in places)


@pytest.mark.parametrize(
    "choices",
    [
        [],
        ["model=tiny-mlm"],
        ["task=question", "task.objective=answer"],
        ["task.objective=metric", "optimizer=mezo"],
    ],
    ids=" ".join,
)
def test_of_a_run_it_is_what_the_batches_hold(choices):
    config = compose([*choices, "task.train=21", "task.dev=4", "task.test=4", "batch.size=4"]).config
    assert config is not None
    session = build(config)
    seen = sum(int(session.batch(t)["attention_mask"].sum()) for t in range(13))
    assert session.token_count()(13) == session.step_cost * seen
