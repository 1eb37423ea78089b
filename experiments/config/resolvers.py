"""A value of conf/ that depends on another one: ${by:KEY,{VALUE: RESULT, ..., other: RESULT}}.

    lr: ${by:peft.name,{none: 1e-6, lora: 1e-4, prefix: 1e-2}}

is looked up when everything is chosen, the command line included. `other` stands for every value that is not named;
without it such a value is refused, and whoever has one sets the key on the command line, which replaces the table.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from experiments.config.problems import one_of
from zo.errors import ConfigError


def by(key: str, table: Mapping[str, Any], *, _root_: Any) -> Any:
    """The entry of a table for the value of a key. Raises ConfigError where there is none."""
    value = OmegaConf.select(_root_, key)
    if value in table:
        return table[value]
    if "other" in table:
        return table["other"]
    raise ConfigError(
        f"The papers give no value for {key}={value}, only for {one_of(list(table))}. Set this key yourself."
    )


OmegaConf.register_new_resolver("by", by, replace=True)
