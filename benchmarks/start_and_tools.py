"""Measures what a command costs before and beside its training: starts, sweeps of short runs, tools over many runs.

python -m benchmarks.start_and_tools [--only watch report] [--sweep 20] [--runs 2000]

Every number is CPU seconds, user and system, of a whole command with all processes that it starts: other programs
disturb these least. Rows go to benchmarks/results/tools/<device>.json as they are measured, and from there to
docs/benchmarks.md. `fresh` and `forked` are the same sweep, with launcher.fork=false and true, one after the other.
"""

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.run_folders import make
from experiments.rundir.provenance import processor

ROOT = Path(__file__).parents[1]
SHORT = ("model=tiny-clm", "task=sentiment", "optimizer=mezo", "budget.steps=5")
SEEDS = 5  # of a setting; the settings of the sweep are learning rates
DRY = 300
_WORDS = {
    "first": "a run of 5 steps (tiny-clm, sentiment, MeZO)",
    "again": "the command of a run that has ended, given again",
    "fresh": "a sweep of {count} such runs, an interpreter each (launcher.fork=false)",
    "forked": "the same sweep, forks of one process",
    "watch": "`watch --once` of {count:,} runs with {rows} steps each",
    "report": "`report` of the same runs",
    "dry": "`launch.py -m --dry-run` of {count} runs",
}
_TARGETS = {"watch": 4.0, "report": 7.0, "dry": 10.0}
_SHARE = 1 / 3  # target of forked over fresh


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=tuple(_WORDS), default=list(_WORDS))
    parser.add_argument("--sweep", type=int, default=20, help="runs of the sweep")
    parser.add_argument("--runs", type=int, default=2000, help="folders that watch and report read")
    parser.add_argument("--rows", type=int, default=200, help="train rows in each")
    options = parser.parse_args()
    device = f"cpu {processor()}"
    path = ROOT / "benchmarks" / "results" / "tools" / f"{device.replace(' ', '-').lower()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            row = _MEASURES[name](Path(folder), options)
        row |= {"name": name, "device": device, "date": datetime.date.today().isoformat()}
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        kept = [old for old in rows if old["name"] != name]
        rows = sorted([*kept, row], key=lambda each: list(_WORDS).index(each["name"]))
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(f"{_WORDS[name].format(**row)}: {row['seconds']:.1f} s", flush=True)


def cpu_seconds(*command: str) -> float:
    """Returns the CPU seconds of a Python command and of all processes that it has waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _first(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    return {"seconds": cpu_seconds("launch.py", *SHORT, f"paths.runs={folder}")}


def _again(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    _first(folder, options)
    return _first(folder, options)


def _sweep(forks: bool) -> Callable[[Path, argparse.Namespace], dict[str, Any]]:
    def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
        seeds = min(SEEDS, options.sweep)
        rates = ",".join(f"{1e-4 * (i + 1):g}" for i in range(options.sweep // seeds))
        sweep = [f"optimizer.lr={rates}", f"seed={','.join(map(str, range(seeds)))}"]
        launcher = [f"launcher.fork={str(forks).lower()}", "launcher.threads=1", f"paths.runs={folder}"]
        seconds = cpu_seconds("launch.py", "-m", *SHORT, *sweep, *launcher)
        ended = len([*folder.rglob("result.json")])
        assert ended == options.sweep // seeds * seeds, f"{ended} runs have ended"
        return {"seconds": seconds, "count": ended}

    return measure


def _tool(*command: str) -> Callable[[Path, argparse.Namespace], dict[str, Any]]:
    def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
        sweep = make(folder, options.runs, options.rows)
        seconds = cpu_seconds("-m", "experiments", *command, str(sweep))
        return {"seconds": seconds, "count": options.runs, "rows": options.rows}

    return measure


def _dry(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    rates = ",".join(f"{1e-6 * (i + 1):g}" for i in range(DRY // SEEDS))
    sweep = [f"optimizer.lr={rates}", f"seed={','.join(map(str, range(SEEDS)))}", f"paths.runs={folder}"]
    return {"seconds": cpu_seconds("launch.py", "-m", "--dry-run", *SHORT, *sweep), "count": DRY}


_MEASURES = {
    "first": _first,
    "again": _again,
    "fresh": _sweep(False),
    "forked": _sweep(True),
    "watch": _tool("watch", "--once"),
    "report": _tool("report"),
    "dry": _dry,
}


def section(results: Path) -> str:
    """Returns the part of docs/benchmarks.md, from all result files; '' if there are none."""
    text = ""
    for path in sorted(results.glob("*.json")):
        rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
        lines = ["| command | CPU seconds | target |", "| --- | --- | --- |"]
        lines += [
            f"| {_WORDS[name].format(**row)} | {row['seconds']:.1f} | {_target(rows, name)} |"
            for name, row in rows.items()
        ]
        days = sorted({row["date"] for row in rows.values()})
        text += (
            f"{next(iter(rows.values()))['device']}, {' to '.join(dict.fromkeys((days[0], days[-1])))}:\n\n"
        )
        text += "\n".join(lines) + "\n\n"
    head = (
        "## Start and tools\n\nCPU seconds, user and system, of whole commands with all processes that they start\n"
        "(`python -m benchmarks.start_and_tools`).\n\n"
    )
    return head + text if text else ""


def _target(rows: dict[str, dict[str, Any]], name: str) -> str:
    if name == "forked" and "fresh" in rows:
        share = rows["forked"]["seconds"] / rows["fresh"]["seconds"]
        return f"{_SHARE:.2f} of the sweep above: {share:.2f}, {'met' if share <= _SHARE else 'missed'}"
    if name not in _TARGETS:
        return ""
    return f"{_TARGETS[name]:.0f} {'met' if rows[name]['seconds'] <= _TARGETS[name] else 'missed'}"


if __name__ == "__main__":
    main()
