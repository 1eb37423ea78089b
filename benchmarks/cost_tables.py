"""Builds the AdaMeZO paper's tables of memory, forward passes and time, each by one command.

    python -m benchmarks.cost_tables adamezo-1              memory and passes of methods, in units of the weights
    python -m benchmarks.cost_tables adamezo-4              peak memory and its ratio to MeZO's (experiments estimate)
    python -m benchmarks.cost_tables adamezo-7 --device cuda --size 1.3b    seconds a step, MeZO + a. among them

Each prints the table with the published numbers beside its own; --out DIR writes it as Markdown, LaTeX and CSV too.
Tables 1 and 4 are reckoned, on any machine, with each task's longest row (--length says another; the paper's figures
hardly differ from task to task). Table 7 is measured: OPT with random weights, which cost what trained ones
do, batch 16, and rows of a typical length (TOKENS). `MeZO + a.` is MeZO that makes the directions of AdaMeZO's window
and drops them: the price of the noise without that of the moments.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.display.console import new_console
from experiments.report.render import terminal
from experiments.report.single import write_table
from experiments.report.tables.table import NOTHING, Entry, Table
from zo.errors import ConfigError

TASKS = ("sst2", "copa", "squad")
# Of the paper. Memory in copies of the weights P, B what backpropagation holds, δ far below 1; passes of a step.
TABLE_1 = {
    "adamw": ("3P + B", 1),
    "mezo": ("P", 2),
    "helene": ("3P", 2),
    "hizoo": ("2P", 3),
    "adamezo": ("(1 + δ)P", 2),
}
TABLE_4 = {  # MB, and the ratio as printed
    "mezo": ((5016, 5058, 5040), 1.0),
    "adamw": ((22172, 21660, 22688), 4.40),
    "hizoo": ((7532, 7535, 7396), 1.49),
    "adamezo": ((5410, 5452, 5434), 1.07),
}
TABLE_7 = {  # seconds
    "mezo": (0.21, 0.18, 0.21),
    "hizoo": (0.23, 0.24, 0.25),
    "mezo + a.": (0.23, 0.23, 0.24),
    "adamezo": (0.31, 0.30, 0.31),
    "adamw": (0.12, 0.13, 0.13),
}
# Rows x tokens of a batch of 16: two options each for SST-2 and COPA, the answer alone for SQuAD. Lengths are assumed.
TOKENS = {"sst2": "32x32", "copa": "32x24", "squad": "16x256"}
HORIZON = 10  # of AdaMeZO's window
Rows = list[dict[str, Any]]


def main(argv: Sequence[str]) -> int:
    """Returns 0 when done, 2 for wrong input."""
    options = _options(argv)
    try:
        if options.table == "adamezo-7":
            table, rows = table_7(options.device, options.size, options.dtype, options.rounds, options.tokens)
        else:
            reckoned = {"adamezo-1": table_1, "adamezo-4": table_4}[options.table]
            table, rows = reckoned(options.model, options.length)
        new_console().print(terminal(table))
        if options.out is not None:
            print("\n".join(str(path) for path in write_table(table, rows, options.out)))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    from benchmarks.cases import DTYPES, SIZES

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost_tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=("adamezo-1", "adamezo-4", "adamezo-7"))
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="a folder for the table as .md, .tex and .csv"
    )
    parser.add_argument("--model", default="opt-1.3b", help="of Tables 1 and 4: an option of conf/model")
    parser.add_argument("--length", type=int, help="of Tables 1 and 4: tokens of a row, for all tasks")
    parser.add_argument("--size", choices=tuple(SIZES), default="1.3b", help="of Table 7's OPT")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bfloat16", help="of Table 7")
    parser.add_argument("--device", default="cpu", help="of Table 7")
    parser.add_argument("--rounds", type=int, default=7, help="of Table 7: steps of each method")
    parser.add_argument(
        "--tokens", default=None, metavar="ROWSxLENGTH", help="of Table 7: one batch for all tasks"
    )
    return parser.parse_args(argv)


def table_1(model: str, length: int | None) -> tuple[Table, Rows]:
    """Builds memory in copies of the weights, and passes of a step, as `experiments estimate` computes them."""
    rows = []
    for method, (memory, passes) in TABLE_1.items():
        estimate, optimizer = _estimated(model, method, "sst2", length)
        rows.append(
            {
                "method": method,
                "published memory": memory,
                "weights and state / P": (estimate.weights + estimate.state) / estimate.weights,
                "of a step / P": estimate.training / estimate.weights,
                "published passes": passes,
                "forward passes": optimizer.forward_passes,
                "backward passes": optimizer.backward_passes,
            }
        )
    notes = (
        f"P: the weights of {model}, as it is loaded. Of a step: what a step holds beside weights and state, batch "
        "16 of SST-2; for Adam gradients and activations are in it (B), for AdaMeZO the paper's δ.",
        "Published passes count Adam's one forward; it has a backward pass too, of about two more.",
    )
    head = tuple(rows[0])
    lines = [
        [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows
    ]
    return _table("adamezo-1", "AdaMeZO, Table 1: memory and passes of methods", head, lines, notes), rows


def table_4(model: str, length: int | None) -> tuple[Table, Rows]:
    """Builds peak memory, and the ratio to MeZO's over the three tasks."""
    peaks = {
        method: [_estimated(model, method, task, length)[0].peak for task in TASKS] for method in TABLE_4
    }
    rows: Rows = []
    lines = []
    for method, (published, printed) in TABLE_4.items():
        ratio = statistics.fmean(a / b for a, b in zip(peaks[method], peaks["mezo"], strict=True))
        megabytes = [peak / 2**20 for peak in peaks[method]]
        rows += [
            {
                "method": method,
                "task": task,
                "published": theirs,
                "peak": ours,
                "published ratio": printed,
                "ratio": ratio,
            }
            for task, theirs, ours in zip(TASKS, published, megabytes, strict=True)
        ]
        lines.append(
            [
                method,
                *(f"{theirs} / {ours:.0f}" for theirs, ours in zip(published, megabytes, strict=True)),
                f"{printed:.2f} / {ratio:.2f}",
            ]
        )
    notes = (
        f"Published / reckoned for {model} as conf/model loads it, by python -m experiments estimate; the paper "
        "measured MB of its GPU. The ratio is to MeZO's, the mean of the tasks. "
        "HiZOO's H is fp32 here, 16 bits in its code.",
    )
    title = "AdaMeZO, Table 4: peak memory (MiB)"
    return _table("adamezo-4", title, ("method", *TASKS, "ratio"), lines, notes), rows


def _estimated(model: str, method: str, task: str, length: int | None) -> tuple[Any, Any]:
    """Returns the estimate of a run, and its optimizer."""
    from experiments.config.compose import compose
    from experiments.config.problems import listing
    from experiments.estimating import estimate
    from experiments.training.session import trial_optimizer

    composed = compose([f"model={model}", f"optimizer={method}", f"task={task}"])
    if composed.config is None:
        raise ConfigError(listing(composed.problems))
    return estimate(composed.config, tokens=length), trial_optimizer(composed.config)


def table_7(device: str, size: str, dtype: str, rounds: int, tokens: str | None) -> tuple[Table, Rows]:
    """Measures median seconds per step, one method after another; CPU seconds of one thread on a CPU."""
    import torch

    from benchmarks.noise_alone import seconds_of

    if rounds < 1:
        raise ConfigError(f"--rounds {rounds}: give a number of steps, at least 1.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"--device {device}: no GPU was found. --device cpu --size 10m shows the ratios on a CPU."
        )
    place = torch.device(device)
    if place.type == "cpu":
        torch.set_num_threads(1)  # then the clock is the process's own, which other programs disturb least
    batches = {task: tokens or TOKENS[task] for task in TASKS}
    # One measurement for each shape of batch.
    measured = {
        batch: {name: seconds_of(name, size, batch, dtype, place, rounds, HORIZON) for name in TABLE_7}
        for batch in dict.fromkeys(batches.values())
    }
    rows: Rows = [
        {
            "method": name,
            "task": task,
            "tokens": batches[task],
            "published": theirs,
            "seconds": measured[batches[task]][name],
            "published ratio": theirs / TABLE_7["mezo"][n],
            "ratio": measured[batches[task]][name] / measured[batches[task]]["mezo"],
        }
        for name, published in TABLE_7.items()
        for n, (task, theirs) in enumerate(zip(TASKS, published, strict=True))
    ]
    lines = [[name, *(_seconds(row) for row in rows if row["method"] == name)] for name in TABLE_7]
    shapes = ", ".join(f"{task} {batch}" for task, batch in batches.items())
    notes = (
        "Published / measured, and the ratio to MeZO's in brackets, published / measured. "
        f"OPT-{size} with random weights, {dtype}, {_device_name(place)}; rows x tokens: {shapes}.",
        f"mezo + a.: MeZO that makes the directions of {HORIZON} steps and uses one.",
    )
    title = "AdaMeZO, Table 7: seconds a step"
    return _table("adamezo-7", title, ("method", *TASKS), lines, notes), rows


def _seconds(row: dict[str, Any]) -> str:
    return (
        f"{row['published']:.2f} / {row['seconds']:.3g} ({row['published ratio']:.2f} / {row['ratio']:.2f})"
    )


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "one thread of a CPU"


def _table(
    name: str, title: str, head: Sequence[str], lines: Sequence[Sequence[str]], notes: tuple[str, ...]
) -> Table:
    rows = tuple(tuple(Entry(text or NOTHING) for text in line) for line in lines)
    return Table(name, title, tuple(head), rows, notes=notes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
