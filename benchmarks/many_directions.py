"""Measures FZOO's step with many directions on the shipped causal model, over its forward passes.

  python -m benchmarks.many_directions [--n 8 32 128] [--probes auto all 5] [--rounds 5] [--out FILE]

16 rows of 24 tokens, the loss over all positions, one thread, process CPU seconds. `--probes` are values of
probes_per_forward that take turns with the plain forward passes; a number is the median of the rounds' ratios. Steps
that also compare stacks with probes alone are not timed.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks import cases
from zo.look import ModuleLook
from zo.look.module import stack_size
from zo.optimizers import FZOO

MODEL = Path(__file__).parents[1] / "experiments" / "world" / "tiny-clm"
ROWS, LENGTH = 16, 24
AT_LEAST = 33  # evaluations timed at a time


def measure(n: int, probes: list[int | str], rounds: int) -> dict[str, Any]:
    """Returns the ratios of one number of directions."""
    plain = _network()
    generator = torch.Generator().manual_seed(1)
    batch = {"input_ids": torch.randint(5, plain.config.vocab_size, (ROWS, LENGTH), generator=generator)}
    repeats = max(1, AT_LEAST // (n + 1))
    made = {}
    for each in probes:
        network = _network()
        optimizer = FZOO(network, lr=1e-6, n=n)
        made[each] = optimizer, ModuleLook(network, cases.objective, optimizer, probes_per_forward=each)
    forwards: list[float] = []
    ratios: dict[int | str, list[float]] = {each: [] for each in probes}
    t = 0
    for turn in range(rounds + 1):  # the first does not count
        began = time.process_time()
        for _ in range(repeats * (n + 1)):
            cases.plain_forward(plain, batch)
        forward = time.process_time() - began
        for each, (optimizer, look) in made.items():
            taken = 0.0
            while taken == 0.0 or t % repeats:
                compared = look.check_forward_passes
                began = time.process_time()
                optimizer.tell(t, optimizer.step(t, batch, look))
                if look.check_forward_passes == compared:
                    taken, t = taken + time.process_time() - began, t + 1
            if turn:
                ratios[each].append(taken / forward)
        if turn:
            forwards.append(forward / repeats / (n + 1))
    bytes_ = sum(p.nbytes for p in plain.parameters())
    return {
        "n": n,
        "forward_milliseconds": round(statistics.median(forwards) * 1e3, 2),
        "auto_stacks": stack_size("auto", n + 1, ROWS * LENGTH, bytes_),
        **{f"step_over_forwards_{each}": round(statistics.median(r), 3) for each, r in ratios.items()},
    }


def _network() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def main() -> None:
    """Measures each number of directions and prints a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", nargs="+", type=int, default=[8, 32, 128])
    parser.add_argument("--probes", nargs="+", default=["auto"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    request = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for n in request.n:
        probes = [int(each) if each.isdigit() else each for each in request.probes]
        rows.append(measure(n, probes, request.rounds))
        print(rows[-1], flush=True)
        if request.out is not None:
            request.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
