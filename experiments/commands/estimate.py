"""Prints the table of `python -m experiments estimate`: one line per configuration."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from experiments.config.run_config import RunConfig
from experiments.display.console import new_console
from experiments.estimating.run_cost import BANDWIDTH, PROGRAM, RATES, Estimate, estimate
from experiments.models.refusals import refusals
from experiments.models.source import model_name
from zo.errors import ConfigError

NOTE = (
    "peak = weights + masters + moments + the largest of: evaluation; activations; activations and gradients during "
    "the backward pass; gradients + update. N× is the multiple of inference: the weights and one forward pass of a "
    "step's batch. "
    f"Tokens of a row: {{source}}. GPU-hours are assumed, not measured: {RATES[2] / 1e12:.0f} TFLOP/s in 16 bits, "
    f"{RATES[4] / 1e12:.0f} in 32, {BANDWIDTH / 1e12:.0f} TB/s, about half of what an A100 can. A run on a CPU holds "
    f"about {PROGRAM / 2**20:.0f} MiB of program besides."
)
COLUMNS = (
    "model,task,optimizer,peft,parameters,trained,tokens,probes,"
    "weights,masters,moments,gradients,activations,update,evaluation,peak,GPUs,hours"
)


def show(configs: Sequence[RunConfig], tokens: int | None, as_json: bool) -> int:
    """Prints an estimate for each configuration; 0. Raises ConfigError with all that models are refused for."""
    problems = [
        problem
        for config in configs
        for problem in refusals(
            config.model,
            config.peft.name,
            Path(config.paths.models),
        )
    ]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    estimates = [(config, estimate(config, tokens=tokens)) for config in configs]
    if as_json:
        rows = [asdict(e) | _choices(config) for config, e in estimates]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return 0
    console = new_console(width=None if sys.stdout.isatty() else 220)
    table = Table(title="Memory in GiB, and as a multiple of inference; GPUs of 80 GiB; hours of GPUs")
    for number, name in enumerate(COLUMNS.split(",")):
        table.add_column(name, justify="left" if number < 4 else "right", no_wrap=number < 4)
    for config, e in estimates:
        table.add_row(*_choices(config).values(), *_cells(e))
    console.print(table)
    source = "as said" if tokens else "the longest of the task, by a table (--tokens says another)"
    console.print(NOTE.format(source=source))
    for config, e in estimates:
        requested = config.model.resources.gpus
        if e.gpus > max(requested, 1):
            console.print(
                f"{e.model}: {e.gpus} GPUs of 80 GiB are needed, but model.resources.gpus={requested}. Set it, and "
                "model.device_map=balanced.",
            )
    return 0


def _choices(config: RunConfig) -> dict[str, str]:
    return {
        "model": model_name(config.model),
        "task": config.task.name,
        "optimizer": config.optimizer.target.rpartition(".")[2].lower(),
        "peft": config.peft.name,
    }


def _cells(e: Estimate) -> list[str]:
    figures = (
        *(e.weights, e.masters, e.moments, e.gradients),
        *(e.activations, e.update, e.evaluation, e.peak),
    )
    sizes = [f"{n / 2**30:.3g} {n / e.inference:.2f}×" if n else "0" for n in figures]
    return [
        *(_count(e.parameters), _count(e.trained), str(e.tokens), str(e.probes)),
        *(*sizes, str(e.gpus), f"{e.hours:.2g}"),
    ]


def _count(n: int) -> str:
    return f"{n / 1e9:.2f} G" if n >= 1e9 else f"{n / 1e6:.2f} M"
