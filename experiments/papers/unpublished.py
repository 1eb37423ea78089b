"""Lists the presets' values that no paper prints: which keys, for which method and mode.

A preset has a value for them all the same, chosen here (the comments in its file of conf/experiment say how), so that a
row whose number is printed can be run. `python -m experiments expected` says so beside the number.
"""

from collections.abc import Mapping

from experiments.config.run_config import RunConfig
from experiments.config.run_id import method_of
from experiments.papers import papers

RATES = ("optimizer.lr", "optimizer.eps")
ADAPTERS = ("lora", "prefix")
# Keys by method and mode. MeZO's tables print grids: there only the choice is unknown, not the values.
UNPUBLISHED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("adamezo", "prefix"): RATES,
    **{("hizoo", mode): RATES for mode in ADAPTERS},
    **{("hizool", mode): (*RATES, "optimizer.alpha") for mode in ("none", *ADAPTERS)},
    **{("fzoo", mode): RATES for mode in ("none", *ADAPTERS)},
}
# Exceptions: values printed for some models and tasks, in FZOO's README and Table 14.
PRINTED = {("fzoo", "none"): (("opt-13b", "wsc"), ("opt-125m", "sst2"))}


def unpublished(config: RunConfig) -> str | None:
    """Returns a sentence on the keys of a preset's run that no paper prints a value for, or None."""
    preset = config.experiment
    paper, _, model = preset.partition("/")
    method, mode = method_of(config), config.peft.name
    keys = UNPUBLISHED.get((method, mode), ())
    if (model, config.task.name) in PRINTED.get((method, mode), ()):
        return None
    if paper not in papers() or not keys:
        return None
    mode_text = "with all weights trained" if mode == "none" else f"with peft={mode}"
    return (
        f"{method} {mode_text} on {model}: no paper prints {_joined(keys)} for it; the preset's values are this "
        f"project's choice (conf/experiment/{preset}.yaml). Set them to try others."
    )


def _joined(keys: tuple[str, ...]) -> str:
    return " or ".join([", ".join(keys[:-1]), keys[-1]])
