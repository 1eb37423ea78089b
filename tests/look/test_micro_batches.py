"""A step's batch in parts of different widths: evaluated one by one, summed as if it were one."""

import pytest
import torch
from torch import nn

from zo import ClosureLook, MeZO, ModuleLook
from zo.look import MicroBatches
from zo.look.look import cut, length

ROWS = (3, 1, 4)


def parts(*lengths, width=5):
    whole = torch.randn(sum(lengths), width, generator=torch.Generator().manual_seed(0))
    return whole, MicroBatches({"x": part} for part in whole.split(lengths))


def test_rows_are_counted_and_cut_over_the_parts():
    whole, micro = parts(*ROWS)
    assert length(micro) == 8
    for start in range(8):
        for stop in range(start + 1, 9):
            pieces = cut(micro, start, stop)
            assert isinstance(pieces, MicroBatches)
            assert torch.equal(torch.cat([piece["x"] for piece in pieces]), whole[start:stop])


def elementwise(weights, batch):
    """One row's loss has the same bits whatever rows are beside it."""
    x = batch["x"]
    return (weights["w"][0] * x[:, 0] - x[:, 1]).square(), x[:, 2].abs()


def test_the_sum_is_exact_whatever_the_parts():
    whole, micro = parts(*ROWS)
    optimizer = MeZO([("w", nn.Parameter(torch.ones(1)))], eps=1e-2)
    look = ClosureLook(elementwise, optimizer)
    probes = optimizer.ask(0)
    expected = look.sums(probes, {"x": whole})
    assert look.sums(probes, micro) == expected
    assert look.sums(probes, MicroBatches(reversed(micro))) == expected
    assert look.forward_passes == 6  # two probes, three times: parts are no further passes


@pytest.mark.parametrize("micro", [None, 2])
def test_parts_of_other_widths_are_each_evaluated_as_they_are(micro):
    """Stacked, with widths of 3 and 5, against each part alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.GELU(), nn.Linear(8, 1))
    optimizer = MeZO(model, eps=1e-2, n=2)

    def losses(model, batch):
        return model(batch["x"][..., None]).square().mean((1, 2)), torch.full(
            (len(batch["x"]),), batch["x"].shape[1]
        )

    batches = [{"x": torch.randn(rows, width)} for rows, width in ((4, 3), (2, 5))]
    look = ModuleLook(model, losses, optimizer, micro=micro, probes_per_forward="all")
    together = look.sums(optimizer.ask(0), MicroBatches(batches))
    alone = [
        ModuleLook(model, losses, optimizer, micro=micro).sums(optimizer.ask(0), part) for part in batches
    ]
    for pair, *single in zip(together, *alone, strict=True):
        assert pair[1] == sum(weight for _, weight in single)
        assert pair[0] == pytest.approx(sum(loss for loss, _ in single), rel=1e-15)  # rounded once, not twice
    assert look.forward_passes == 4
