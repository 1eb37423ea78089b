"""Writes the report as one HTML file that opens anywhere: no network, no server, no account.

The tables stand in the file as text, so that they can be read, printed and searched without a script. The charts are
drawn by web/charts.js from numbers that lie in the file as JSON, and web/page.js filters, sorts and switches. Whatever
a run brought with it is text: jinja2 escapes it in the tables, `<`, `>` and `&` are written as \\u003c … in the JSON,
and the scripts set textContent, never HTML. A content security policy makes the browser hold to that: it lets the two
scripts run by their SHA-256 alone and loads nothing.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from experiments.report.cells import Cell
from experiments.report.chart_data import (
    Column,
    baselines,
    column_label,
    column_of,
    dev_scores,
    first_order,
    metric_of,
    quantity_label,
)
from experiments.report.colours import DASHES, styles
from experiments.report.comparison import Comparison
from experiments.report.headline import leader
from experiments.report.published import WORDS
from experiments.report.runs import Run
from experiments.report.statistics import Curve
from experiments.report.tables.builders import passes
from experiments.report.tables.table import NOTHING, best, loss_words, p_words, percent

WEB = Path(__file__).parent / "web"
STATUSES = ("finished", "diverged", "failed", "running", "queued", "requeued", "stopped", "new", "missing",
            "unreadable")  # fmt: skip


def write_page(comparison: Comparison, path: Path) -> Path:
    """Writes the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(comparison), encoding="utf-8")
    return path


def page(comparison: Comparison) -> str:
    """Renders the page and returns its text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # late: of the extra `report`

    environment = Environment(
        loader=FileSystemLoader(WEB),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "label": column_label,
        "mebi": mebi,
        "loss": loss_words,
        "p": p_words,
    }
    colours = styles(names(comparison))
    scripts = [(WEB / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js")]
    return environment.get_template("page.html").render(
        c=comparison,
        passes=(table := passes(comparison)),
        passes_rows=list(
            zip_longest(table.rows, [column_of(reach) for reach in comparison.reaches if reach.run_count])
        ),
        columns=[_ColumnView.of(comparison, column) for column in comparison.columns],
        summary=summary(comparison),
        statuses=status_counts(comparison.runs),
        settings_of={
            run.folder: setting
            for cell in comparison.cells
            for setting in cell.settings
            for run in setting.runs
        },
        published=sorted(comparison.published, key=lambda pair: WORDS.index(pair.verdict)),
        verdicts=Counter(pair.verdict for pair in comparison.published),
        scores_of=dev_scores,
        ranked=ranked(comparison),
        colours=colours,
        index={method: i for i, method in enumerate(colours)},
        css=(WEB / "page.css").read_text(encoding="utf-8"),
        data=embedded(payload(comparison)),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        now=datetime.now(UTC),
    )


def ranked(comparison: Comparison) -> list[str]:
    """Returns the methods in row order: by mean if there is one column, else by name."""
    if len(comparison.columns) != 1:
        return list(comparison.methods)
    means = {cell.method: -1.0 if cell.mean is None else cell.mean for cell in comparison.cells}
    return sorted(comparison.methods, key=lambda method: -means[method])


@dataclass(frozen=True)
class _ColumnView:
    """A column of the table of methods. best: its highest mean, as printed."""

    key: Column
    index: int
    metric: str
    best: str | None

    @classmethod
    def of(cls, comparison: Comparison, column: Column) -> "_ColumnView":
        highest = best(comparison.means(column))
        return cls(column, comparison.columns.index(column), metric_of(comparison, column), highest)


def payload(comparison: Comparison) -> dict[str, Any]:
    """Returns the data of the charts; columns by number, metrics in per cent, three to five digits."""
    index = {column: i for i, column in enumerate(comparison.columns)}
    looks = styles(names(comparison))
    return {
        "methods": {
            method: {"colour": f"var(--m{i})", "marker": look.marker, "dash": DASHES[look.dash]}
            for i, (method, look) in enumerate(looks.items())
        },
        "columns": [
            {
                "label": column_label(column),
                "metric": metric_of(comparison, column),
                "baselines": {name: round(100 * x, 3) for name, x in baselines(comparison, column).items()},
            }
            for column in comparison.columns
        ],
        "cells": [_cell(cell, index) for cell in comparison.cells],
        "curves": [
            _curve(curve, index) for curve in comparison.curves
        ],
        "quantities": {curve.quantity: quantity_label(curve.quantity) for curve in comparison.curves},
        "target": None if comparison.target is None else comparison.target_words,
        "reaches": [
            {"method": reach.method, "column": index[column_of(reach)], "reached": list(reach.reached.values()),
             "of": reach.run_count} for reach in comparison.reaches if reach.run_count
        ],
    }  # fmt: skip


def names(comparison: Comparison) -> list[str]:
    """Returns every method the page names: those of the tables in order, then those only in runs and papers."""
    others = {run.method for run in comparison.runs} | {
        pair.published.method for pair in comparison.published
    }
    first = comparison.methods
    return [*first, *sorted(others - set(first))] if comparison.by else sorted({*first, *others})


def _cell(cell: Cell, index: Mapping[Column, int]) -> dict[str, Any]:
    return {
        "method": cell.method,
        "column": index[column_of(cell)],
        "mean": _scaled(cell.mean),
        "deviation": _scaled(cell.deviation),
        "values": [_scaled(value) for value in (cell.chosen.counted if cell.chosen else {}).values()],
        "passes": cell.forward_passes,
        "memory": None if cell.peak_memory_bytes is None else round(cell.peak_memory_bytes / 2**20, 1),
        "step": None if cell.seconds_per_step is None else float(f"{cell.seconds_per_step:.4g}"),
    }


def _curve(curve: Curve, index: Mapping[Column, int]) -> dict[str, Any]:
    factor = 100 if curve.quantity == "dev" else 1
    return {
        "method": curve.method,
        "column": index[column_of(curve)],
        "quantity": curve.quantity,
        "x": _digits(curve.forward_passes),
        "seconds": _digits(curve.seconds),
        "mean": _digits(curve.mean, factor),
        "low": _digits(curve.low, factor),
        "high": _digits(curve.high, factor),
        "n": curve.n,
    }


def embedded(value: Any) -> str:
    """Returns JSON that can stand in a script element: no character of it opens or ends an element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def summary(comparison: Comparison) -> dict[str, Any]:
    """Returns the numbers on top: the leaders with forward passes only and of first order, and the total cost."""
    results = [run.result for run in comparison.runs if run.result]
    return {
        "forward_only": leader([cell for cell in comparison.cells if not first_order(cell)]),
        "first_order": leader([cell for cell in comparison.cells if first_order(cell)]),
        "hours": sum(result.get("seconds") or 0 for result in results) / 3600,
        "passes": sum(result.get("forward_passes") or 0 for result in results),
        "evaluation": sum(result.get("eval_forward_passes") or 0 for result in results),
        "settings": sum(cell.tries for cell in comparison.cells),
    }


def status_counts(runs: Sequence[Run]) -> dict[str, int]:
    """Counts the runs by status, in the order of `STATUSES`; other statuses come last."""
    counts = Counter(run.status for run in runs)
    known = [status for status in STATUSES if counts[status]]
    return {status: counts[status] for status in [*known, *sorted(counts.keys() - set(STATUSES))]}


def number(value: float | None) -> str:
    """Formats three digits, thousands with commas; a dash for None."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def mebi(value: int | None) -> str:
    """Formats bytes as MiB."""
    return number(None if value is None else value / 2**20)


def _scaled(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 3)


def _digits(values: Sequence[float], factor: float = 1) -> list[float]:
    return [float(f"{factor * value:.5g}") for value in values]


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
