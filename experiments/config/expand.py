"""Expands overrides with several values into one list for each run, by Hydra's own parser and sweeper.

choice: seed=0,1,2   range: seed=range(0,5)   glob: task=glob(ss*)   sort, shuffle, tag: as Hydra has them.
The combinations come in Hydra's order: the last override changes fastest, a key given twice takes the later.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from experiments.config import compose
from experiments.config.problems import Problem


@contextmanager
def parser() -> Iterator[OverridesParser]:
    """Hydra's parser, which finds the options that a glob means in conf/."""
    with initialize_config_dir(config_dir=str(compose.CONF), version_base="1.3"):
        yield OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


def expand(overrides: Sequence[str]) -> tuple[list[list[str]], list[Problem]]:
    """The overrides of each run, in order, and what cannot be read."""
    problems: list[Problem] = []
    parsed = []
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
            parsed.append(override)
        try:
            (runs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        except HydraException as error:
            return [], [*problems, Problem(" ".join(overrides), str(error).splitlines()[0])]
    return runs, problems


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
