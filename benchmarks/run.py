"""Measure and write benchmarks/results/<device>-<model>.json and docs/benchmarks.md.

python -m benchmarks.run [--quick] [--sizes 10m 125m] [--threads 1] [--only fzoo]
"""

import argparse
import json
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def main() -> None:
    """The command."""
    options = _options()
    import torch

    from benchmarks import cases, measure, memory, table

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    for size in options.sizes:
        rows = []
        for case in cases.cases(size):
            if options.only and case.method != options.only:
                continue
            row: dict[str, Any] = {
                "method": case.method,
                "directions": case.directions,
                "n": case.n,
                "model": f"opt-{size}",
                "parameters": sum(p.numel() for p in cases.model(case, torch.device("meta")).parameters()),
                "tokens": case.tokens,
                "dtype": case.dtype,
                "device": _device_name(device),
                "threads": options.threads,
                "torch": torch.__version__,
            }
            row |= measure.times(
                case,
                pairs=options.pairs,
                device=device,
                kernels=options.kernels,
                probes_per_forward=options.probes_per_forward,
            )
            row["journal_bytes_per_step"] = _journal_bytes(case)
            if device.type == "cpu" and sys.platform == "linux":
                row |= memory.peaks(case)
            rows.append(row)
            _say(row)
        if not options.only:
            name = re.sub(r"[^a-z0-9]+", "-", f"{_device_name(device)}-{size}".lower()).strip("-")
            options.results.mkdir(parents=True, exist_ok=True)
            (options.results / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    if options.results == ROOT / "benchmarks" / "results" and not options.only:
        table.write(options.results, ROOT / "docs" / "benchmarks.md")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10m only, 7 pairs")
    parser.add_argument("--sizes", nargs="+", choices=("10m", "125m", "1.3b"), default=None)
    parser.add_argument(
        "--pairs", type=int, default=None, help="interleaved rounds (default 7 quick, else 15)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument(
        "--probes-per-forward", default="auto", type=lambda text: int(text) if text.isdigit() else text
    )
    parser.add_argument("--only", choices=("fzoo", "mezo"), help="print one method, write nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    options.sizes = options.sizes or (["10m"] if options.quick else ["10m", "125m"])
    options.pairs = options.pairs or (7 if options.quick else 15)
    return options


def _device_name(device: Any) -> str:
    """'cpu <model name>' or 'cuda <card>'."""
    import torch

    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "cpu " + next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"cpu {platform.processor() or platform.machine()}"


def _journal_bytes(case: Any) -> int:
    """What one step adds to a journal file."""
    from zo.journal import Journal

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        with Journal(path, {}, case.forwards) as journal:
            before = path.stat().st_size
            journal.append([0.5] * case.forwards)
            return path.stat().st_size - before


def _say(row: dict[str, Any]) -> None:
    low, high = row["step_over_forwards_quartiles"]
    sys.stdout.write(
        f"{row['method']} {row['directions']} {row['model']} {row['tokens']} {row['dtype']}: "
        f"step {row['step_over_forwards']:.3f} [{low:.3f}, {high:.3f}] of which looks {row['look_over_forwards']:.3f}, "
        f"recipe {row['baseline_over_forwards']:.3f}, forward {row['forward_seconds'] * 1e3:.1f} ms, "
        f"memory {row.get('peak_memory_over_allowed', float('nan')):.3f} of what is allowed\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
