"""Decides which classes the configuration of a run's folder may name. Importing runs a module; folders are passed on.

Without being asked, zo's own modules are imported, and those that an installed package offers for it: an entry point
of the group "zo" in its pyproject.toml,

    [project.entry-points.zo]
    mine = "mypackage.optimizers"

Any other module must be named on the command line. Nothing is imported to find that out.
"""

from collections.abc import Collection
from importlib.metadata import entry_points

from experiments.config.run_config import CALLS, RunConfig
from zo.errors import ConfigError

OWN = ("zo", "experiments")
GROUP = "zo"


def check_targets(config: RunConfig, allowed: Collection[str] = ()) -> None:
    """Raises ConfigError that lists every `_target_` whose module this user has not installed for zo, or allowed."""
    problems = []
    offered = {*allowed, *(point.value.partition(":")[0] for point in entry_points(group=GROUP))}
    for section in CALLS:
        target = getattr(config, section).target
        module = target.rpartition(".")[0]
        if module and module.partition(".")[0] not in OWN and module not in offered:
            problems.append(
                f"{section}._target_ = {target} is no class of zo's. Importing it would run code that this run's "
                f"folder names, so nothing was imported. If you trust {module}: --allow {module}."
            )
    if problems:
        raise ConfigError("\n".join(problems))
