"""Renders tables for the terminal, Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich import table as rich
from rich.console import Group
from rich.text import Text

from experiments.report.tables.table import Entry, Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "[": "{[}", "]": "{]}",
    "±": r"$\pm$", "−": "$-$", "–": "--", "·": r"$\cdot$", "×": r"$\times$", "≠": r"$\neq$", "=": "$=$",
    "σ": r"$\sigma$", "ε": r"$\epsilon$",
}  # fmt: skip


def terminal(table: Table) -> Group:
    """Returns a table for a rich console: title, rows, notes."""
    grid = rich.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(table.head):
        grid.add_column(name, overflow="fold", justify="left" if i < table.left else "right")
    for row in table.rows:
        grid.add_row(*(Text(entry.text, style="bold" if entry.bold else "") for entry in row))
    return Group(
        Text(f"\n{table.title}", style="bold"), grid, *(Text(note, style="dim") for note in table.notes)
    )


def markdown(table: Table) -> str:
    """Returns a pipe table with its title and notes."""
    rule = ["---" if i < table.left else "---:" for i in range(len(table.head))]
    rows = [[_in_markdown(entry) for entry in row] for row in table.rows]
    lines = ["| " + " | ".join(line) + " |" for line in [[_escaped(h) for h in table.head], rule, *rows]]
    return "\n".join([f"**{table.title}**", "", *lines, "", *(f"{note}  " for note in table.notes)]) + "\n"


def latex(table: Table) -> str:
    """Returns a table environment; it needs \\usepackage{booktabs}."""
    columns = "".join("l" if i < table.left else "r" for i in range(len(table.head)))
    rows = [" & ".join(_in_latex(entry) for entry in row) + r" \\" for row in table.rows]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{in_latex(' '.join([_sentence(table.title), *table.notes]))}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(in_latex(name) for name in table.head) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def comma_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows with the same keys as CSV; numbers in full, nothing for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def in_latex(text: str) -> str:
    """Escapes the characters that LaTeX would read as commands."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _in_latex(entry: Entry) -> str:
    return rf"\textbf{{{in_latex(entry.text)}}}" if entry.bold else in_latex(entry.text)


def _in_markdown(entry: Entry) -> str:
    text = _escaped(entry.text)
    return f"**{text}**" if entry.bold else text


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "|*_`\\<[" else letter for letter in text)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
