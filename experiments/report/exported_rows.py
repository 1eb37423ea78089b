"""A comparison as flat rows with numbers in full, for other programs: cells, settings, runs, differences, curves."""

import math
from typing import Any

from experiments.report.cells import Cell, Setting
from experiments.report.comparison import Comparison
from experiments.report.distinct import varied
from experiments.report.statistics import spread

Rows = list[dict[str, Any]]


def records(made: Comparison) -> dict[str, Rows]:
    """Rows of each kind, all with the same keys; metrics are fractions, published numbers per cent."""
    kinds = {
        "cells": [_cell(made, cell) for cell in made.cells],
        "settings": [_setting(cell, setting) for cell in made.cells for setting in cell.settings],
        "runs": _runs(made),
        "differences": _differences(made),
        "passes": _passes(made),
        "ratios": _ratios(made),
        "curves": _curves(made),
        "published": _published(made),
    }
    return {kind: rows for kind, rows in kinds.items() if rows}


def _on(each: Any) -> dict[str, Any]:
    return {"method": each.method, "model": each.model, "task": each.task, "peft": each.peft}


def _cell(made: Comparison, cell: Cell) -> dict[str, Any]:
    over = spread(list(cell.chosen.counted.values())) if cell.chosen and cell.values else None
    row = {
        **_on(cell),
        "metric": cell.metric,
        "setting": cell.chosen.label if cell.chosen else None,
        "settings_tried": cell.tries,
        "chosen": cell.why,
        "dev": cell.chosen.dev if cell.chosen else None,
        "dev_loss": cell.chosen.dev_loss if cell.chosen else None,
        "before": cell.before,
        "mean": cell.mean,
        "deviation": cell.deviation,
        "low": over and over.low,
        "high": over and over.high,
        "n": cell.n,
        "seeds": len(cell.values),
        "varied": ", ".join(cell.varied),
        "forward_passes": cell.forward_passes,
        "seconds": cell.seconds,
        "seconds_per_step": cell.seconds_per_step,
        "peak_memory_bytes": cell.peak_memory_bytes,
        "failed": cell.failed,
        "diverged": cell.diverged,
        "waiting": cell.waiting,
        "missing": cell.missing,
        "learned_nothing": len(cell.learned_nothing),
        **{key: cell.variant.value(key) for key in made.by},
    }
    if made.target is not None:
        mine = [each for each in made.reaches if _on(each) == _on(cell)]
        row |= {
            "target": made.target,
            "target_of": made.target_by,
            "forward_passes_to_target": mine[0].mean if mine else None,
            "runs_that_reached_it": len(mine[0].reached) if mine else None,
            "runs_that_never_did": mine[0].never if mine else None,
        }
    return row


def _setting(cell: Cell, setting: Setting) -> dict[str, Any]:
    return {
        **_on(setting),
        "key": setting.key,
        "setting": setting.label,
        "chosen": setting is cell.chosen,
        "seeds": " ".join(str(run.seed) for run in setting.ended),
        "dev": setting.dev,
        "dev_loss": setting.dev_loss,
        "mean": setting.mean,
        "deviation": setting.deviation,
        "n": len(setting.counted),
        "varied": ", ".join(varied(setting.ended)),
    }


def _runs(made: Comparison) -> Rows:
    names = ("before", "after", "best_dev", "steps", "selected_step", "forward_passes", "backward_passes",
             "eval_forward_passes", "seconds", "peak_memory_bytes", "trainable_parameters", "dropout", "model_sha256",
             "draw_sha256", "answers_sha256")  # fmt: skip
    return [
        {
            **_on(run),
            "seed": run.seed,
            "status": run.status,
            "setting": run.setting,
            "config_hash": run.config_hash,
            "folder": str(run.folder),
            "detail": run.detail,
            **{name: (run.result or {}).get(name) for name in names},
            "dev_loss": run.dev_loss,
            "learned_nothing": run.learned_nothing,
        }
        for run in made.runs
    ]


def _differences(made: Comparison) -> Rows:
    return [
        {
            "model": each.model,
            "task": each.task,
            "peft": each.peft,
            "a": each.a,
            "b": each.b,
            "seeds": " ".join(map(str, each.seeds)),
            "n": each.spread.n,
            "mean": each.spread.mean,
            "deviation": each.spread.deviation,
            "low": each.spread.low,
            "high": each.spread.high,
            "p": each.p,
            "p_holm": each.p_holm,
            "examples": each.examples,
        }
        for each in made.differences
    ]


def _passes(made: Comparison) -> Rows:
    """A row for each run that got to the target or never did: after `short_of` forward passes it was not there."""
    return [
        {
            **_on(each),
            "target": each.target,
            "target_of": made.target_by,
            "seed": seed,
            "forward_passes": each.reached.get(seed),
            "short_of": short,
            "censored": seed not in each.reached,
        }
        for each in made.reaches
        for seed, short in sorted(each.short.items())
    ]


def _ratios(made: Comparison) -> Rows:
    """Open ends are left empty; a mean over several columns has no model, task and peft."""
    names = ("ratio", "low", "high", "spacing_low", "spacing_high")
    return [
        {
            **_on(each),
            "reference": each.reference,
            "columns": each.columns,
            "seeds": " ".join(map(str, each.seeds)),
            **{name: _closed(getattr(each, name)) for name in names},
        }
        for each in made.ratios
    ]


def _closed(value: float | None) -> float | None:
    return value if value and math.isfinite(value) else None


def _curves(made: Comparison) -> Rows:
    names = ("forward_passes", "seconds", "mean", "low", "high", "n")
    return [
        {**_on(curve), "quantity": curve.quantity, **dict(zip(names, point, strict=True))}
        for curve in made.curves
        for point in zip(*(getattr(curve, name) for name in names), strict=True)
    ]


def _published(made: Comparison) -> Rows:
    return [
        {
            **vars(each.published),
            "settings": each.published.settings_text,
            "ours": each.ours,
            "our_deviation": each.deviation,
            "n": each.n,
            "verdict": each.verdict,
        }
        for each in made.published
    ]
