"""Measures what only a GPU can show.

python -m benchmarks.gpu bits       signs made on the GPU are those of the CPU, bit for bit
python -m benchmarks.gpu split      a model split over CPU and GPU has the directions of one on the CPU
python -m benchmarks.gpu stacked    how far losses of stacked probes are from those of probes alone, OPT-1.3B
python -m benchmarks.gpu large      seconds and peak memory of steps of OPT-66B, all weights trained in bfloat16

Each prints one JSON row and ends with 1 when what it holds to is not so.

Steps against forwards are benchmarks.run's, with --device cuda (docs/benchmarks.md).
"""

import json
import sys
import time
from typing import Any

import torch
from torch import nn

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.measure import warm_up
from zo.directions import Key, Probe, directions
from zo.estimators import deviation
from zo.look import ModuleLook
from zo.weights import Weights


def peaks(case: Case, device: torch.device) -> dict[str, Any]:
    """Returns the allocator's peak bytes in a plain forward and in a step, probes one after another."""
    before = torch.cuda.memory_allocated(device)
    network, inputs = cases.model(case, device), cases.batch(case, device)
    sizes = [p.numel() * p.element_size() for p in network.parameters()]
    # At the first forward libraries take what is paid once. A method would bring its state, so it comes later.
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats(device)
        cases.plain_forward(network, inputs)
    forward = torch.cuda.max_memory_allocated(device) - before
    method = cases.optimizer(case, network, "auto")
    look = ModuleLook(network, cases.objective, method, probes_per_forward=1)
    steps = warm_up(method)
    for t in range(steps):
        method.tell(t, method.step(t, inputs, look))
    torch.cuda.reset_peak_memory_stats(device)
    method.tell(steps, method.step(steps, inputs, look))
    step = torch.cuda.max_memory_allocated(device) - before
    state = sum(tensor.nbytes for tensor in method.state().values())
    return {
        "weight_bytes": sum(sizes),
        "state_bytes": state,
        "forward_peak_bytes": forward - sum(sizes),
        "step_peak_bytes": step - sum(sizes) - state,
        "largest_leaf_bytes": max(sizes),
        "peak_memory_over_forward": round(step / forward, 4),
        "peak_memory_over_allowed": round((step - state) / (forward + max(sizes)), 4),
    }


def bits(device: torch.device) -> dict[str, Any]:
    """Compares perturbed weights with the CPU's in every dtype, and measures how far Gaussians differ."""
    row: dict[str, Any] = {}
    probe = Probe(((Key(0, 7, 0), 1e-3), (Key(0, 7, 1), -2e-3)))
    for name, dtype in cases.DTYPES.items():
        w = (torch.randn(1000, 999, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
        for kind in ("rademacher", "gaussian"):
            pair = [
                Weights([("w", nn.Parameter(w.clone().to(place)))]) for place in (torch.device("cpu"), device)
            ]
            ours, device_weights = (weights.at("w", probe, directions(kind)).cpu() for weights in pair)
            for weights in pair:
                weights.move(probe.terms, directions(kind), decay=1e-3)
            moved, device_moved = (weights.tensors["w"].detach().cpu() for weights in pair)
            row[f"{kind}_{name}_equal"] = torch.equal(ours, device_weights) and torch.equal(
                moved, device_moved
            )
            row[f"{kind}_{name}_largest_difference"] = (
                (ours.float() - device_weights.float()).abs().max().item()
            )
    row["holds"] = all(row[f"rademacher_{name}_equal"] for name in cases.DTYPES)
    return row


def split(device: torch.device) -> dict[str, Any]:
    """Compares the perturbed weights of a model split over device and CPU with those of one on the CPU."""
    from experiments.models.placing import bring

    case = Case("fzoo", "rademacher", "10m", "4x32", "float32")
    unsplit, halves = (cases.model(case, torch.device("cpu")) for _ in range(2))
    layers = len(halves.get_submodule("model.decoder.layers")._modules)
    above = [f"model.decoder.layers.{i}" for i in range(layers // 2, layers)]
    below = [f"model.decoder.layers.{i}" for i in range(layers // 2)]
    for part in above:
        halves.get_submodule(part).to(device)
    bring(halves, [*below, *above, "model.decoder.final_layer_norm", "lm_head"])
    first, two = (cases.optimizer(case, network, "auto") for network in (unsplit, halves))
    probe = first.ask(0)[1]
    equal = all(
        torch.equal(
            first.weights.at(name, probe, directions("rademacher")),
            two.weights.at(name, probe, directions("rademacher")).cpu(),
        )
        for name in first.weights.tensors
    )
    inputs = cases.batch(case, torch.device("cpu"))
    losses = [
        m.step(0, inputs, ModuleLook(network, cases.objective, m))
        for m, network in ((first, unsplit), (two, halves))
    ]
    gap = max(abs(a - b) for a, b in zip(*losses, strict=True))
    return {"directions_equal": equal, "largest_loss_difference": gap, "holds": equal}


def stacked(device: torch.device, size: str = "1.3b", tokens: str = "16x64") -> dict[str, Any]:
    """Measures how far stacking probes moves FZOO's differences l_i − l_0, in units of σ: at most 1 %."""
    case = Case("fzoo", "rademacher", size, tokens, "bfloat16")
    network, inputs = cases.model(case, device), cases.batch(case, device)
    optimizer = cases.optimizer(case, network, "auto")

    def differences(probes_per_forward: int | str) -> list[float]:
        look = ModuleLook(network, cases.objective, optimizer, probes_per_forward=probes_per_forward)
        base, *losses = look(optimizer.ask(0), inputs)
        return [loss - base for loss in losses]

    separate, together = differences(1), differences("all")
    sigma = deviation(separate, 1)
    apart = max(abs(a - b) for a, b in zip(separate, together, strict=True)) / sigma
    return {"sigma": sigma, "largest_difference_over_sigma": apart, "holds": apart <= 0.01}


def large(device: torch.device, size: str = "66b", tokens: str = "16x64") -> dict[str, Any]:
    """Takes one full-parameter step of FZOO and of MeZO, probes one after another, if the weights fit."""
    row: dict[str, Any] = {"model": f"opt-{size}", "tokens": tokens, "dtype": "bfloat16"}
    case = Case("fzoo", "rademacher", size, tokens, "bfloat16")
    try:
        network, inputs = cases.model(case, device), cases.batch(case, device)
        for method in (case, Case("mezo", "gaussian", size, tokens, "bfloat16")):
            optimizer = cases.optimizer(method, network, "auto")
            look = ModuleLook(network, cases.objective, optimizer, probes_per_forward=1)
            cases.plain_forward(network, inputs)
            _reset(device)
            began = time.perf_counter()
            cases.plain_forward(network, inputs)
            _wait(device)
            row[f"{method.method}_forward_seconds"] = time.perf_counter() - began
            row[f"{method.method}_forward_peak_bytes"] = _peak(device)
            for t in range(2):  # the first compiles
                _reset(device)
                began = time.perf_counter()
                optimizer.tell(t, optimizer.step(t, inputs, look))
                _wait(device)
                row[f"{method.method}_step_seconds"] = time.perf_counter() - began
                row[f"{method.method}_step_peak_bytes"] = _peak(device)
            print(json.dumps(row), file=sys.stderr, flush=True)  # a command that is cut off has said so much
    except torch.OutOfMemoryError as error:
        row["does_not_fit"] = str(error).splitlines()[0]
    return row


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def main() -> None:
    """Runs the command."""
    whats = {"bits": bits, "split": split, "stacked": stacked, "large": large}
    if len(sys.argv) != 2 or sys.argv[1] not in whats:
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        sys.exit("No CUDA device is visible: this measures a GPU.")
    what = sys.argv[1]
    device = torch.device("cuda:0")
    row = whats[what](device)
    print(json.dumps({"what": what, "device": f"cuda {torch.cuda.get_device_name(device)}"} | row))
    sys.exit(0 if row.get("holds", True) else 1)


if __name__ == "__main__":
    main()
