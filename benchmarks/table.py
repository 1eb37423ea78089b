"""Writes docs/benchmarks.md from the JSON rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import start_and_tools
from benchmarks.cases import TARGETS

Row = dict[str, Any]
Rows = list[Row]
_HEAD = """# Benchmarks

Written by `make bench` from `benchmarks/results/*.json`; do not edit.

The numbers compare the time of a step of zo with the time of its forward passes alone (same positions, same loss
head): 1.00 means that the rest of the step is free. They are medians of interleaved rounds, with the quartiles in
brackets. The model is OPT with random weights; all weights are trained, and the loss is over all positions. On one CPU
thread the times are the process's own CPU seconds. Other programs disturb these least, but share caches and memory.
Targets are those of the project's plan. "Recipe" is the same step as the papers' code takes it (`benchmarks/recipe.py`:
weights walked in place, torch's generator, one pass for each direction).

"""
_NO_GPU = """## GPU

No GPU was available, so nothing here has run on one. Tested without one: the commands on a CPU, the kernels' numbers in
Triton's interpreter, and their compilation for an H100. To run them on a GPU:

    python -m benchmarks.run --device cuda --sizes 1.3b 13b --tokens 16x64 16x300 --dtypes bfloat16 \\
        --only fzoo mezo --pairs 7
    python -m benchmarks.gpu bits       # signs are the CPU's
    python -m benchmarks.gpu split      # a model over CPU and GPU has the directions of one on the CPU
    python -m benchmarks.gpu stacked    # losses of stacked probes are those of probes alone, to 1 % of σ
    python -m benchmarks.gpu large      # steps of OPT-66B, all weights trained in bfloat16
"""
_LM_EVAL = """## Beside lm-evaluation-harness

The same examples evaluated by zo and by lm-evaluation-harness (HFLM): the same model, token ids and batch size
({batch}), greedy answers of at most {new} tokens, in turn in one process, on one thread
(`python -m benchmarks.beside_lm_eval MODEL`). Seconds are medians of the process's own CPU seconds, the ratio is the
median of the rounds' with its quartiles. zo's seconds include the loss, which the other does not compute. In bfloat16
predictions may differ where two options or tokens are within its rounding. boolq reads the rows of multirc.

"""
_SLACK = 0.5  # MiB
_GPU_TARGET = 1.10  # of FZOO's step on a GPU


def write(results: Path, page: Path) -> None:
    """Rewrites the page from all result files."""
    rows = [
        row for path in sorted(results.glob("*.json")) for row in json.loads(path.read_text(encoding="utf-8"))
    ]
    text = _HEAD
    for device in dict.fromkeys(row["device"] for row in rows):
        mine = [row for row in rows if row["device"] == device]
        timed = [row for row in mine if "step_over_forwards" in row]
        parts = (_targets(timed), _methods(timed), _adamezo(timed), _memory(mine), _made(timed))
        text += f"## {device}\n\n" + "\n".join(part for part in parts if part) + "\n"
    text += start_and_tools.section(results / "tools")
    text += _beside_lm_eval(results / "lm_eval")
    if not any(row["device"].startswith("cuda") for row in rows):
        text += _NO_GPU
    page.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _targets(rows: Rows) -> str:
    """Lists the rows that have a target, or the published recipe beside them."""
    aimed = [row for row in rows if _target(row) or "baseline_over_forwards" in row]
    lines = _head("method", "noise", "model", "tokens", "dtype", "forward", "zo", "target", "recipe")
    for row in sorted(aimed, key=_order):
        recipe = "baseline_over_forwards"
        lines.append(
            _line(
                row["method"],
                _noise(row),
                *_where(row),
                f"{row['forward_seconds'] * 1e3:.1f} ms",
                _with_quartiles(row, "step_over_forwards"),
                _target(row),
                _with_quartiles(row, recipe) if recipe in row else "",
            )
        )
    return "\n".join(lines) + "\n" if aimed else ""


def _target(row: Row) -> str:
    target = TARGETS.get((row["method"], row["directions"], row["tokens"], row["dtype"]))
    if row["device"].startswith("cuda"):
        target = _GPU_TARGET if row["method"] == "fzoo" else None
    if target is None:
        return ""
    return f"{target:.2f} {'met' if row['step_over_forwards'] <= target else 'missed'}"


def _methods(rows: Rows) -> str:
    """Tabulates every method's step over its forwards: a line per method, a column per model, batch and dtype."""
    return (
        "Time of a step over its forward passes, every method with its own directions and defaults:\n\n"
        + _pivot(rows, ("method", "noise", "passes"), _method, lambda row: f"{row['step_over_forwards']:.2f}")
    )


def _method(row: Row) -> tuple[str, ...]:
    passes = str(row["forward_passes"])
    return row["method"], _noise(row), passes if passes != "1" else "1 and a gradient"


def _memory(rows: Rows) -> str:
    """Tabulates peak memory over a forward's."""
    rows = [row for row in rows if "step_peak_bytes" in row]
    if not rows:
        return ""
    text = (
        "Peak memory of a step over that of a forward pass. Both include the weights; the step includes the method's"
        " state.\nProbes are evaluated one by one. A star marks a step that needs more than the forward pass, the"
        " state and the largest tensor.\n\n"
    )
    return text + _pivot(rows, ("method", "noise"), lambda row: (row["method"], _noise(row)), _peak)


def _peak(row: Row) -> str:
    forward, step, leaf = (
        row[f"{name}_bytes"] / 2**20 for name in ("forward_peak", "step_peak", "largest_leaf")
    )
    return f"{row['peak_memory_over_forward']:.3f}" + ("" if step <= forward + leaf + _SLACK else "\\*")


def _pivot(
    rows: Rows, names: tuple[str, ...], line_of: Callable[[Row], tuple[str, ...]], cell: Callable[[Row], str]
) -> str:
    rows = sorted(rows, key=_order)
    columns = list(dict.fromkeys(_where(row) for row in rows))
    cells = {(line_of(row), _where(row)): cell(row) for row in rows}
    lines = _head(
        *names, *(" ".join(column).replace("float", "fp").replace("bfp", "bf") for column in columns)
    )
    for of in sorted({line_of(row) for row in rows}):
        lines.append(_line(*of, *(cells.get((of, column), "") for column in columns)))
    return "\n".join(lines) + "\n"


def _adamezo(rows: Rows) -> str:
    """Lists AdaMeZO's step over MeZO's: both cost two forwards."""
    mezo = {_where(row): row for row in rows if (row["method"], row["directions"]) == ("mezo", "gaussian")}
    lines = []
    for row in sorted(rows, key=_order):
        other = mezo.get(_where(row))
        if row["method"] != "adamezo" or other is None:
            continue
        line = f"- {' '.join(_where(row))}: {row['step_over_forwards'] / other['step_over_forwards']:.2f}"
        if "peak_memory_over_forward" in row and "peak_memory_over_forward" in other:
            line += f", memory {row['peak_memory_over_forward'] / other['peak_memory_over_forward']:.3f}"
        lines.append(line + "\n")
    head = (
        "AdaMeZO's step over MeZO's, time with Gaussian directions (targets at 16x64: 1.15, memory 1.01):\n\n"
    )
    return head + "".join(lines) if lines else ""


def _beside_lm_eval(folder: Path) -> str:
    """Tabulates evaluation beside lm-evaluation-harness; nothing where nothing was measured."""
    rows = [
        row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text(encoding="utf-8"))
    ]
    if not rows:
        return ""
    lines = _head(
        "model",
        "dtype",
        "task",
        "n",
        "zo, s",
        "lm-eval, s",
        "zo / lm-eval",
        "equal predictions",
        "zo",
        "lm-eval",
    )
    for row in sorted(rows, key=lambda row: (row["model"], row["dtype"], row["task"])):
        lines.append(
            _line(
                *(str(row[name]) for name in ("model", "dtype", "task", "examples")),
                *(f"{row[name]:.2f}" for name in ("seconds_zo", "seconds_lm_eval")),
                _with_quartiles(row, "zo_over_lm_eval"),
                f"{row['equal']} of {row['examples']}",
                *(f"{row[name]:.3f}" for name in ("value_zo", "value_lm_eval")),
            )
        )
    versions = {f"lm-eval {row['lm_eval']}, torch {row['torch']}, {row['device']}" for row in rows}
    dates = sorted({row["date"] for row in rows})
    rounds = sorted({row["rounds"] for row in rows})
    return (
        _LM_EVAL.format(batch=rows[0]["batch"], new=rows[0]["new_tokens"])
        + "\n".join(lines)
        + f"\n\n{'; '.join(sorted(versions))}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; "
        f"{' to '.join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))} rounds a row. The last two columns are the "
        "metric (accuracy, F1).\n\n"
    )


def _made(rows: Rows) -> str:
    """States how the rows were measured, and the bytes of a journal."""
    journal = ", ".join(sorted({f"{row['method']} {row['journal_bytes_per_step']}" for row in rows}))
    kernels = {f"{row['kernels']} kernels, {row['threads']} thread(s), torch {row['torch']}" for row in rows}
    dates = sorted({row["date"] for row in rows})
    rounds = sorted({row["pairs"] for row in rows})
    return (
        f"Journal, bytes a step: {journal}.\n\n"
        f"{'; '.join(sorted(kernels))}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; "
        f"{' to '.join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))} rounds a row.\n"
    )


def _order(row: Row) -> tuple[Any, ...]:
    """Sorts by model size, then the larger batch, then fp32 first, then method and noise."""
    size = row["model"].removeprefix("opt-")
    number = float(size[:-1]) * (1000 if size.endswith("b") else 1)
    tokens = -int(row["tokens"].partition("x")[0]), row["tokens"]
    return number, *tokens, row["dtype"] != "float32", row["method"], _noise(row)


def _where(row: Row) -> tuple[str, str, str]:
    return row["model"], row["tokens"], row["dtype"]


def _noise(row: Row) -> str:
    return row["directions"] or "its own"


def _with_quartiles(row: Row, name: str) -> str:
    low, high = row[f"{name}_quartiles"]
    return f"{row[name]:.3f} [{low:.3f}, {high:.3f}]"


def _head(*names: str) -> list[str]:
    return [_line(*names), _line(*["---"] * len(names))]


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
