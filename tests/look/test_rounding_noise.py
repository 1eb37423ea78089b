"""How much of what probes tell apart is rounding: against a direct measurement in fp32, and what the warning costs."""

import math
import warnings

import pytest
import torch

from tests import tiny
from zo import FZOO, MeZO, ModuleLook, Weights
from zo.directions import Probe
from zo.look.rounding_noise import DELTA, LIMIT, RoundingNoise, nudged


def test_the_share_is_the_ratio_of_the_variances():
    """Losses a·i plus noise of a known size: share = noise² / (signal² + noise²), here of 4,000 looks."""
    g = torch.Generator().manual_seed(0)
    for size in (0.0, 0.5, 2.0):
        shares = []
        for _ in range(4000):
            signal = torch.tensor([1.0, -1.0]).repeat(4).double()
            first, second = (
                signal * by + size * torch.randn(8, generator=g).double() for by in (1, 1 + DELTA)
            )
            noise = RoundingNoise()
            noise.add(first.tolist(), second.tolist())
            shares.append((noise._noise, noise._seen))
        found = sum(n for n, _ in shares) / sum(s for _, s in shares)
        # The variance of the signal with 7 degrees of freedom is 8/7; the nudge itself is (1/32)² / 2 of it.
        assert found == pytest.approx(size**2 / (size**2 + 8 / 7), abs=0.025)  # of 4,000 draws


def test_nothing_is_said_before_eight_probes_and_looks_of_one_do_not_count():
    noise = RoundingNoise()
    assert noise.wanted([Probe()] * 3) == []
    key = MeZO(tiny.build("opt"), eps=1e-3).ask(0)[0].terms[0][0]
    probe = Probe(((key, 0.5),))
    assert noise.wanted([Probe(), probe]) == []
    assert noise.wanted([Probe(), probe, probe]) == [1, 2]
    assert nudged(probe).terms == ((key, 0.5 * (1 + 1 / 32)),)
    for _ in range(3):
        noise.add([1.0, 2.0], [1.0, 2.0])
        assert noise.share is None
    noise.add([math.nan, 2.0], [1.0, 2.0])
    assert noise.share is None
    noise.add([1.0, 2.0], [1.0, 2.0])
    assert noise.share == 0.0 and noise.wanted([probe, probe]) == []


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_the_share_falls_as_the_slopes_become_those_in_fp32(family):
    """LoRA in fp32 on a bfloat16 model of six layers; the correlation of 16 slopes is the measure beside it."""
    batch, shares, related = tiny.batch(family, 6, 9), [], []
    for eps in (1e-4, 1e-3, 1e-2):
        found = {}
        for dtype in (torch.float32, torch.bfloat16):
            model = tiny.build(family, tiny.Shape(6, 4, 16, 256), dtype=dtype, lora=True)
            for name, parameter in model.named_parameters():
                if "lora" in name:
                    parameter.data = parameter.data.float()
            optimizer = MeZO(Weights(model, kernels="eager"), n=16, eps=eps)
            objective = tiny.FAMILIES[family].objective
            look = ModuleLook(model, objective, optimizer, probes_per_forward=1)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found[dtype] = torch.tensor(look(optimizer.ask(0), batch)).view(-1, 2) @ torch.tensor(
                    [0.5, -0.5]
                )
            warned = [str(w.message) for w in caught if "is rounding in bfloat16" in str(w.message)]
            share = look._rounding_noise.share
            assert (share is None) == (dtype == torch.float32)
            assert bool(warned) == (share is not None and share > LIMIT)
        shares.append(share)
        related.append(float(torch.corrcoef(torch.stack(list(found.values())))[0, 1]))
    assert shares[0] > 0.35 and related[0] < 0.7
    assert shares[2] < 0.05 and related[2] > 0.98
    assert shares == sorted(shares, reverse=True) and related == sorted(related)


def test_it_costs_eight_forward_passes_of_a_16_bit_model_and_none_in_fp32():
    for dtype, cost in ((torch.float32, 0), (torch.bfloat16, 8)):
        model = tiny.build("opt", dtype=dtype)
        for optimizer in (MeZO(Weights(model), eps=2e-2), FZOO(Weights(model), n=8, eps=2e-2)):
            look = ModuleLook(model, tiny.FAMILIES["opt"].objective, optimizer, probes_per_forward=1)
            for t in range(6):
                look(optimizer.ask(t), tiny.batch("opt", 3, 7))
            assert look.check_forward_passes == cost
