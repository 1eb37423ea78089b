"""Exports a comparison as flat rows with numbers in full: cells, settings, runs, differences, curves."""

import math
from typing import Any

from experiments.report.cells import Cell, Setting
from experiments.report.comparison import Comparison
from experiments.report.distinct import varied
from experiments.report.statistics import spread

Rows = list[dict[str, Any]]


def records(comparison: Comparison) -> dict[str, Rows]:
    """Returns rows of each kind, all with the same keys; metrics are fractions, published numbers per cent."""
    kinds = {
        "cells": [_cell(comparison, cell) for cell in comparison.cells],
        "settings": [_setting(cell, setting) for cell in comparison.cells for setting in cell.settings],
        "runs": _runs(comparison),
        "differences": _differences(comparison),
        "passes": _passes(comparison),
        "ratios": _ratios(comparison),
        "curves": _curves(comparison),
        "published": _published(comparison),
    }
    return {kind: rows for kind, rows in kinds.items() if rows}


def _place(value: Any) -> dict[str, Any]:
    return {"method": value.method, "model": value.model, "task": value.task, "peft": value.peft}


def _cell(comparison: Comparison, cell: Cell) -> dict[str, Any]:
    interval = spread(list(cell.chosen.counted.values())) if cell.chosen and cell.values else None
    row = {
        **_place(cell),
        "metric": cell.metric,
        "setting": cell.chosen.label if cell.chosen else None,
        "settings_tried": cell.tries,
        "chosen": cell.why,
        "dev": cell.chosen.dev if cell.chosen else None,
        "dev_loss": cell.chosen.dev_loss if cell.chosen else None,
        "before": cell.before,
        "mean": cell.mean,
        "deviation": cell.deviation,
        "low": interval and interval.low,
        "high": interval and interval.high,
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
        **{key: cell.variant.value(key) for key in comparison.by},
    }
    if comparison.target is not None:
        reached = [reach for reach in comparison.reaches if _place(reach) == _place(cell)]
        row |= {
            "target": comparison.target,
            "target_of": comparison.target_by,
            "forward_passes_to_target": reached[0].mean if reached else None,
            "runs_that_reached_it": len(reached[0].reached) if reached else None,
            "runs_that_never_did": reached[0].never if reached else None,
        }
    return row


def _setting(cell: Cell, setting: Setting) -> dict[str, Any]:
    return {
        **_place(setting),
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


def _runs(comparison: Comparison) -> Rows:
    names = ("before", "after", "best_dev", "steps", "selected_step", "forward_passes", "backward_passes",
             "eval_forward_passes", "seconds", "peak_memory_bytes", "trainable_parameters", "dropout", "model_sha256",
             "draw_sha256", "answers_sha256")  # fmt: skip
    return [
        {
            **_place(run),
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
        for run in comparison.runs
    ]


def _differences(comparison: Comparison) -> Rows:
    return [
        {
            "model": difference.model,
            "task": difference.task,
            "peft": difference.peft,
            "a": difference.a,
            "b": difference.b,
            "seeds": " ".join(map(str, difference.seeds)),
            "n": difference.spread.n,
            "mean": difference.spread.mean,
            "deviation": difference.spread.deviation,
            "low": difference.spread.low,
            "high": difference.spread.high,
            "p": difference.p,
            "p_holm": difference.p_holm,
            "examples": difference.examples,
        }
        for difference in comparison.differences
    ]


def _passes(comparison: Comparison) -> Rows:
    """Returns a row for each run that evaluated on dev; at `short_of` forward passes it had not reached the target."""
    return [
        {
            **_place(reach),
            "target": reach.target,
            "target_of": comparison.target_by,
            "seed": seed,
            "forward_passes": reach.reached.get(seed),
            "short_of": short,
            "censored": seed not in reach.reached,
        }
        for reach in comparison.reaches
        for seed, short in sorted(reach.short.items())
    ]


def _ratios(comparison: Comparison) -> Rows:
    """Returns a row for each ratio; open ends are empty, and a mean over columns has no model, task and peft."""
    names = ("ratio", "low", "high", "spacing_low", "spacing_high")
    return [
        {
            **_place(ratio),
            "reference": ratio.reference,
            "columns": ratio.columns,
            "seeds": " ".join(map(str, ratio.seeds)),
            **{name: _closed(getattr(ratio, name)) for name in names},
        }
        for ratio in comparison.ratios
    ]


def _closed(value: float | None) -> float | None:
    return value if value and math.isfinite(value) else None


def _curves(comparison: Comparison) -> Rows:
    names = ("forward_passes", "seconds", "mean", "low", "high", "n")
    return [
        {**_place(curve), "quantity": curve.quantity, **dict(zip(names, point, strict=True))}
        for curve in comparison.curves
        for point in zip(*(getattr(curve, name) for name in names), strict=True)
    ]


def _published(comparison: Comparison) -> Rows:
    return [
        {
            **vars(pair.published),
            "settings": pair.published.settings_text,
            "ours": pair.ours,
            "our_deviation": pair.deviation,
            "n": pair.n,
            "verdict": pair.verdict,
        }
        for pair in comparison.published
    ]
