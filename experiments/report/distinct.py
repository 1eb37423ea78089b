"""Finds runs that are one and the same: seeds that changed nothing, and what the other seeds changed.

Two runs of a setting are one run if all that a seed changes is equal: the weights, the rows drawn and their order, and
the answer to every test example. Their numbers are then one number, not two that happen to agree. Runs of an older
version did not write down what they drew; of them the seeds of their configuration and all their numbers are compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.config.acting import noise_of
from experiments.config.run_id import trains
from experiments.report.runs import Run

# Parts of a draw (experiments.tasks.draws) in the words of a table.
PARTS = {
    "directions": "directions",
    "dropout": "dropout",
    "order": "order",
    "train": "train rows",
    "dev": "dev rows",
    "test": "test rows",
    "demonstrations": "demonstrations",
    "start": "new parameters",
}
_OLDER = {"order": "order", "split": "train", "init": "start"}  # keys of `seeds` and the part each decides


def distinct(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Returns the first run of every group of identical ones, in their order.

    A run without a result is a group of its own.
    """
    first_of: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        first_of.setdefault(_identity(run), run)
    return tuple(first_of.values())


def paired_seeds(ours: Sequence[Run], theirs: Sequence[Run]) -> list[int]:
    """Returns the seeds that two settings' runs have in common, without repeated pairs.

    If both runs of a pair are identical to those of another, only the first pair counts.
    """
    counterparts = {run.seed: run for run in theirs}
    seed_of: dict[tuple[Any, ...], int] = {}
    for run in sorted(ours, key=lambda run: run.seed):
        if run.seed in counterparts:
            seed_of.setdefault((_identity(run), _identity(counterparts[run.seed])), run.seed)
    return list(seed_of.values())


def varied(runs: Sequence[Run]) -> tuple[str, ...]:
    """Returns the parts in which runs of one setting differ, in words: what a deviation over them is over."""
    draws = [draw_of(run) for run in runs if run.ended]
    return tuple(words for part, words in PARTS.items() if len({str(draw.get(part)) for draw in draws}) > 1)


def over_words(parts_by_method: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Returns in words what deviations are over; '' if nothing varied.

    Methods with equal parts stand together; their names are omitted if all methods have the same parts.
    """
    methods_of: dict[tuple[str, ...], set[str]] = {}
    for method, parts in parts_by_method:
        methods_of.setdefault(tuple(parts), set()).add(method)
    sets = [
        (", ".join(parts) or "what is not known", ", ".join(sorted(names)))
        for parts, names in sorted(methods_of.items())
    ]
    return "; ".join(parts if len(sets) == 1 else f"{parts} ({names})" for parts, names in sets)


def count_words(seeds: int, runs: int) -> str:
    """Returns "3", or "3 seeds, 1 distinct run" if seeds changed nothing."""
    if seeds == runs:
        return str(runs)
    return f"{seeds} seeds, {runs} distinct run{'s' if runs > 1 else ''}"


def draw_of(run: Run) -> Mapping[str, Any]:
    """Returns what a run drew, part by part; for an older run the seeds of the parts."""
    if run.result is None or "draw" in run.result:
        return (run.result or {}).get("draw", {})
    config, optimizer = run.config, run.config.get("optimizer", {})
    seeds, steps = config.get("seeds", {}), "_target_" in optimizer and trains(config)
    draw = {part: _seed(run, seeds, key) for key, part in _OLDER.items()}
    new = (config.get("peft") or {}).get("name", "none") != "none"
    has_demonstrations = bool((config.get("task") or {}).get("demonstrations"))
    # A version without seeds.test drew test under seeds.split, or with task.k the same for all seeds.
    fixed = (config.get("task") or {}).get("k") is not None and "test" not in seeds
    draw |= {
        "test": None if fixed else _seed(run, seeds, "test" if "test" in seeds else "split"),
        "demonstrations": draw["train"] if has_demonstrations else None,
        "dev": draw["train"] if steps else None,
        "start": draw["start"] if new else None,
    }
    if not steps:
        return draw | {"order": None, "train": draw["train"] if "Probe" in str(optimizer) else None}
    dropped = noise_of(optimizer) == "dropout"
    if dropped and not run.result.get("train_mode"):
        return draw
    return draw | {noise_of(optimizer): run.seed}


def _seed(run: Run, seeds: Mapping[str, Any], key: str) -> int:
    seed = seeds.get(key)
    return run.seed if seed is None else seed


def _identity(run: Run) -> tuple[Any, ...]:
    result = run.result
    if result is None or "model_sha256" not in result:
        return (str(run.folder),)
    if "draw_sha256" in result:
        return result["model_sha256"], result["draw_sha256"], result["answers_sha256"]
    rows = {
        part: seed for part, seed in draw_of(run).items() if part not in ("directions", "dropout", "start")
    }
    numbers = (result.get(name) for name in ("after", "loss_after", "best_dev"))
    return result["model_sha256"], *sorted(map(str, rows.items())), *numbers
