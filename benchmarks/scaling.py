"""Measures the speed-up of a step when two processes share its probes; writes docs/results/scaling.json.

python -m benchmarks.scaling [--size 10m] [--tokens 16x64 4x32] [--methods fzoo mezo] [--rounds 7]

Two processes of one thread each live side by side. In every round the first takes a step alone, then both take the
same step together; the ratio of the two is the round's speed-up. On a machine with other work the processor time of
the busiest rank says what the wall clock would without it, so its ratio is given too.
"""

import argparse
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "results" / "scaling.json"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="10m")
    parser.add_argument("--tokens", nargs="+", default=["16x64", "4x32"])
    parser.add_argument("--methods", nargs="+", default=["fzoo", "mezo"])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else []
    for method in options.methods:
        for tokens in options.tokens:
            row = measure(method, options.size, tokens, options.rounds)
            print(json.dumps(row))
            same = ("method", "model", "tokens")
            rows = [old for old in rows if any(old[key] != row[key] for key in same)] + [row]
            # Written after each row, so that an interrupted series keeps its rows.
            OUT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(method: str, size: str, tokens: str, rounds: int) -> dict[str, Any]:
    """Returns one row: medians over the rounds, with quartiles of the speed-up."""
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=_rank, args=(rank, port, method, size, tokens, rounds, answers))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    row = answers.get()
    for process in processes:
        process.join()
    return row


def _rank(rank: int, port: int, method: str, size: str, tokens: str, rounds: int, answers: Any) -> None:
    import torch

    from benchmarks import cases
    from zo import ModuleLook, Ranks
    from zo.rank_env import RankInfo

    torch.set_num_threads(1)
    device = torch.device("cpu")
    case = cases.Case(method, "rademacher", size, tokens, "float32")
    batch = cases.batch(case, device)

    def stepper(team: Ranks | None) -> Callable[[int], object]:
        network = cases.model(case, device)
        optimizer = cases.optimizer(case, network, "auto")
        look = ModuleLook(network, cases.objective, optimizer)
        whose = look if team is None else team.over(look, optimizer)
        return lambda t: optimizer.tell(t, whose(optimizer.ask(t), batch))

    alone, together = [], []
    with Ranks(RankInfo(rank, 2, rank, 2, "127.0.0.1", port)) as team:
        solo, shared = stepper(None), stepper(team)
        for t in range(rounds + 1):  # the first round warms up
            team.begin(t)
            first = _timed(solo, t) if rank == 0 else (0.0, 0.0)
            team.every(0)  # a barrier: the other rank waits, and takes no processor
            second = team.every(_timed(shared, t))
            if t:
                alone.append(first)
                together.append(second)
    if rank == 0:
        answers.put(_row(case, alone, together))


def _row(
    case: Any, alone: list[tuple[float, float]], together: list[list[tuple[float, float]]]
) -> dict[str, Any]:
    walls = [one[0] / max(wall for wall, _ in both) for one, both in zip(alone, together, strict=True)]
    busy = [one[1] / max(cpu for _, cpu in both) for one, both in zip(alone, together, strict=True)]
    low, _, high = statistics.quantiles(walls, n=4)
    return {
        "method": case.method,
        "model": f"opt-{case.size}",
        "tokens": case.tokens,
        "rounds": len(walls),
        "seconds_alone": statistics.median(wall for wall, _ in alone),
        "speedup": statistics.median(walls),
        "quartiles": [low, high],
        "speedup_of_processor_time": statistics.median(busy),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _timed(take: Callable[[int], object], t: int) -> tuple[float, float]:
    """Returns seconds of the clock and of this process's processor."""
    wall, processor = time.perf_counter(), time.process_time()
    take(t)
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main()
