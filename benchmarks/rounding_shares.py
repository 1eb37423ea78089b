"""Measures how much of what the first probes tell apart is rounding, on a real model in 16 bits and in fp32.

  ZO_SHARED=FOLDER python -m benchmarks.rounding_shares MODEL [--out docs/results/rounding-shares.json]

MODEL is a causal model in the Hugging Face layout. For each mode, method, eps and dtype one step on 16 rows of SST-2 is
evaluated: `share` is that of zo/look/rounding_noise.py, in fp32 too; `correlation` is that of the same directions'
losses with those in fp32, of the two sides' differences for MeZO and of the losses for FZOO. One thread.
"""

import argparse
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from experiments.config.compose import compose
from experiments.training.session import build
from zo.errors import ZOWarning
from zo.look.rounding_noise import RoundingNoise, nudged

SETTINGS = (
    ("none", "mezo", 1e-3), ("none", "fzoo", 1e-3), ("lora", "mezo", 1e-3), ("lora", "fzoo", 1e-3),
    ("lora", "mezo", 1e-2), ("prefix", "mezo", 1e-3), ("prefix", "mezo", 1e-2),
)  # fmt: skip
N = {"mezo": 4, "fzoo": 8}  # eight probes beside θ


def measure(model: str, peft: str, method: str, eps: float, dtype: str) -> tuple[float, torch.Tensor]:
    """Returns the share, and what a step of the method is made of: slopes times 2 eps, or losses."""
    overrides = [
        "model=hub", f"model.path={model}", "model.family=causal", f"model.dtype={dtype}", "task=sst2",
        f"task.data_dir={os.environ['ZO_SHARED']}/data/sst2", "task.train=64", "task.dev=4", "task.test=4", "threads=1",
        f"peft={peft}", f"optimizer={method}", f"optimizer.eps={eps}", f"optimizer.n={N[method]}",
    ]  # fmt: skip
    composed = compose(overrides)
    assert composed.config is not None, composed.problems
    session = build(composed.config)
    probes = [probe for probe in session.optimizer.ask(0) if probe.terms]
    batch, noise = session.batch(0), RoundingNoise()
    losses = session.look(probes, batch)
    noise.add(losses, session.look([nudged(probe) for probe in probes], batch))
    assert noise.share is not None
    found = torch.tensor(losses, dtype=torch.float64)
    return noise.share, found[0::2] - found[1::2] if method == "mezo" else found


def main() -> None:
    """Measures every setting and prints a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ZOWarning)  # what is measured here is what they are about
    rows: list[dict[str, Any]] = []
    for peft, method, eps in SETTINGS:
        wide, expected = measure(options.model, peft, method, eps, "float32")
        narrow, found = measure(options.model, peft, method, eps, "bfloat16")
        correlation = float(torch.corrcoef(torch.stack([expected, found]))[0, 1])
        rows.append(
            {
                "peft": peft, "method": method, "eps": eps, "share_float32": round(wide, 3),
                "share_bfloat16": round(narrow, 3), "correlation": round(correlation, 3),
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
        if options.out is not None:  # what was measured stays, whatever comes next
            options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
