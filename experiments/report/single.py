"""Writes one table as files, in the formats of a report, for benchmarks/cost_tables.py and notebooks/toy_figures.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report.render import comma_separated, latex, markdown
from experiments.report.tables.table import Table
from zo.errors import ConfigError


def write_table(table: Table, rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes a table as Markdown and LaTeX and its rows, numbers in full, as CSV; returns the files.

    Raises ConfigError if a file has the folder's name.
    """
    if folder.is_file():
        raise ConfigError(
            f"--out {folder}: this is a file. Name a folder; the table is written there as .md, .tex and .csv."
        )
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"md": markdown(table), "tex": latex(table), "csv": comma_separated(rows)}
    paths = [folder / f"{table.name}.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths
