"""One table as files: what benchmarks/cost_tables.py and notebooks/toy_figures.py write, as a report writes its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report.render import comma_separated, latex, markdown
from experiments.report.tables.table import Table
from zo.errors import ConfigError


def write_table(table: Table, rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes a table as Markdown and LaTeX and its rows, numbers in full, as CSV; returns the files.

    Raises ConfigError where the folder cannot be one.
    """
    if folder.is_file():
        raise ConfigError(
            f"--out {folder}: it is a file. Name a folder, which gets the table as .md, .tex and .csv."
        )
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"md": markdown(table), "tex": latex(table), "csv": comma_separated(rows)}
    paths = [folder / f"{table.name}.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths
