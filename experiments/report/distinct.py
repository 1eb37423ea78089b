"""Runs that are one: seeds that changed nothing, and what the others changed.

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
    """The first of every group of runs that are one, in their order; a run without a result is one of its own."""
    kept: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        kept.setdefault(_identity(run), run)
    return tuple(kept.values())


def paired_seeds(ours: Sequence[Run], theirs: Sequence[Run]) -> list[int]:
    """Seeds that two settings' runs both have; of pairs that are one, where both of its runs are, the first alone."""
    others = {run.seed: run for run in theirs}
    kept: dict[tuple[Any, ...], int] = {}
    for run in sorted(ours, key=lambda run: run.seed):
        if run.seed in others:
            kept.setdefault((_identity(run), _identity(others[run.seed])), run.seed)
    return list(kept.values())


def varied(runs: Sequence[Run]) -> tuple[str, ...]:
    """The parts in which runs of one setting differ, in words: what a deviation over them is over."""
    draws = [draw_of(run) for run in runs if run.ended]
    return tuple(words for part, words in PARTS.items() if len({str(draw.get(part)) for draw in draws}) > 1)


def over_words(named: Iterable[tuple[str, Sequence[str]]]) -> str:
    """What deviations are over, of methods with the parts that varied in each: those of equal parts together, and
    without the methods where all have the same; '' without any.
    """
    found: dict[tuple[str, ...], set[str]] = {}
    for method, parts in named:
        found.setdefault(tuple(parts), set()).add(method)
    sets = [
        (", ".join(parts) or "what is not known", ", ".join(sorted(names)))
        for parts, names in sorted(found.items())
    ]
    return "; ".join(parts if len(sets) == 1 else f"{parts} ({names})" for parts, names in sets)


def count_words(seeds: int, runs: int) -> str:
    """3, or where seeds changed nothing: 3 seeds, 1 distinct run."""
    if seeds == runs:
        return str(runs)
    return f"{seeds} seeds, {runs} distinct run{'s' if runs > 1 else ''}"


def draw_of(run: Run) -> Mapping[str, Any]:
    """What a run drew, part by part; of an older one the seeds of its parts stand for them."""
    if run.result is None or "draw" in run.result:
        return (run.result or {}).get("draw", {})
    config, optimizer = run.config, run.config.get("optimizer", {})
    seeds, steps = config.get("seeds", {}), "_target_" in optimizer and trains(config)
    draw = {part: _seed(run, seeds, key) for key, part in _OLDER.items()}
    new = (config.get("peft") or {}).get("name", "none") != "none"
    shown = bool((config.get("task") or {}).get("demonstrations"))
    # A version without seeds.test drew test under seeds.split, or with task.k the same for all seeds.
    fixed = (config.get("task") or {}).get("k") is not None and "test" not in seeds
    draw |= {
        "test": None if fixed else _seed(run, seeds, "test" if "test" in seeds else "split"),
        "demonstrations": draw["train"] if shown else None,
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
    given = seeds.get(key)
    return run.seed if given is None else given


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
