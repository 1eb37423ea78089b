"""Measures what noise costs a step in 16 bits, in several forms side by side.

  python -m benchmarks.noise_forms MODEL [--tokens 16x28] [--rounds 5] [--out FILE]

MODEL is a causal model in the Hugging Face layout. One thread, process CPU seconds; all forms take turns in each round,
and a number is the median of the rounds.

`weight` has nanoseconds a bfloat16 weight, of a tensor of 16 M, for all noise of a step (both sides and the move):

  mezo 32 bits       Box-Muller, made for both sides and again for the move: the default
  mezo 16 bits       the same with short Gaussians (directions: {kind: gaussian, bits: 16})
  mezo kept          Box-Muller once, kept in fp32: 4 bytes more a weight
  adamezo ...        both sides, and the moments of 10 steps
  adamezo 8 bits     both sides with 32 bits, and the moments of 10 kept steps of 8 bits: 10 bytes more a weight

`step` has the seconds of whole steps of the model over those of as many forward passes; `first_order` those of AdamW
beside a plain torch loop of the same recipe (fp32 masters, fp32 moments, a clipped norm).
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks import cases
from zo.kernels import Native, Noise
from zo.kernels.adam_window import Moments
from zo.kernels.transforms import AddMomentum
from zo.look import ModuleLook
from zo.noise import GAUSSIANS, SHORT_GAUSSIANS
from zo.optimizers import AdaMeZO, AdamW, MeZO, Optimizer

SHORT: dict[str, Any] = {"kind": "gaussian", "bits": 16}
STREAMS = {"32 bits": GAUSSIANS, "16 bits": SHORT_GAUSSIANS}
COUNT, HORIZON = 1 << 24, 10
Runs = dict[str, Callable[[int], object]]


def in_turn(runs: Runs, rounds: int) -> dict[str, list[float]]:
    """Returns the CPU seconds of each run in each round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for t in range(rounds + 1):
        for name in names[t % len(names) :] + names[: t % len(names)]:
            began = time.process_time()
            runs[name](t)
            if t:
                seconds[name].append(time.process_time() - began)
    return seconds


def per_weight(rounds: int) -> dict[str, float]:
    """Returns the nanoseconds a weight of each form's noise of a step."""
    w = torch.full((COUNT,), 0.02, dtype=torch.bfloat16)
    outs = [torch.empty_like(w), torch.empty_like(w)]
    kept, window = torch.zeros(1, COUNT), torch.zeros(HORIZON, COUNT, dtype=torch.int8)
    form, wide, moments = Native(), Noise(1, GAUSSIANS), _window_loop()
    slopes, first, second = (
        [0.1] * HORIZON,
        [0.7**k for k in range(HORIZON)],
        [0.9**k for k in range(HORIZON)],
    )
    rule = Moments(tuple((c,) for c in slopes), tuple(first), tuple(second), -1e-5, 1e-5, False)

    def sides(noise: Noise) -> None:
        form.perturb_many(w, noise, [[(7, 1e-3)], [(7, -1e-3)]], outs)

    def mezo(noise: Noise, t: int) -> None:
        sides(noise)
        form.move(w, noise, [(7, 1e-6)])

    def mezo_kept(t: int) -> None:
        form.noise([7], wide, 0, COUNT, w.device, kept)
        form.perturb_many(w, wide, [[], []], outs, AddMomentum(kept[0], (1e-3, -1e-3)))
        form.move(w, wide, [], entries=AddMomentum(kept[0], (1e-6,)))

    def adamezo(noise: Noise, t: int) -> None:
        sides(noise)
        form.moments(w, noise, rule, list(range(HORIZON)))

    def adamezo_8_bits(t: int) -> None:
        sides(wide)
        moments(window, slopes, first, second, w)

    runs: Runs = {"copy": lambda t: outs[0].copy_(w)}
    for bits, stream in STREAMS.items():
        runs[f"mezo {bits}"] = partial(mezo, Noise(1, stream))
        runs[f"adamezo {bits}"] = partial(adamezo, Noise(1, stream))
    runs |= {"mezo kept": mezo_kept, "adamezo 8 bits": adamezo_8_bits}
    return {
        name: round(statistics.median(s) * 1e9 / COUNT, 3)
        for name, s in sorted(in_turn(runs, rounds).items())
    }


def _window_loop() -> Callable[..., None]:
    """Compiles the moments of a window of 8-bit numbers; w takes the step rounded to nearest."""
    source = """
    #include <cmath>
    #include <cstdint>
    #include <cstring>
    extern "C" void window(const int8_t* q, int64_t n, int steps, const float* c, const float* a, const float* b,
                           uint16_t* w) {
        for (int64_t i = 0; i < n; i += 512) {
            float m[512] = {}, v[512] = {};
            for (int k = 0; k < steps; k++)
                for (int j = 0; j < 512; j++) {
                    float g = q[k * n + i + j] * c[k];
                    m[j] += g * a[k];
                    v[j] += g * g * b[k];
                }
            for (int j = 0; j < 512; j++) {
                uint32_t bits = (uint32_t)w[i + j] << 16;
                float x;
                memcpy(&x, &bits, 4);
                x += m[j] / (sqrtf(v[j]) + 1e-5f) * -1e-5f;
                memcpy(&bits, &x, 4);
                w[i + j] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
            }
        }
    }"""
    folder = Path(tempfile.mkdtemp())
    (folder / "window.cpp").write_text(source, encoding="utf-8")
    command = ["g++", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC"]
    subprocess.run([*command, folder / "window.cpp", "-o", folder / "window.so"], check=True)
    library = ctypes.CDLL(str(folder / "window.so"))

    def loop(q: torch.Tensor, c: list[float], a: list[float], b: list[float], w: torch.Tensor) -> None:
        numbers = [(ctypes.c_float * HORIZON)(*values) for values in (c, a, b)]
        n, places = ctypes.c_int64(w.numel()), [ctypes.c_void_p(t.data_ptr()) for t in (q, w)]
        library.window(places[0], n, HORIZON, *numbers, places[1])

    return loop


def steps(model: str, tokens: str, rounds: int) -> dict[str, Any]:
    """Returns the ratio of whole steps to their forward passes."""
    network = _network(model)
    batch = _batch(network, tokens)
    made: dict[str, Optimizer] = {
        "mezo 32 bits": MeZO(network, lr=0.0),
        "mezo 16 bits": MeZO(network, lr=0.0, directions=SHORT),
        "mezo rademacher": MeZO(network, lr=0.0, directions="rademacher"),
        "adamezo 32 bits": AdaMeZO(network, lr=1e-12, warmup=0),
        "adamezo 16 bits": AdaMeZO(network, lr=1e-12, warmup=0, directions=SHORT),
    }
    runs: Runs = {"forwards": lambda t: [cases.plain_forward(network, batch) for _ in range(2)]}
    for name, optimizer in made.items():
        look = ModuleLook(network, cases.objective, optimizer)
        if isinstance(optimizer, AdaMeZO):
            for t in range(HORIZON):
                optimizer.window.push(t, (0.1,))

        def step(t: int, optimizer: Optimizer = optimizer, look: ModuleLook = look) -> None:
            optimizer.tell(HORIZON + t, optimizer.step(HORIZON + t, batch, look), lr=1e-12)

        runs[name] = step
    seconds = in_turn(runs, rounds)
    return {"forward_seconds": round(statistics.median(seconds["forwards"]) / 2, 3)} | {
        name: round(_ratio(seconds[name], seconds["forwards"]), 3) for name in made
    }


def first_order(model: str, tokens: str, rounds: int) -> dict[str, Any]:
    """Returns a step of AdamW over that of a plain torch loop."""
    network, other = _network(model), _network(model)
    batch = _batch(network, tokens)
    optimizer = AdamW(network, lr=1e-6, clip=1.0)
    look = ModuleLook(network, cases.objective, optimizer)
    masters = {p: p.detach().float().requires_grad_() for p in other.parameters()}
    plain = torch.optim.AdamW(masters.values(), lr=1e-6, weight_decay=0.0)

    def ours(t: int) -> None:
        optimizer.tell(t, optimizer.step(t, batch, look))

    def loop(t: int) -> None:
        loss = cases.objective(other.train(), batch).mean()
        loss.backward()
        for parameter, master in masters.items():
            assert parameter.grad is not None
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters.values(), 1.0)
        plain.step()
        plain.zero_grad()
        with torch.no_grad():
            for parameter, master in masters.items():
                parameter.copy_(master)
        loss.item()

    seconds = in_turn({"loop": loop, "zo": ours}, rounds)
    return {
        "loop_seconds": round(statistics.median(seconds["loop"]), 3),
        "zo_over_loop": round(_ratio(seconds["zo"], seconds["loop"]), 3),
    }


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _network(model: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()


def _batch(network: Any, tokens: str) -> dict[str, torch.Tensor]:
    shape = tuple(int(n) for n in tokens.split("x"))
    generator = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(5, network.config.vocab_size, shape, generator=generator)}


def main() -> None:
    """Measures and prints each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--tokens", default="16x28")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["weight", "step", "first_order"])
    parser.add_argument("--out", type=Path)
    request = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], Any]] = {
        "weight": lambda: per_weight(request.rounds),
        "step": lambda: steps(request.model, request.tokens, request.rounds),
        "first_order": lambda: first_order(request.model, request.tokens, request.rounds),
    }
    # Each part has its own conditions: a file may hold parts of earlier calls with other options.
    conditions = {"tokens": request.tokens, "rounds": request.rounds, "torch": torch.__version__}
    results: dict[str, Any] = {}
    if request.out is not None and request.out.exists():
        results = json.loads(request.out.read_text(encoding="utf-8"))
    for part in request.parts:
        results[part] = conditions | parts[part]()
        print(part, results[part], flush=True)
        if request.out is not None:  # what was measured stays, whatever comes next
            request.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
