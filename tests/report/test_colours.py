"""Colours that colour-blind readers can tell apart, on white and on black."""

from itertools import combinations

import numpy as np
import pytest
import yaml

from experiments.config.compose import CONF
from experiments.config.run_id import method_of
from experiments.report.colours import DARK, DASHES, LIGHT, MAIN, STYLES, style

# Machado, Oliveira, Fernandes 2009, Table 1, severity 1.0; on linear RGB. Usual eyes: nothing changes.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    """sRGB's transfer function undone."""
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(colour, sight):
    """CIE L*a*b* under D65 as the eye of `sight` has it."""
    seen = np.clip(SIGHT[sight] @ linear(colour), 0, 1)
    t = (XYZ @ seen) / (XYZ @ np.ones(3))
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(colour, ground):
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05)."""
    high, low = sorted((XYZ[1] @ linear(colour), XYZ[1] @ linear(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_lab_of_colours_that_are_known():
    # White, and sRGB's red after Lindbloom's calculator.
    assert lab("#ffffff", "usual") == pytest.approx([100, 0, 0], abs=0.01)
    assert lab("#ff0000", "usual") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("ground", ["light", "dark"])
def test_any_two_methods_can_be_told_apart(ground, sight):
    def distance(a, b):
        return float(
            np.linalg.norm(lab(getattr(style(a), ground), sight) - lab(getattr(style(b), ground), sight))
        )

    # 2.3 is just noticeable side by side; what is far apart on a page needs several times that.
    assert min(distance(a, b) for a, b in combinations(MAIN, 2)) > 20
    assert min(distance(a, b) for a, b in combinations(STYLES, 2)) > 8


def test_every_method_that_a_run_can_have_has_a_style_of_its_own():
    """By the names that result.json has, which are not those of conf/optimizer: linearprobe, zeroshot, icl."""
    optimizers = [yaml.safe_load(path.read_text()) for path in (CONF / "optimizer").glob("*.yaml")]
    methods = {
        method_of({"optimizer": optimizer, "task": {"demonstrations": shown}})
        for optimizer in optimizers
        for shown in (0, 32)
    }
    assert methods == set(STYLES), "a method has a line in experiments/report/colours.py"
    assert set(MAIN) <= methods


def test_every_style_stands_out_from_the_ground_and_is_there_once():
    for look in STYLES.values():
        assert contrast(look.light, LIGHT) >= 3 and contrast(look.dark, DARK) >= 3
        assert look.dash in DASHES
    seen = [(look.light, look.dark) for look in STYLES.values()]
    assert len(set(seen)) == len(seen)
    assert len({(look.marker, look.dash) for look in STYLES.values()}) == len(
        STYLES
    )  # in black and white too


def test_a_method_of_ones_own_keeps_its_style():
    assert style("mymethod") == style("mymethod") and style("mymethod") in STYLES.values()
    assert style("mymethod") not in [style(name) for name in MAIN]
