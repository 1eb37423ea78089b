"""Tests what runs survive and writes the results down: python -m benchmarks.reliability [--out docs/reliability.md].

Every try is checked against an undisturbed run. The process imports once and forks a child for each try.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import experiments.training.run  # noqa: F401  # before the first fork, so that no child imports it again
from benchmarks import libraries
from benchmarks.trials import Trials, Try

ROOT = Path(__file__).parents[1]
SHOWN = 40  # tries that are listed by name

HEAD = """\
# Reliability

Made by `python -m benchmarks.reliability --seed {seed}{every} --out docs/reliability.md` on {date}: {tries:,} tries,
of which {wrong} failed, in {seconds:.0f} seconds of one core ({wall:.0f} by the clock;
{machine}, torch {torch}).

A try disturbs a run of four steps and then reruns the same command. It passes only if `result.json`, every row of
`metrics.jsonl` and the names of all files equal those of an undisturbed run, apart from times and memory. Commands that
only read must answer with an exit code and a sentence, still report the other, undamaged run, and change nothing.

| what was done | tries | wrong |
|---|--:|--:|
"""
TAIL = """
- **Crash, I/O error**: the process is killed before, during or after its n-th file operation below the run's folder,
  or that operation raises ENOSPC or EIO. n takes every value (with `--every N` each N-th), for each kind of
  `replays_from`.
- **Two futures**: a journal is cut after each record and continued at another learning rate, as a budget of time may
  do. Then the run is resumed with and without the snapshots of the first continuation.
- **Damaged file**: config.yaml, journal, metrics.jsonl, result.json, status.json, provenance.json and lock, each empty,
  half, `[]`, `{}`, `null`, not UTF-8, with a bad line in the middle, and with one bit flipped.
- **Small disk**: a tmpfs of that many KiB, which is enlarged before the same command is rerun.
- **Fuzzed**: nonsense overrides and rows of data must be refused with exit code 2, or run.
- **torch's default dtype, load_state_dict**: every method of conf/optimizer, compared with the bits of the usual order.

Not tried: a power cut (files are synced before they are renamed, but nobody pulled a plug), NFS, a GPU.
"""


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every try came out as it must, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability", description="Disturb runs and compare."
    )
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn; printed and written down")
    parser.add_argument(
        "--every", type=int, default=1, help="try only every N-th file operation; default: all"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], help="run only these kinds of tries: crashes damages disks ..."
    )
    parser.add_argument("--out", type=Path, help="write the page to this file; default: print the table")
    request = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # steps that 16 bits swallow are no matter here
    sys.stderr.write(f"seed {request.seed}\n")
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # waiting for a disk tests nothing
    with tempfile.TemporaryDirectory(prefix="zo-reliability-", dir=memory) as folder:
        began, before = time.monotonic(), _cpu()
        tries = list(
            _run_tries(_kinds(Trials(Path(folder), request.seed, request.every), Path(folder)), request.only)
        )
        text = page(tries, request, _cpu() - before, time.monotonic() - began)
    if request.out is None:
        sys.stdout.write(text)
    else:
        request.out.write_text(text, encoding="utf-8")
    return int(any(each.problem for each in tries))


def _kinds(trials: Trials, folder: Path) -> Mapping[str, Callable[[], Iterable[Try]]]:
    return {
        "crashes": trials.crashes,
        "damages": trials.damages,
        "disks": trials.disks,
        "processes": trials.processes,
        "fuzz": trials.fuzz,
        "futures": lambda: libraries.futures(folder),
        "journals": lambda: libraries.journals(folder),
        "ranks": lambda: libraries.ranks(folder),
        "dtypes": libraries.dtypes,
    }


def _run_tries(kinds: Mapping[str, Callable[[], Iterable[Try]]], only: Sequence[str]) -> Iterator[Try]:
    """Yields every try; reports failed ones at once."""
    for name, kind in kinds.items():
        if only and name not in only:
            continue
        began, number = time.monotonic(), 0
        for attempt in kind():
            number += 1
            if attempt.problem is not None:
                sys.stderr.write(f"{attempt.kind}; {attempt.what}: {attempt.problem}\n")
            yield attempt
        sys.stderr.write(f"{name}: {number} tries, {time.monotonic() - began:.0f} s\n")


def page(tries: Sequence[Try], request: argparse.Namespace, seconds: float, wall: float) -> str:
    """Returns the page as Markdown."""
    every = "" if request.every == 1 else f" --every {request.every}"
    every += f" --only {' '.join(request.only)}" if request.only else ""
    counts, wrong = Counter(each.kind for each in tries), Counter(each.kind for each in tries if each.problem)
    text = HEAD.format(
        seed=request.seed, every=every, date=time.strftime("%Y-%m-%d"), tries=len(tries),
        wrong=sum(wrong.values()) or "none",
        seconds=seconds, wall=wall, machine=_machine(), torch=torch.__version__,
    )  # fmt: skip
    text += "".join(f"| {kind} | {count} | {wrong[kind]} |\n" for kind, count in counts.items())
    if failed := [each for each in tries if each.problem]:
        text += "\nCame out wrong:\n\n"
        text += "".join(f"- {each.kind}; {each.what}: {_line(each.problem)}\n" for each in failed[:SHOWN])
        text += f"- and {len(failed) - SHOWN} more\n" if len(failed) > SHOWN else ""
    return text + TAIL


def _line(text: str | None) -> str:
    return " ".join(str(text).split())[:200].replace("|", "\\|")


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _machine() -> str:
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return f"{platform.machine()}, commit {commit.stdout.strip() or 'unknown'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
