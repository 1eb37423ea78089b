"""Draws the report's figures as PNG and PDF for papers and slides: one file each, a panel per model and task.

The same numbers give the same bytes: no time is written into a file, and no display is needed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.report.cells import Cell
from experiments.report.chart_data import Column, baselines, column_label, column_of, metric_of
from experiments.report.colours import Style, styles
from experiments.report.comparison import Comparison
from experiments.report.distinct import over_words

MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle": "^",
    "diamond": "D",
    "down": "v",
    "cross": "X",
    "star": "*",
    "plus": "P",
}
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
INK, GREY, RULE = "#1d1f23", "#676c75", "#dcdcd8"
LOOK: Any = {  # matplotlib's types know its settings by name
    "axes.axisbelow": True, "axes.edgecolor": GREY, "axes.grid": True, "axes.labelcolor": INK, "axes.labelsize": 9,
    "axes.spines.right": False, "axes.spines.top": False, "axes.titlelocation": "left", "axes.titlesize": 10,
    "font.size": 9, "grid.color": RULE, "grid.linewidth": 0.6, "legend.frameon": False, "pdf.fonttype": 42,
    "text.color": INK, "xtick.color": GREY, "ytick.color": GREY,
}  # fmt: skip

Panel = Callable[[Any, Comparison, Column], bool]


def write_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes every figure that has numbers; returns the files."""
    panels: dict[str, Panel] = {
        "curves": _curves,
        "dev-loss": _losses,
        "by-method": _by_method,
        "forward-passes-to-target": _to_target,
        "peak-memory": _memory,
        "seconds-per-step": _step,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [file for name, panel in panels.items() for file in _write(comparison, folder / name, panel)]


def _write(comparison: Comparison, path: Path, panel: Panel) -> list[Path]:
    """Draws a grid of panels without those that have no number; writes no file if all are empty."""
    import matplotlib as mpl  # late: of the extra `report`
    from matplotlib.figure import Figure

    columns = [c for c in comparison.columns if panel(None, comparison, c)]
    if not columns:
        return []
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(max(5.6, 3.9 * across), 3.5 * down), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for axes, column in zip(grid, columns, strict=False):
            axes.set_title(column_label(column))
            panel(axes, comparison, column)
        for axes in grid[len(columns) :]:
            axes.set_visible(False)
        if panel in (_curves, _losses):
            _legend(figure, comparison)
        files = [path.with_suffix(".png"), path.with_suffix(".pdf")]
        figure.savefig(files[0], dpi=160, metadata={"Software": None})
        figure.savefig(files[1], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return files


def _legend(figure: Any, comparison: Comparison) -> None:
    """Draws one legend for all panels, below them."""
    from matplotlib.lines import Line2D

    methods = [
        m for m in comparison.methods if any(c.method == m and c.quantity == "dev" for c in comparison.curves)
    ]
    looks = styles(comparison.methods)
    lines = [Line2D([], [], **_line(looks[method]), label=method) for method in methods]
    figure.legend(handles=lines, loc="outside lower center", ncols=min(6, len(lines)))


def _line(look: Style) -> dict[str, Any]:
    return {"color": look.light, "marker": MARKERS[look.marker], "linestyle": DASHES[look.dash], "markersize": 4,
            "linewidth": 1.6}  # fmt: skip


def _curves(axes: Any, comparison: Comparison, column: Column) -> bool:
    """Draws the metric on dev against forward passes, with the band over seeds."""
    return _over_training(axes, comparison, column, "dev", f"{metric_of(comparison, column)} on dev, %", 100)


def _losses(axes: Any, comparison: Comparison, column: Column) -> bool:
    """Draws the loss on dev against forward passes, with the band over seeds."""
    return _over_training(axes, comparison, column, "dev loss", "loss on dev", 1)


def _over_training(
    axes: Any, comparison: Comparison, column: Column, quantity: str, label: str, factor: float
) -> bool:
    curves = [c for c in comparison.curves if column_of(c) == column and c.quantity == quantity]
    if axes is None or not curves:
        return bool(curves)
    looks = styles(comparison.methods)
    for curve in curves:
        x, look = curve.forward_passes, looks[curve.method]
        axes.plot(x, [factor * value for value in curve.mean], **_line(look))
        if max(curve.n) > 1:
            low, high = ([factor * value for value in values] for values in (curve.low, curve.high))
            axes.fill_between(x, low, high, color=look.light, alpha=0.13, linewidth=0)
    axes.set_xlabel("forward passes (a backward pass counts as 3)")
    axes.set_ylabel(label)
    return True


def _by_method(axes: Any, comparison: Comparison, column: Column) -> bool:
    """Draws the test metric of each seed, the mean, and a deviation to each side."""
    cells = [c for c in _cells(comparison, column) if c.mean is not None]
    cells.sort(key=lambda cell: cell.mean or 0)
    if axes is None or not cells:
        return bool(cells)
    looks = styles(comparison.methods)
    for y, cell in enumerate(cells):
        colour, mean, off = looks[cell.method].light, 100 * (cell.mean or 0), 100 * (cell.deviation or 0)
        axes.plot(
            _percent(list(cell.chosen.counted.values()) if cell.chosen else []),
            [y] * cell.n,
            "o",
            color=colour,
            alpha=0.35,
            markersize=4,
        )
        axes.errorbar(
            mean, y, xerr=off or None, color=colour, marker="o", markersize=6, linewidth=1.6, capsize=3
        )
    for name, value in baselines(comparison, column).items():
        axes.axvline(100 * value, color=GREY, linewidth=0.8, linestyle=":" if name == "majority" else "--")
        axes.annotate(
            name, (100 * value, len(cells) - 0.5), fontsize=7, color=GREY, rotation=90, va="top", ha="right"
        )
    axes.set_yticks(range(len(cells)), [f"{cell.method} ({cell.n})" for cell in cells])
    axes.set_ylim(-0.6, len(cells) - 0.4)
    varied = over_words((cell.method, cell.varied) for cell in cells if cell.deviation is not None)
    label = f"{metric_of(comparison, column)} on test, %: seeds, mean ± deviation (n)"
    axes.set_xlabel(f"{label}\n± over {varied}" if varied else label)
    return True


def _to_target(axes: Any, comparison: Comparison, column: Column) -> bool:
    """Draws bars to the mean of the runs that got there; a hollow bar to the end of the budget if none did."""
    reaches = [r for r in comparison.reaches if column_of(r) == column and r.run_count]
    if axes is None or not reaches:
        return bool(reaches)
    looks = styles(comparison.methods)
    for y, reach in enumerate(reversed(reaches)):
        cell = comparison.cell(reach.method, column)
        colour, spent = looks[reach.method].light, (cell.forward_passes or 0) if cell else 0
        if reach.mean is None:
            axes.barh(y, spent, color="none", edgecolor=colour, linestyle="--", height=0.62)
            label = f" never ({reach.run_count} of {reach.run_count})"
        else:
            axes.barh(y, reach.mean, color=colour, height=0.62)
            axes.plot(list(reach.reached.values()), [y] * len(reach.reached), "|", color=INK)
            label = f" {reach.mean:,.0f}" + (
                f", never: {reach.never} of {reach.run_count}" if reach.never else ""
            )
        axes.annotate(label, (spent if reach.mean is None else max(reach.reached.values()), y), va="center",
                      fontsize=8)  # fmt: skip
    _label_methods(axes, [reach.method for reach in reversed(reaches)])
    subject = f"{metric_of(comparison, column)} on dev is" if comparison.target_by == "metric" else "on dev"
    axes.set_xlabel(f"forward passes until {subject} {comparison.target_words}")
    return True


def _memory(axes: Any, comparison: Comparison, column: Column) -> bool:
    return _bars(
        axes, comparison, column, "peak memory, MiB", lambda cell: (cell.peak_memory_bytes or 0) / 2**20
    )


def _step(axes: Any, comparison: Comparison, column: Column) -> bool:
    return _bars(axes, comparison, column, "seconds per step", lambda cell: cell.seconds_per_step or 0)


def _bars(
    axes: Any, comparison: Comparison, column: Column, label: str, height: Callable[[Cell], float]
) -> bool:
    """Draws a bar with its number for each method that has one."""
    cells = [cell for cell in _cells(comparison, column) if height(cell)]
    if axes is None or not cells:
        return bool(cells)
    looks = styles(comparison.methods)
    for y, cell in enumerate(reversed(cells)):
        axes.barh(y, height(cell), color=looks[cell.method].light, height=0.62)
        axes.annotate(f" {short(height(cell))}", (height(cell), y), va="center", fontsize=8)
    _label_methods(axes, [cell.method for cell in reversed(cells)])
    axes.set_xlabel(label)
    return True


def short(value: float) -> str:
    """Returns three digits, thousands with commas."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _label_methods(axes: Any, methods: Sequence[str]) -> None:
    axes.set_yticks(range(len(methods)), methods)
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)


def _cells(comparison: Comparison, column: Column) -> list[Cell]:
    return [cell for cell in comparison.cells if column_of(cell) == column]


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]
