"""Measures and writes benchmarks/results/<device>-<model>.json and docs/benchmarks.md.

python -m benchmarks.run [--quick] [--sizes 10m 125m] [--threads 1] [--only fzoo mezo] [--missing]

A row is written as soon as it is measured; rows of other methods in the file stay, and of the row itself what is
not measured now.
"""

import argparse
import dataclasses
import datetime
import gc
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.rundir.provenance import processor

ROOT = Path(__file__).parents[1]
_SIGN = {"times": "step_over_forwards", "memory": "step_peak_bytes"}  # what a row has once it is measured


def main() -> None:
    """Runs the command."""
    options = _options()
    import torch

    from benchmarks import cases, table

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    for size in options.sizes:
        name = re.sub(r"[^a-z0-9]+", "-", f"{device_name(device)}-{size}".lower()).strip("-")
        path = options.results / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        for case in cases.cases(size, options.tokens, options.dtypes):
            if options.only and case.method not in options.only:
                continue
            old = _rows(path).get(_name(dataclasses.asdict(case)), {})
            wanted = [part for part in options.measure if not (options.missing and _SIGN[part] in old)]
            if not wanted:
                continue
            gc.collect()  # else models of the row before may still be there
            try:
                new = _row(case, device, options, wanted)
            except torch.OutOfMemoryError as error:
                print(
                    f"opt-{size} {_name(dataclasses.asdict(case))}: {str(error).splitlines()[0]}", flush=True
                )
                continue
            # Read again: a series of times and one of memory can run at once. One that is cut off keeps its rows.
            rows = _rows(path)
            rows[_name(new)] = rows.get(_name(new), {}) | new
            path.write_text(json.dumps(list(rows.values()), indent=1) + "\n", encoding="utf-8")
            _say(rows[_name(new)])
    if options.results == ROOT / "benchmarks" / "results":
        table.write(options.results, ROOT / "docs" / "benchmarks.md")


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the file's rows by case."""
    return {_name(row): row for row in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}


def _name(case: dict[str, Any]) -> str:
    return " ".join(str(case[key]) for key in ("method", "directions", "tokens", "dtype"))


def _row(case: Any, device: Any, options: argparse.Namespace, wanted: list[str]) -> dict[str, Any]:
    """Measures one case: times, memory or both."""
    import torch

    from benchmarks import cases, gpu, measure, memory

    row: dict[str, Any] = {
        "method": case.method,
        "directions": case.directions,
        "model": f"opt-{case.size}",
        "parameters": sum(p.numel() for p in cases.model(case, torch.device("meta")).parameters()),
        "tokens": case.tokens,
        "dtype": case.dtype,
        "device": device_name(device),
        "threads": options.threads,
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
    if "times" in wanted:
        row |= measure.times(
            case,
            pairs=options.pairs,
            device=device,
            kernels=options.kernels,
            probes_per_forward=options.probes_per_forward,
        )
        row["journal_bytes_per_step"] = _journal_bytes(row["forward_passes"])
    if "memory" in wanted and device.type == "cuda":
        row |= gpu.peaks(case, device)
    elif "memory" in wanted and sys.platform == "linux":
        row |= memory.peaks(case)
    return row


def _options() -> argparse.Namespace:
    from benchmarks.cases import DTYPES, SIZES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10m only, 7 rounds")
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=None)
    parser.add_argument("--tokens", nargs="+", default=["16x64", "4x32"], help="batches, rows x length")
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument(
        "--pairs", type=int, default=None, help="interleaved rounds (default 7 quick, else 15)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument(
        "--probes-per-forward", default="auto", type=lambda text: int(text) if text.isdigit() else text
    )
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="only these methods; other rows stay")
    parser.add_argument("--measure", nargs="+", choices=tuple(_SIGN), default=list(_SIGN))
    parser.add_argument("--missing", action="store_true", help="only what the files do not have yet")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    options.sizes = options.sizes or (["10m"] if options.quick else ["10m", "125m"])
    options.pairs = options.pairs or (7 if options.quick else 15)
    return options


def device_name(device: Any) -> str:
    """Returns 'cpu <model name>' or 'cuda <card>'."""
    import torch

    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {processor()}"


def _journal_bytes(losses: int) -> int:
    """Returns the bytes that one step adds to a journal file."""
    from zo.journal import Journal

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        with Journal(path, {}, losses) as journal:
            before = path.stat().st_size
            journal.append([0.5] * losses)
            return path.stat().st_size - before


def _say(row: dict[str, Any]) -> None:
    parts = []
    if _SIGN["times"] in row:
        low, high = row["step_over_forwards_quartiles"]
        looks = row["look_over_forwards"]
        recipe = row.get("baseline_over_forwards", float("nan"))
        parts += [
            f"step {row['step_over_forwards']:.3f} [{low:.3f}, {high:.3f}] of which looks {looks:.3f}",
            f"recipe {recipe:.3f}",
            f"forward {row['forward_seconds'] * 1e3:.1f} ms",
        ]
    if "peak_memory_over_allowed" in row:
        parts.append(f"memory {row['peak_memory_over_allowed']:.3f} of what is allowed")
    print(f"{row['model']} {_name(row)}: {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
