"""A table over runs: mean ± standard deviation over seeds, a line for each configuration."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from zo.errors import ConfigError

COLUMNS = ("model", "task", "method", "peft", "config", "seeds", "metric", "before", "after", "forward passes",
           "seconds", "peak MiB", "diverged")  # fmt: skip


def report(folders: Sequence[Path], out: Path | None, console: Console) -> int:
    """Prints the table of the runs that ended, and writes it."""
    if out is not None and out.suffix not in (".csv", ".md"):
        raise ConfigError(f"--out {out}: it is a .csv or a .md file.")
    found = [json.loads((f / "result.json").read_text()) for f in folders if (f / "result.json").exists()]
    lines = rows(found)
    table = Table(title=f"{len(found)} of {len(folders)} runs ended", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if out is not None:
        out.write_text(_csv(lines) if out.suffix == ".csv" else _markdown(lines))
    return 0


def rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each configuration, in the order of model, task, method."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        key = tuple(str(result[name]) for name in ("model", "task", "method", "peft", "config_hash"))
        groups.setdefault(key, []).append(result)
    return [_row(key, groups[key]) for key in sorted(groups)]


def _row(key: Sequence[str], group: Sequence[Mapping[str, Any]]) -> list[str]:
    diverged = sum(result["status"] == "diverged" for result in group)
    return [
        *key[:4],
        key[4][:8],
        str(len({result["seed"] for result in group})),
        str(group[0]["metric"]),
        _spread([result["before"] for result in group], 100),
        _spread([result["after"] for result in group], 100),
        f"{fmean(result['forward_passes'] for result in group):,.0f}",
        f"{fmean(result['seconds'] for result in group):,.0f}",
        f"{max(result['peak_memory_bytes'] for result in group) / 2**20:,.0f}",
        str(diverged or ""),
    ]


def _spread(values: Sequence[float | None], scale: float) -> str:
    """mean ± sample standard deviation; the mean alone of one value."""
    there = [scale * value for value in values if value is not None]
    if not there:
        return "-"
    return f"{fmean(there):.1f}" + (f" ± {stdev(there):.1f}" if len(there) > 1 else "")


def _csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *lines])
    return text.getvalue()


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    table = [COLUMNS, ["---"] * len(COLUMNS), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in table)
