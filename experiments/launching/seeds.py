"""Finds sweeps over seeds that change nothing before they start: all of their runs would be identical."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.acting import noise_of
from experiments.config.run_config import RunConfig, plain
from experiments.config.run_id import method_of
from experiments.models.dropping import configured_dropout

Drawn = Mapping[str, bool]  # each of `seeds`, and whether this run uses what it draws


def drawn(config: RunConfig, steps: int, family: str, dropout: float) -> Drawn:
    """Returns the parts of a run that are drawn at random.

    dropout: the largest probability in the model's configuration.
    """
    reads_train = steps > 0 or method_of(config) == "linearprobe"
    noise = noise_of(config.optimizer.options)
    dropped = (
        config.optimizer.options.get("dropout") and max(dropout, configured_dropout(plain(config.peft))) > 0.0
    )
    return {
        "split": reads_train or config.task.demonstrations > 0,
        "test": True,
        "order": steps > 0,
        "init": config.peft.name not in ("none", "bitfit", "layers") or family == "classifier",
        "directions": steps > 0 and noise == "directions",
        "dropout": steps > 0 and noise == "dropout" and bool(dropped),
    }


def copies(runs: Iterable[tuple[RunConfig, Path, Drawn]]) -> list[str]:
    """Returns a sentence for each setting whose seeds change nothing.

    A run is given as configuration, folder and what it draws.
    """
    settings: dict[Path, list[tuple[RunConfig, Drawn]]] = {}
    for config, folder, parts in runs:
        settings.setdefault(folder.parent, []).append((config, parts))
    equal = []
    for some in settings.values():
        config, parts = some[0]
        used = [kind for kind, uses in parts.items() if uses]
        if len(some) > 1 and all(getattr(config.seeds, kind) is not None for kind in used):
            equal.append(_sentence(config, [config.seed for config, _ in some], used))
    return list(dict.fromkeys(equal))


def _sentence(config: RunConfig, seeds: Sequence[Any], used: Sequence[str]) -> str:
    fixed = ", ".join(f"seeds.{kind}={getattr(config.seeds, kind)}" for kind in used)
    one = next((kind for kind in ("order", "split") if kind in used), used[0])
    where = f"{method_of(config)} on {config.task.name}"
    return (
        f"seed={','.join(map(str, seeds))} changes nothing for {where}: all that it draws is fixed ({fixed}), so these "
        f"{len(seeds)} runs are one. Give one seed, or seeds.{one}=null."
    )
