"""python -m experiments report RUNS [--where KEY=VALUE] [--target A] [--beside PAPER] [--out DIR].

Without --out the tables are printed. With it DIR holds index.html, figures/, comparison.json, and in tables/ every
table as Markdown and LaTeX and all numbers as CSV.
"""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.report.comparison import Comparison, comparison
from experiments.report.figures import write_figures
from experiments.report.page import write_page
from experiments.report.records import records
from experiments.report.render import comma_separated, latex, markdown, terminal
from experiments.report.runs import read_runs
from experiments.report.tables import tables
from experiments.report.where import where
from zo.errors import ConfigError


def add(commands: Any) -> None:
    """The command's arguments."""
    command = commands.add_parser("report", help="compare methods: tables, figures, a page")
    command.add_argument("runs", type=Path, nargs="+", help="folders: a sweep's, runs', or one above runs")
    command.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE[,VALUE]",
        help="only runs with it: task, method, model, peft, seed, status, or a key of the configuration; repeatable",
    )  # fmt: skip
    command.add_argument(
        "--target", type=float, metavar="A", help="forward passes to this metric on dev, as 0.8"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="a folder for the page, figures and tables")


def perform(request: argparse.Namespace) -> int:
    """0 done; wrong input as ConfigError, before anything is written."""
    if request.target is not None and not 0 < request.target <= 1:
        raise ConfigError(f"--target {request.target:g}: it is a fraction above 0 and up to 1, such as 0.8.")
    if request.out is not None and (
        request.out.is_file() or request.out.suffix in (".csv", ".md", ".tex", ".html")
    ):
        raise ConfigError(
            f"--out {request.out}: it names a folder, which gets the page, the figures and the tables."
        )
    runs = where(read_runs(request.runs), request.where)
    title = " ".join([*(str(path) for path in request.runs), *request.where])
    made = comparison(runs, title=title, target=request.target)
    console = Console(highlight=False)
    console.print(made.summary)
    if request.out is None:
        undecided = any(cell.chosen is None and cell.tries > 1 for cell in made.cells)
        for table in tables(made):
            if table.name != "settings" or undecided:
                console.print(terminal(table))
        console.print("", *made.notes, "All settings, figures and a page: --out DIR.", sep="\n")
        return 0
    write(made, request.out)
    console.print(f"The report is {request.out}.")
    return 0


def write(made: Comparison, folder: Path) -> None:
    """All files of a report."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(made.to_json())
    for table in tables(made):
        (folder / "tables" / f"{table.name}.md").write_text(markdown(table))
        (folder / "tables" / f"{table.name}.tex").write_text(latex(table))
    for name, rows in records(made).items():
        (folder / "tables" / f"{name}.csv").write_text(comma_separated(rows))
    write_figures(made, folder / "figures")
    write_page(made, folder / "index.html")
