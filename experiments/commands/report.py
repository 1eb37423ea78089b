"""python -m experiments report RUNS [--where KEY=VALUE] [--by KEY] [--passes-to A] [--beside PAPER] [--out DIR].

Without --out the tables are printed. With it DIR holds index.html, figures/, comparison.json, and in tables/ every
table as Markdown and LaTeX and all numbers as CSV.
"""

import argparse
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.commands.arguments import runs_folder
from experiments.config.problems import Problem
from experiments.display.console import new_console
from experiments.papers import papers, published
from experiments.report.comparison import Comparison, comparison
from experiments.report.exported_rows import records
from experiments.report.figures import write_figures
from experiments.report.filters import select_runs
from experiments.report.headline import headlines
from experiments.report.page import write_page
from experiments.report.passes import parse_target
from experiments.report.render import comma_separated, latex, markdown, terminal
from experiments.report.runs import read_runs
from experiments.report.tables.builders import tables
from experiments.report.tables.paper_tables import not_run
from experiments.report.tables.table import Table
from experiments.rundir.code_places import install
from zo.errors import ConfigError

PACKAGES = ("jinja2", "matplotlib", "scipy")  # of the extra `report`, for --out


def add(commands: Any) -> None:
    """The command's arguments."""
    command = commands.add_parser("report", help="compare methods: tables, figures, a page")
    command.add_argument(
        "runs", type=runs_folder, nargs="+", help="folders: a sweep's, runs', or one above runs"
    )
    command.add_argument(
        "--where", action="append", default=[], type=_condition, metavar="KEY=VALUE[,VALUE]",
        help="only runs with it: task, method, model, peft, seed, status, or a key of the configuration; repeatable",
    )  # fmt: skip
    command.add_argument(
        "--by", action="append", default=[], metavar="KEY",
        help="rows and curves for each value of a key that was swept, as optimizer.horizon; once or twice",
    )  # fmt: skip
    command.add_argument(
        "--passes-to", "--target", type=_target, metavar="A",
        help="forward passes to this metric on dev, as 0.8, or to a loss there, as loss=0.5",
    )  # fmt: skip
    command.add_argument(
        "--reference",
        metavar="METHOD",
        help="with --passes-to: ratios to this method's; default: mezo if it is there",
    )
    command.add_argument(
        "--beside", action="append", default=[], type=_paper, metavar="PAPER",
        help=f"lay a paper's published numbers beside: {', '.join(papers())}; repeatable",
    )  # fmt: skip
    command.add_argument(
        "--title", metavar="TEXT", help="the page's heading; default: the folders and conditions"
    )
    command.add_argument(
        "--out", type=_out_folder, metavar="DIR", help="a folder for the page, figures and tables"
    )
    command.rules += [_reference_alone, _by_and_beside]


def perform(request: argparse.Namespace) -> int:
    """0 done; wrong input as ConfigError, before anything is written."""
    numbers = [number for paper in dict.fromkeys(request.beside) for number in published(paper)]
    runs = select_runs(read_runs(request.runs), request.where)
    title = request.title or " ".join([*(path.resolve().name for path in request.runs), *request.where])
    smoke = any(text.startswith("experiment=") for text in request.where)  # then they are asked for, or not
    target, target_by = (None, "metric") if request.passes_to is None else parse_target(request.passes_to)
    compared = comparison(
        runs,
        title=title,
        target=target,
        target_by=target_by,
        reference=request.reference,
        by=request.by,
        published=numbers,
        smoke=smoke,
    )
    console = new_console()
    console.print(compared.summary)
    for sentence in headlines(compared):
        console.print(sentence, highlight=False, soft_wrap=True)
    if request.out is None:
        _show(compared, console)
        return 0
    write(compared, request.out)
    console.print(f"The report is {request.out / 'index.html'}.", soft_wrap=True)
    return 0


def write(compared: Comparison, folder: Path) -> None:
    """All files of a report."""
    parts: dict[str, list[Table]] = {}
    for table in tables(compared):
        parts.setdefault(table.file, []).append(table)
    texts = {f"{name}.md": "\n".join(markdown(table) for table in group) for name, group in parts.items()}
    texts |= {f"{name}.tex": "\n".join(latex(table) for table in group) for name, group in parts.items()}
    texts |= {f"{name}.csv": comma_separated(rows) for name, rows in records(compared).items()}
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / "tables" / name).write_text(text, encoding="utf-8")
    (folder / "comparison.json").write_text(compared.to_json(), encoding="utf-8")
    write_figures(compared, folder / "figures")
    write_page(compared, folder / "index.html")


def _condition(text: str) -> str:
    if not all(text.partition("=")):
        raise ConfigError("Write KEY=VALUE or KEY=VALUE,VALUE, such as task=sst2.")
    return text


def _target(text: str) -> str:
    parse_target(text)
    return text


def _paper(text: str) -> str:
    published(text)
    return text


def _out_folder(text: str) -> Path:
    out = Path(text)
    if out.is_file() or out.suffix in (".csv", ".md", ".tex", ".html"):
        raise ConfigError("It names a folder, which gets the page, the figures and the tables.")
    if lacking := [name for name in PACKAGES if find_spec(name) is None]:
        raise ConfigError(
            f"The page and the figures need {', '.join(lacking)}, which {_are(lacking)} not here: "
            f"{install('report')}. Without --out the tables are printed."
        )
    return out


def _reference_alone(given: Collection[str]) -> Problem | None:
    if "reference" not in given or "passes_to" in given:
        return None
    what = "It is the method that --passes-to compares with. Add --passes-to, such as --passes-to 0.8."
    return Problem("--reference", what)


def _by_and_beside(given: Collection[str]) -> Problem | None:
    if not {"by", "beside"} <= set(given):
        return None
    what = (
        "--by shows each value of a key, and --beside judges the setting that dev chose among them. Ask for one of the "
        "two at a time."
    )
    return Problem("--by, --beside", what)


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _show(compared: Comparison, console: Console) -> None:
    """The tables that answer: settings only where dev could not choose, papers' only where something was run."""
    undecided = any(
        cell.chosen is None and any(each.ended for each in cell.settings) for cell in compared.cells
    )
    left = []
    for table in tables(compared):
        if table.file == "published" and not_run(table):
            left.append(table)
        elif table.name != "settings" or undecided:
            console.print(terminal(table))
    console.print()
    for note in compared.notes:
        console.print(note)
    if left:
        console.print(f"Of {len(left)} published tables nothing was run; --out DIR writes them too.")
    console.print("All settings, figures and a page: --out DIR.")
