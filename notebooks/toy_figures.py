"""Writes the AdaMeZO paper's toy functions: Table 10, Figure 3 (paths) and Figure 5 (3-D views).

    python -m notebooks.toy_figures --out toy
    python -m notebooks.toy_figures --out toy --functions TF3

The folder gets table-10.md, table-10.tex and table-10.csv (lengths beside the published ones, and losses), and
figure-3 and figure-5 as PNG and PDF. All three functions take about half a minute. Figures need `.[report]`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as python notebooks/toy_figures.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from experiments.display.console import new_console
from experiments.report.render import terminal
from experiments.report.single import write_table
from experiments.report.tables.table import Entry, Table
from notebooks.toy_functions import METHODS, PUBLISHED, TOYS, Paths, Toy, figure, run

NAMES = {"mezo": "MeZO", "adam": "Adam", "adamezo": "AdaMeZO"}
GRID = 120  # points of a surface along each axis
STRIDE = 2  # of them, drawn


def main(argv: Sequence[str]) -> int:
    """Returns 0 when done, 2 for wrong input."""
    parser = argparse.ArgumentParser(
        prog="python -m notebooks.toy_figures",
        description="Table 10 and Figures 3 and 5 of the AdaMeZO paper.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for all files")
    parser.add_argument("--functions", nargs="+", choices=tuple(TOYS), default=list(TOYS))
    options = parser.parse_args(argv)
    if find_spec("matplotlib") is None:
        sys.stderr.write("The figures need matplotlib, which is not here: pip install -e '.[report]'.\n")
        return 2
    if options.out.is_file():
        sys.stderr.write(
            f"--out {options.out}: it is a file. Name a folder, which gets the table and the figures.\n"
        )
        return 2
    paths = {name: {method: run(method, TOYS[name]) for method in METHODS} for name in options.functions}
    written = [*write_table(table_10(paths), rows(paths), options.out), *write_figures(paths, options.out)]
    new_console().print(terminal(table_10(paths)))
    print("\n".join(str(path) for path in written))
    return 0


def rows(paths: Paths) -> list[dict[str, Any]]:
    """Returns Table 10's lines: each path's length, the published one, and the loss at the end."""
    return [
        {
            "function": name,
            "method": NAMES[method],
            "length": path.length,
            "published": published,
            "loss": path.loss,
        }
        for name, by_method in paths.items()
        for (method, path), published in zip(by_method.items(), PUBLISHED[name], strict=True)
    ]


def table_10(paths: Paths) -> Table:
    """Builds the table of lengths with six decimals, beside the published ones."""
    lines = [
        (
            row["function"],
            row["method"],
            f"{row['length']:.6f}",
            f"{row['published']:.6f}",
            f"{row['loss']:.2e}",
        )
        for row in rows(paths)
    ]
    return Table(
        "table-10",
        "AdaMeZO, Table 10: lengths of the paths on the toy functions",
        ("function", "method", "length", "published", "loss"),
        tuple(tuple(Entry(text) for text in line) for line in lines),
        left=2,
        notes=("Published: what the authors' notebook printed.",),
    )


def write_figures(paths: Paths, folder: Path) -> list[Path]:
    """Writes both figures as PNG and PDF; returns the files."""
    import matplotlib

    matplotlib.use("agg")  # no display is needed
    written = []
    for name, drawn in (("figure-3", figure(paths)), ("figure-5", views(paths))):
        for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            path = folder / f"{name}.{suffix}"
            drawn.savefig(
                path, dpi=150, metadata=metadata
            )  # without the time: the same numbers, the same bytes
            written.append(path)
    return written


def views(paths: Paths) -> Any:
    """Returns a matplotlib figure: a surface for each function, log(1 + f) upwards, and each method's path on it."""
    from matplotlib import pyplot

    drawn = pyplot.figure(figsize=(4.6 * len(paths), 4.4))
    for number, (name, by_method) in enumerate(paths.items(), start=1):
        panel: Any = drawn.add_subplot(1, len(paths), number, projection="3d")
        x, y, height = surface(TOYS[name], by_method)
        panel.plot_surface(
            *(each.numpy() for each in (x, y, height)),
            cmap="Greys", alpha=0.35, linewidth=0, rstride=STRIDE, cstride=STRIDE,
        )  # fmt: skip
        for method, path in by_method.items():
            points = path.points
            above = lifted(TOYS[name], points[:, 0], points[:, 1])
            panel.plot(
                points[:, 0].numpy(), points[:, 1].numpy(), above.numpy(), label=NAMES[method], linewidth=1.4
            )
        panel.set_title(f"{name}: {TOYS[name].formula}", fontsize=8)
        panel.set_zlabel("log(1 + f)", fontsize=8)
        panel.view_init(elev=38, azim=-60)
        panel.tick_params(labelsize=7)
    drawn.axes[0].legend(fontsize=8, loc="upper right")
    drawn.tight_layout()
    return drawn


def surface(toy: Toy, by_method: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns x, y and log(1 + f) on a grid that holds every path, [GRID, GRID] each."""
    points = torch.cat([path.points for path in by_method.values()])
    low, high = points.amin(0) - 0.3, points.amax(0) + 0.3
    sides = [torch.linspace(float(a), float(b), GRID) for a, b in zip(low, high, strict=True)]
    x, y = torch.meshgrid(*sides, indexing="xy")
    return x, y, lifted(toy, x, y)


def lifted(toy: Toy, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Returns log(1 + f): the functions span six decades, of which a view in f would show one."""
    return toy.function(x, y).log1p()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
