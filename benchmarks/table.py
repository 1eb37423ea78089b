"""docs/benchmarks.md from the JSON rows."""

import json
from pathlib import Path
from typing import Any

from benchmarks.cases import TARGETS

_HEAD = """# Benchmarks

Written by `make bench` from `benchmarks/results/*.json`; do not edit.

A step of zo, and the same step by the published recipe (`benchmarks/recipe.py`: weights walked in place,
torch's generator, a pass a direction), each over as many plain forwards with the same positions and loss
head as the step has. 1.00 is the price of the forwards alone. Medians of interleaved rounds, quartiles in
brackets. Random-weight OPT, all weights trained, loss over all positions. On one CPU thread the times are
the process's own CPU seconds, which other programs disturb least, but not little: they share caches and
memory. Targets are those of the project's plan.

"""
_SLACK = 0.5  # MiB
_COLUMNS = (
    "method",
    "noise",
    "model",
    "tokens",
    "dtype",
    "passes",
    "forward",
    "zo / forwards",
    "target",
    "recipe / forwards",
    "pairs",
)


def write(results: Path, page: Path) -> None:
    """Rewrites the page from all result files."""
    rows = [row for path in sorted(results.glob("*.json")) for row in json.loads(path.read_text())]
    text = _HEAD
    for device in dict.fromkeys(row["device"] for row in rows):
        mine = [row for row in rows if row["device"] == device]
        text += f"## {device}\n\n" + _speeds(mine) + "\n" + _memory(mine) + "\n"
    page.write_text(text.rstrip("\n") + "\n")


def _speeds(rows: list[dict[str, Any]]) -> str:
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    for row in rows:
        recipe = "baseline_over_forwards"
        cells = (
            row["method"],
            row["directions"] or "its own",
            row["model"],
            row["tokens"],
            row["dtype"],
            str(row["forward_passes"]),
            f"{row['forward_seconds'] * 1e3:.1f} ms",
            _with_quartiles(row, "step_over_forwards"),
            _target(row),
            _with_quartiles(row, recipe) if recipe in row else "",
            str(row["pairs"]),
        )
        lines.append(_line(cells))
    kernels = sorted(
        {f"{row['kernels']} kernels, {row['threads']} thread(s), torch {row['torch']}" for row in rows}
    )
    return "\n".join(lines) + "\n\n" + "; ".join(kernels) + ".\n" + _adamezo(rows)


def _target(row: dict[str, Any]) -> str:
    target = TARGETS.get((row["method"], row["directions"], row["tokens"], row["dtype"]))
    if row["device"].startswith("cuda"):
        target = 1.10 if row["method"] == "fzoo" else None
    if target is None:
        return ""
    return f"{target:.2f} {'met' if row['step_over_forwards'] <= target else 'missed'}"


def _adamezo(rows: list[dict[str, Any]]) -> str:
    """AdaMeZO's step beside MeZO's: both cost two forwards."""
    text = ""
    for row in rows:
        if row["method"] != "adamezo":
            continue
        same = ("model", "tokens", "dtype")
        others = [
            r
            for r in rows
            if (r["method"], r["directions"]) == ("mezo", "gaussian")
            and all(r[key] == row[key] for key in same)
        ]
        for other in others:
            ratio = row["step_over_forwards"] / other["step_over_forwards"]
            text += f"- {row['model']} {row['tokens']} {row['dtype']}: {ratio:.2f}"
            if "peak_memory_over_forward" in row and "peak_memory_over_forward" in other:
                memory = row["peak_memory_over_forward"] / other["peak_memory_over_forward"]
                text += f", memory {memory:.3f}"
            text += "\n"
    head = "\nAdaMeZO's step over MeZO's with Gaussian directions (targets at 16x64: 1.15, memory 1.01):\n\n"
    return head + text if text else ""


def _memory(rows: list[dict[str, Any]]) -> str:
    rows = [row for row in rows if "step_peak_bytes" in row]
    if not rows:
        return ""
    head = (
        "method",
        "noise",
        "model",
        "tokens",
        "dtype",
        "weights",
        "forward",
        "step",
        "allowed",
        "peak / forward's",
    )
    lines = [
        "Memory above the weights in MiB, one probe after another; allowed is a forward's and the largest tensor:\n"
    ]
    lines += [_line(head), _line(["---"] * len(head))]
    for row in rows:
        sizes = [row[f"{name}_bytes"] for name in ("weight", "forward_peak", "step_peak", "largest_leaf")]
        weights, forward, step, leaf = (size / 2**20 for size in sizes)
        allowed = f"{forward + leaf:.1f} {'met' if step <= forward + leaf + _SLACK else 'missed'}"
        numbers = (
            f"{weights:.1f}",
            f"{forward:.1f}",
            f"{step:.1f}",
            allowed,
            f"{row['peak_memory_over_forward']:.3f}",
        )
        lines.append(
            _line(
                (
                    *(row[k] or "its own" for k in ("method", "directions", "model", "tokens", "dtype")),
                    *numbers,
                )
            )
        )
    journal = ", ".join(sorted({f"{row['method']} {row['journal_bytes_per_step']}" for row in rows}))
    return "\n".join(lines) + f"\n\nJournal, bytes a step: {journal}.\n"


def _with_quartiles(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_quartiles"]
    return f"{row[name]:.3f} [{low:.3f}, {high:.3f}]"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
