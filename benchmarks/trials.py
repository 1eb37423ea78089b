"""Disturbs runs and checks what comes out: the classes of tries of benchmarks/reliability.py.

Each try ends with the state of an undisturbed run (result.json, rows, files), or with one sentence and an exit code.
"""

import functools
import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.damages import DAMAGES, FILES, VALUES, line
from benchmarks.faults import CRASHES, ERRORS, TRACEBACK, Faults, Outcome, child, start
from experiments.__main__ import main as beside
from experiments.commands.launch import _run as command
from experiments.commands.launch import main as launch
from experiments.config.compose import compose
from experiments.config.run_config import RunConfig

SMALL = (
    "task.train=8", "task.dev=4", "task.test=4", "batch.size=2", "budget.steps=4", "stop.every=2", "save=false",
    "probes_per_forward=1",  # files are what is tried: no time goes into comparing stacks
)  # fmt: skip
SNAPSHOTS = "checkpoint.max_replay_minutes=1e-9"  # one a step
SETTINGS = {
    "losses": ("optimizer=fzoo", "optimizer.n=2"),
    "losses, a snapshot a step": ("optimizer=hizoo", "select=best", SNAPSHOTS),
    "checkpoint": ("optimizer=adamw", "select=best", SNAPSHOTS, "save=true"),
    "nothing": ("optimizer=linear_probe", "optimizer.c=1.0", "save=true"),
}
VOLATILE = ("seconds", "gpu_hours", "peak_memory_bytes", "check_forward_passes")


@dataclass(frozen=True)
class Try:
    """A try. what: enough to repeat it. problem: what differs from what must come out; None if nothing does."""

    kind: str
    what: str
    problem: str | None = None


def configuration(runs: Path, *overrides: str) -> RunConfig:
    """Returns a run's configuration below a folder of its own, without the paths of a launcher."""
    config = _composed(overrides)
    return replace(config, paths=replace(config.paths, runs=str(runs)))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> RunConfig:
    composed = compose([*SMALL, *overrides])
    assert composed.config is not None, composed.problems
    return composed.config


def state(runs: Path) -> dict[str, Any]:
    """Returns what a run has left, without times and memory: its result, its rows, the names of its files."""
    (folder,) = {path.parent for path in runs.rglob("config.yaml")}
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {
        "result": _steady(json.loads((folder / "result.json").read_text(encoding="utf-8"))),
        "status": json.loads((folder / "status.json").read_text(encoding="utf-8"))["state"],
        "rows": [_steady(row) for row in rows if row["kind"] != "stop"],
        "files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()),
    }


def _steady(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in VOLATILE}


def difference(runs: Path, expected: Mapping[str, Any]) -> str | None:
    """Returns how a run differs from the undisturbed one; None if it does not."""
    try:
        reached = state(runs)
    except (OSError, ValueError, KeyError) as error:
        return f"cannot be read: {type(error).__name__}: {error}"
    parts = []
    for name, value in expected.items():
        if reached[name] != value:
            parts.append(f"{name}: {_first(value, reached[name])}")
    return "; ".join(parts) or None


def _first(expected: Any, reached: Any) -> str:
    if isinstance(expected, dict):
        keys = [key for key in expected if expected[key] != reached.get(key)]
        return ", ".join(f"{key} is {reached.get(key)!r}, not {expected[key]!r}" for key in keys[:3])
    if isinstance(expected, list):
        missing = [item for item in expected if item not in reached]
        extra = [item for item in reached if item not in expected]
        return (
            f"{len(missing)} missing {str(missing[:2])[:150]}, {len(extra)} too many {str(extra[:2])[:150]}"
        )
    return f"{reached!r}, not {expected!r}"


def complaint(outcome: Outcome, codes: Sequence[int]) -> str | None:
    """Returns what is wrong with a command's end: a traceback, a hang, another exit code."""
    if outcome.code == TRACEBACK or "Traceback (most recent call last)" in outcome.text:
        return f"traceback: {outcome.text.strip().splitlines()[-1][:200] if outcome.text.strip() else ''}"
    if outcome.code == -signal.SIGALRM:
        return "it hangs"
    if outcome.code not in codes:
        return f"exit code {outcome.code}: {outcome.text.strip()[-200:]}"
    return None


class Trials:
    """All classes of tries, below one folder. seed: decides what is drawn. every: only each n-th call is tried."""

    def __init__(self, folder: Path, seed: int, every: int = 1):
        self.folder = folder
        self.seed = seed
        self.every = every
        self._number = 0

    def warm_up(self) -> None:
        """Runs every setting in this process, so that no child imports or compiles again what it needs."""
        for setting in SETTINGS.values():
            with redirect_stdout(io.StringIO()):
                assert command(configuration(self.runs(), *setting), False) == 0

    def runs(self) -> Path:
        """Creates a folder for the runs of one try."""
        self._number += 1
        path = self.folder / str(self._number)
        path.mkdir()
        return path

    @functools.cache  # noqa: B019  # one object a process
    def undisturbed(self, setting: str) -> tuple[dict[str, Any], int]:
        """Returns the state of a setting's undisturbed run, and how many operations it makes."""
        runs, count = self.runs(), self.folder / f"count-{setting.replace(' ', '_')}"
        config = configuration(runs, *SETTINGS[setting])

        def task() -> int:
            faults = Faults(runs)
            faults.install()
            code = command(config, False)
            count.write_text(str(faults.count), encoding="utf-8")
            return code

        outcome = child(task)
        assert outcome.code == 0, outcome.text
        return state(runs), int(count.read_text(encoding="utf-8"))

    def crashes(self) -> Iterator[Try]:
        """Crashes, or fails with an I/O error, at every operation; then reruns the command undisturbed."""
        for setting in SETTINGS:
            expected, count = self.undisturbed(setting)
            for n in range(1 + self.seed % self.every, count + 1, self.every):
                for kinds in (CRASHES, ERRORS):
                    kind = kinds[(n + self.seed) % len(kinds)]
                    yield self._crash(setting, expected, n, kind)

    def _crash(self, setting: str, expected: Mapping[str, Any], n: int, kind: str) -> Try:
        runs = self.runs()
        config = configuration(runs, *SETTINGS[setting])

        def task() -> int:
            Faults(runs, n, kind).install()
            return command(config, False)

        first = child(task)
        name = f"crash, replays from {setting}" if kind in CRASHES else f"I/O error, replays from {setting}"
        what = f"{kind} operation {n}"
        allowed = (-signal.SIGKILL,) if kind in CRASHES else (0, 1)
        if problem := complaint(first, allowed):
            return Try(name, what, problem)
        again = child(lambda: command(config, False))
        problem = complaint(again, (0,)) or difference(runs, expected)
        shutil.rmtree(runs)  # of hundreds of tries, too much to keep in memory
        return Try(name, what, problem)

    def damages(self) -> Iterator[Try]:
        """Damages every file of a run in every way, under every command; another run must still be reported."""
        expected, _ = self.undisturbed("losses")
        for file in FILES:
            for damage in DAMAGES:
                for name in COMMANDS:
                    yield self._damage(file, damage, name, expected)

    def _damage(self, file: str, damage: str, name: str, expected: Mapping[str, Any]) -> Try:
        runs = self.runs()
        subprocess.run(["cp", "-r", f"{self._pair()}/.", str(runs)], check=True)
        (folder,) = {path.parent for path in runs.rglob("seed0/config.yaml")}
        path = folder / file
        content = path.read_bytes() if path.exists() else b""
        path.write_bytes(DAMAGES[damage](content))
        before = path.read_bytes()
        config = configuration(runs, *SETTINGS["losses"])
        outcome = child(lambda: COMMANDS[name](runs, folder, config))
        what, kind = f"{file}: {damage}", f"damaged file, {name}"
        if problem := complaint(outcome, (0, 1, 2)):
            return Try(kind, what, problem)
        if name in ("status", "watch", "report") and not _tells_of_both(name, outcome.text):
            return Try(kind, what, f"the other run is not told of: {outcome.text[-200:]}")
        if name == "replay" and path.exists() and path.read_bytes() != before:
            return Try(kind, what, "a reader has changed the file")
        if name == "the same command" and file in (
            "result.json",
            "status.json",
            "config.yaml",
            "provenance.json",
        ):
            folder_state = state(folder)
            shown = {key: folder_state[key] for key in ("result", "status")}
            wanted = {key: expected[key] for key in shown}
            if outcome.code == 0 and shown != wanted and file != "result.json":
                return Try(kind, what, f"another state: {_first(wanted['result'], shown['result'])}")
        return Try(kind, what)

    @functools.cache  # noqa: B019
    def _pair(self) -> Path:
        """Creates two finished runs."""
        runs = self.runs()
        for seed in (0, 1):
            config = configuration(runs, *SETTINGS["losses"]).with_seed(seed)
            assert child(functools.partial(command, config, False)).code == 0
        return runs

    def disks(self) -> Iterator[Try]:
        """Fills disks that are too small: one sentence and exit code 1; with more room the command resumes."""
        for setting in ("losses", "checkpoint"):
            expected, _ = self.undisturbed(setting)
            for kib in (4, 8, 12, 16, 24, 40, 100, 500, 1500, 3000, 6000):
                yield self._disk(setting, expected, kib)

    def _disk(self, setting: str, expected: Mapping[str, Any], kib: int) -> Try:
        disk, kind = self.runs(), f"small disk, replays from {setting}"
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True).returncode:
            return Try(kind, f"{kib} KiB", "not tried: this user may not mount a tmpfs")
        try:
            config = configuration(disk / "runs", *SETTINGS[setting])
            first = child(lambda: command(config, False))
            problem = complaint(first, (0, 1))
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            again = child(lambda: command(config, False))
            return Try(
                kind, f"{kib} KiB", problem or complaint(again, (0,)) or difference(disk / "runs", expected)
            )
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)

    def processes(self) -> Iterator[Try]:
        """Starts two processes on one run: one runs, the other says so; and kills processes at random moments."""
        draw = random.Random(self.seed)
        for setting in SETTINGS:
            expected, _ = self.undisturbed(setting)
            for again in range(3):
                runs = self.runs()
                config = configuration(runs, *SETTINGS[setting])
                pids = [start(functools.partial(command, config, False)) for _ in range(2)]
                codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
                wrong = None if sorted(codes) in ([0, 0], [0, 1]) else f"exit codes {codes}"
                yield Try("two processes", f"{setting}, {again}", wrong or difference(runs, expected))
            for again in range(4):
                yield self._killed(setting, expected, [draw.uniform(0.05, 0.6) for _ in range(3)], again)

    def _killed(self, setting: str, expected: Mapping[str, Any], moments: Sequence[float], again: int) -> Try:
        runs = self.runs()
        config = configuration(runs, *SETTINGS[setting])
        for seconds in moments:
            pid = start(functools.partial(command, config, False))
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        last = child(lambda: command(config, False))
        problem = complaint(last, (0,)) or difference(runs, expected)
        return Try(
            "signal 9 at random moments", f"{setting}, {again}: {[round(s, 2) for s in moments]}", problem
        )

    def fuzz(self) -> Iterator[Try]:
        """Tries nonsense overrides and rows: a sentence and exit code 2, or a run, never a traceback."""
        draw = random.Random(self.seed)
        keys = [
            key
            for key in _flat(_composed(()).recorded())
            if not key.startswith(("launcher", "cluster", "tracker", "paths"))
        ]
        for number in range(60):
            chosen = [f"{draw.choice(keys)}={draw.choice(VALUES)}" for _ in range(draw.randint(1, 3))]
            outcome = child(functools.partial(launch, [*chosen, "--cfg", "job"]))
            yield Try("fuzzed overrides", f"{number}: {' '.join(chosen)}", complaint(outcome, (0, 2)))
        for number in range(40):
            runs = self.runs()
            lines = [line(draw, split) for split in ("train", "validation") for _ in range(12)]
            for split, part in (("train", lines[:12]), ("validation", lines[12:])):
                (runs / f"{split}.jsonl").write_bytes(b"".join(part))
            config = configuration(runs / "runs", "task=sst2", "budget.steps=1", f"task.data_dir={runs}")
            outcome = child(functools.partial(command, config, False))
            yield Try("fuzzed rows", f"seed {self.seed}, data {number}", complaint(outcome, (0, 2)))


COMMANDS: dict[str, Callable[[Path, Path, RunConfig], int]] = {
    "status": lambda runs, folder, config: beside(["status", str(runs)]),
    "watch": lambda runs, folder, config: beside(["watch", str(runs), "--once"]),
    "report": lambda runs, folder, config: beside(["report", str(runs)]),
    "replay": lambda runs, folder, config: beside(["replay", str(folder)]),
    "the same command": lambda runs, folder, config: command(config, False),
}


def _tells_of_both(name: str, text: str) -> bool:
    return (
        "seed1" in text
        if name == "status"
        else "finished" in text
        if name == "watch"
        else "runs ended" in text
    )


def _flat(config: Mapping[str, Any], above: str = "") -> list[str]:
    keys = []
    for key, value in config.items():
        keys += _flat(value, f"{above}{key}.") if isinstance(value, dict) else [f"{above}{key}"]
    return keys
