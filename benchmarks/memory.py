"""Measures peak memory of one plain forward, or of one sequential step, in a process of its own.

    python -m benchmarks.memory '{"method": "fzoo", …}' forward|step

The kernel's high-water mark of resident memory is reset after what is paid once is there: the weights, and
the code that libraries load or generate at a first step (one is taken and its objects dropped). The allocator
gives back every freed block of 64 KiB at once. Linux.
"""

import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cases import Case

_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def peaks(case: Case) -> dict[str, Any]:
    """Returns bytes above weights and state of a forward and of a step, and the ratio of the whole peaks.

    A forward needs no state, so the ratio is what a method takes over inference.
    """
    step = _alone(case, "step")
    # Of the size, batch and dtype alone: one process serves all methods.
    forward = _alone(dataclasses.replace(case, method="mezo", directions="gaussian"), "forward")
    weights, state, leaf = step["weights"], step["state"], step["largest"]
    return {
        "weight_bytes": weights,
        "state_bytes": state,
        "forward_peak_bytes": forward["peak"],
        "step_peak_bytes": step["peak"],
        "largest_leaf_bytes": leaf,
        "peak_memory_over_forward": round((weights + state + step["peak"]) / (weights + forward["peak"]), 4),
        "peak_memory_over_allowed": round((weights + step["peak"]) / (weights + forward["peak"] + leaf), 4),
    }


@cache
def _alone(case: Case, what: str) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(dataclasses.asdict(case)), what]
    environment = os.environ | _ALLOCATOR | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure(case: Case, what: str) -> dict[str, int]:
    """Measures in this process the rise of resident memory, and the bytes of weights, state and largest tensor."""
    import torch

    from benchmarks import cases
    from benchmarks.measure import warm_up
    from zo.look import ModuleLook

    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    network, inputs = cases.model(case, cpu), cases.batch(case, cpu)
    sizes = [p.numel() * p.element_size() for p in network.parameters()]
    method = cases.optimizer(case, network, "auto")
    cases.plain_forward(network, inputs)
    steps = warm_up(method)
    for t in range(steps):
        first = ModuleLook(network, cases.objective, method, probes_per_forward=1)
        method.tell(t, method.step(t, inputs, first))
        del first
    look = ModuleLook(network, cases.objective, method, probes_per_forward=1)
    before = _settled()
    if what == "step":
        method.tell(steps, method.step(steps, inputs, look))
    else:
        cases.plain_forward(network, inputs)
    rise = _status("VmHWM") - before
    state = sum(tensor.nbytes for tensor in method.state().values())
    return {"peak": rise, "weights": sum(sizes), "state": state, "largest": max(sizes)}


def _settled() -> int:
    """Returns the resident bytes, after resetting the high-water mark to them."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Case(**json.loads(sys.argv[1])), sys.argv[2])) + "\n")
