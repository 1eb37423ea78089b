"""Builds the rows and tables of docs/study.md from the folders of its runs.

python -m benchmarks.study RUNS… --out docs/results/study-trec.json [--task trec]

Rows of other runs in the file stay; then the tables of all its rows are printed: the setting of each method that dev
chose on seed 0 (of equal ones the constant schedule, then the lower loss), all settings one by one, and the mean metric
on dev along the runs of the chosen settings.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.config.signatures import arguments
from experiments.report.runs import Run, read_runs

Row = dict[str, Any]
Rows = list[Row]
KEPT = (
    "method model task peft seed metric before after n_test majority best_dev selected_step steps forward_passes "
    "backward_passes peak_memory_bytes seconds loss_before loss_after"
).split()
SAME = ("task", "model", "method", "options", "dtype", "update", "schedule", "lr", "seed")


def row_of(run: Run) -> Row:
    """Returns what the study stores of a finished run; dev: [forward passes, metric, loss] per evaluation."""
    assert run.result is not None
    optimizer = run.config["optimizer"]
    return {
        **{key: run.result[key] for key in KEPT},
        "dtype": run.config["model"]["dtype"],
        "update": run.config["update"],
        "lr": optimizer["lr"],
        "schedule": run.config["schedule"]["_target_"].rpartition(".")[2].lower(),
        "options": options_of(optimizer),
        "dev": [
            [look["forward_passes"], look["value"], round(look["loss"], 5)] for look in run.rows_of("dev")
        ],
    }


def options_of(optimizer: Mapping[str, Any]) -> Row:
    """Returns a method's arguments, except its rate, that differ from the constructor's defaults."""
    usual = {each.name: each.default for each in arguments(optimizer["_target_"]) if each.name != "lr"}
    return {
        key: value
        for key, value in optimizer.items()
        if key in usual and value != (list(usual[key]) if isinstance(usual[key], tuple) else usual[key])
    }


def merged(old: Iterable[Row], new: Iterable[Row]) -> Rows:
    """Merges rows by case; a row of `new` replaces an equal one."""
    rows = {_named(row, SAME): row for row in [*old, *new]}
    return [row for _, row in sorted(rows.items())]


def chosen(rows: Rows) -> dict[str, tuple[int, Rows]]:
    """Returns for each method the number of tries, and the rows by seed of the best on dev on seed 0."""
    tries: dict[str, dict[tuple[str, float], Rows]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not row["options"] and row["dtype"] == "float32":
            tries[row["method"]][row["schedule"], row["lr"]].append(row)
    best = {}
    for method, settings in tries.items():
        firsts = {key: row for key, runs in settings.items() for row in runs if row["seed"] == 0}
        key = max(
            firsts, key=lambda key: (firsts[key]["best_dev"], key[0] == "constant", -_loss(firsts[key]))
        )
        best[method] = len(settings), sorted(settings[key], key=lambda row: row["seed"])
    return best


def tables(rows: Rows) -> str:
    """Returns Markdown: the chosen settings, all settings, and the curves of the chosen ones."""
    best = chosen(rows)
    order = sorted(best, key=lambda method: -fmean(row["after"] for row in best[method][1]))
    lines = _head("method", "tries", "learning rate, schedule", "dev", "test", "seeds", "peak memory")
    for method in order:
        tries, runs = best[method]
        seeds = ", ".join(f"{100 * row['after']:.1f}" for row in runs)
        memory = max(row["peak_memory_bytes"] for row in runs) / 2**20
        lines.append(_line(method, tries, _setting(runs[0]), *_scores(runs), seeds, f"{memory:,.0f} MiB"))
    lines += [
        "",
        *_head("method", "options", "dtype, update", "learning rate, schedule", "dev", "test", "seeds"),
    ]
    others: dict[str, Rows] = defaultdict(list)
    for row in rows:
        others[_named(row, SAME[:-1])].append(row)
    for _, runs in sorted(others.items()):
        row = runs[0]
        options = ", ".join(f"{key} {value}" for key, value in row["options"].items())
        weights = f"{row['dtype']}, {row['update']}"
        lines.append(_line(row["method"], options, weights, _setting(row), *_scores(runs), len(runs)))
    passes = [60 * k for k in range(1, 11)]
    lines += ["", *_head("method", *map(str, passes))]
    lines += [_line(method, *_curve(best[method][1], passes)) for method in sorted(best)]
    return "\n".join(lines)


def _loss(row: Row) -> float:
    """Returns the dev loss at the best evaluation."""
    return min(loss for _, value, loss in row["dev"] if value == row["best_dev"])


def _named(row: Row, keys: Iterable[str]) -> str:
    return json.dumps([row[key] for key in keys], sort_keys=True)


def _setting(row: Row) -> str:
    return f"{row['lr']:g}, {row['schedule']}"


def _scores(runs: Rows) -> list[str]:
    return [_spread([row[key] for row in runs]) for key in ("best_dev", "after")]


def _spread(values: list[float]) -> str:
    return f"{100 * fmean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def _curve(runs: Rows, passes: list[int]) -> list[str]:
    """Returns the mean dev metric over seeds at the evaluation nearest to each pass count, in per cent."""
    nearest = [
        [min(row["dev"], key=lambda look: abs(look[0] - wanted))[1] for row in runs] for wanted in passes
    ]
    return [f"{100 * fmean(values):.1f}" for values in nearest]


def _head(*cells: str) -> list[str]:
    return [_line(*cells), "|" + "---|" * len(cells)]


def _line(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs")
    parser.add_argument("--task", help="runs of this task alone")
    parser.add_argument("--out", type=Path, required=True, help="JSON file that the rows are added to")
    options = parser.parse_args()
    runs = read_runs(options.runs) if options.runs else []
    new = [row_of(run) for run in runs if run.result is not None and options.task in (None, run.task)]
    rows = merged(json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else [], new)
    options.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")
    print(tables(rows))


if __name__ == "__main__":
    main()
