"""Expands overrides with several values into one list for each run, by Hydra's own parser and sweeper.

choice: seed=0,1,2   range: seed=range(0,5)   glob: task=glob(ss*)   sort, shuffle, tag: as Hydra has them.
The combinations come in Hydra's order: the last override changes fastest, a key given twice takes the later.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException

from experiments.config import compose
from experiments.config.problems import Problem

MAX_RUNS = 10_000  # of one command line; each is composed and listed before any starts


@contextmanager
def parser() -> Iterator[OverridesParser]:
    """Hydra's parser, which finds the options that a glob means in conf/."""
    with initialize_config_dir(config_dir=str(compose.CONF), version_base="1.3"):
        yield OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


def expand(overrides: Sequence[str]) -> tuple[list[list[str]], list[Problem]]:
    """Returns the overrides of each run, in order, and the problems."""
    problems: list[Problem] = []
    parsed: list[Override] = []
    counts: list[float] = []
    with parser() as reading:
        for text in overrides:
            try:
                (override,) = reading.parse_overrides([text])
            except HydraException:
                problems.append(
                    Problem(text, f"{compose.unread(text, compose.groups())} Several: key=a,b,c.")
                )
                continue
            if override.is_sweep_override() and not override.is_discrete_sweep():
                what = "A search draws from an interval: say --trials N. A sweep goes over values."
                problems.append(Problem(text, what))
                continue
            try:
                counts.append(count_values(override))
            except HydraException:
                what = (
                    "The values cannot be listed. Write key=a,b,c, or a range with numbers: key=range(0,5)."
                )
                problems.append(Problem(text, what))
                continue
            parsed.append(override)
        while (count := math.prod(counts)) > MAX_RUNS or 0 in counts:
            place = counts.index(0 if 0 in counts else max(counts))
            size = (
                "no run" if 0 in counts else f"{count:,.0f} runs" if math.isfinite(count) else "endless runs"
            )
            what = f"The values make {size}; a sweep has 1 to {MAX_RUNS:,}. Give fewer values, or launch them in parts."
            problems.append(Problem(str(parsed[place].input_line), what))
            del counts[place], parsed[place]  # the others may be wrong too
        (runs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return runs, problems


def count_values(override: Override) -> float:
    """Returns how many values an override gives; a range is counted without listing it, as it may be endless."""
    value = override.value()
    if isinstance(value, RangeSweep):
        start, stop, step = (float(part or 0) for part in (value.start, value.stop, value.step))
        return max(0, math.ceil((stop - start) / step)) if step else math.inf
    return sum(1 for _ in override.sweep_string_iterator()) if override.is_sweep_override() else 1


def key_of(override: str) -> str:
    """The key or group that an override sets."""
    return override.partition("=")[0].lstrip("+~")


def replaced(below: Sequence[str], above: Sequence[str]) -> list[str]:
    """Returns `below` without what `above` overrides, then `above`; one kind of budget replaces all kinds."""
    keys = {key_of(text) for text in above}
    budget = any(key.partition(".")[0] == "budget" for key in keys)
    kept = [
        text
        for text in below
        if key_of(text) not in keys and not (budget and key_of(text).partition(".")[0] == "budget")
    ]
    return [*kept, *above]
