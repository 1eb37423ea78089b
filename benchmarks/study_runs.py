"""Runs the study of docs/study.md one run after another, and keeps what each leaves in benchmarks/results/study.

  ZO_SHARED=FOLDER python -m benchmarks.study_runs [PART ...] [--list] [--keep FOLDER] [KEY=VALUE ...]

A part is a file of sweeps/study, in the order of their names: all of them, or those whose names begin with PART.
Each run is `launch.py` in a process of its own with one thread at the lowest priority. Resume: rerun the same command,
also in another clone: what is kept of a run is put back first, so finished runs are not repeated and an interrupted one
continues from its journal. Ctrl-C ends the run after its step, and the list.

A line without a rate (optimizer.lr) takes the one with the lowest loss on dev among the lines of a `-rates` part that
differ from it in seed, budget, test set, schedule and update alone; where there are none, in further options of the
line too (FZOO's variants have FZOO's rate). --list prints the table of runs and starts none. KEY=VALUE is added to
every run; its hash may change with it.
"""

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.compose import compose
from experiments.config.expand import expand, key_of
from experiments.config.problems import listing
from experiments.config.run_id import trains
from experiments.launching.plan import Planner, Run
from experiments.launching.sweep_file import FOLDER, read_sweep
from experiments.report.runs import read_runs
from experiments.rundir.json_files import config_text, read_configuration
from zo.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
KEEP = ROOT / "benchmarks" / "results" / "study"
RATE = "optimizer.lr"
# What a search and the runs that take its rate may differ in, with the budget.
APART = (RATE, "seed", "task.test", "schedule", "update")
SMALL = (
    "config.yaml",
    "metrics.jsonl",
    "journal",
    "result.json",
    "answers.json",
    "provenance.json",
    "status.json",
)


@dataclass(frozen=True)
class Line:
    """One run of the list: the part it belongs to and its overrides, without a rate that a search is to give."""

    part: str
    overrides: tuple[str, ...]

    @property
    def setting(self) -> frozenset[str]:
        """Returns the setting that it shares with the lines of its search; FZOO taken apart is FZOO."""
        return frozenset(
            text.removesuffix("_ablation")
            for text in self.overrides
            if key_of(text) not in APART and not key_of(text).startswith("budget.")
        )

    def seed(self) -> int:
        """Returns the seed of the run; 0 where the line names none."""
        return next((int(text.partition("=")[2]) for text in self.overrides if key_of(text) == "seed"), 0)


def lines_of(parts: Sequence[str], more: Sequence[str]) -> list[Line]:
    """Returns the runs of the parts, in order. Raises ConfigError for a sweep that cannot be read."""
    lines = []
    for path in sorted((FOLDER / "study").glob("*.yaml")):
        if parts and not path.stem.startswith(tuple(parts)):
            continue
        _, swept, problems = read_sweep(str(path), more)
        found: list[Line] = []
        for overrides in swept:
            runs, wrong = expand(overrides)
            problems += wrong
            found += [Line(path.stem, tuple(run)) for run in runs]
        lines += sorted(found, key=Line.seed)  # every method once before any has a second seed
        if problems:
            raise ConfigError(listing(problems))
    return lines


def named(line: Line, planner: Planner, rate: str | None = None) -> Run:
    """The run of a line, with its folder. Raises ConfigError for a configuration that is not accepted."""
    overrides = [*line.overrides, *([f"{RATE}={rate}"] if rate else [])]
    composed = compose(overrides)
    if composed.config is None:
        raise ConfigError(listing(composed.problems))
    return planner.name(composed.config, overrides)


def searches_for(line: Line, lines: Sequence[Line]) -> list[Line]:
    """The searches that a line without a rate takes its rate from: of its own setting, else of a part of it."""
    searches = [other for other in lines if other.part.endswith("-rates")]
    own = [other for other in searches if other.setting == line.setting]
    return own or [other for other in searches if other.setting < line.setting]


def rate_of(line: Line, lines: Sequence[Line], planner: Planner) -> str | None:
    """The rate with the lowest loss on dev among the searches for a line; None while one of them is unfinished."""
    losses = {}
    for other in searches_for(line, lines):
        run = named(other, planner)
        if not run.ended:
            return None
        (found,) = read_runs([run.folder])
        rate = next(t.partition("=")[2] for t in other.overrides if key_of(t) == RATE)
        losses[rate] = found.dev_loss if found.dev_loss is not None else float("inf")
    return min(losses, key=lambda rate: losses[rate]) if losses else None


def runs_of(
    lines: Sequence[Line], searched: Sequence[Line], planner: Planner
) -> Iterator[tuple[Line, Run | None]]:
    """Each line with its run, looked up when its turn comes; None where its rate is not known yet."""
    for line in lines:
        rate = None
        if not any(key_of(text) == RATE for text in line.overrides):
            config = compose(line.overrides).config
            if config is not None and trains(config):
                rate = rate_of(line, searched, planner)
                if rate is None:
                    yield line, None
                    continue
        yield line, named(line, planner, rate)


def label(line: Line, lines: Sequence[Line]) -> str:
    """Returns the name that tells a line from the others of its part."""
    part = [set(other.overrides) for other in lines if other.part == line.part]
    shared = (
        set.intersection(*part)
        if len(part) > 1
        else {text for text in line.overrides if not text.startswith("optimizer")}
    )
    return " ".join(
        text for text in line.overrides if text not in shared and not text.startswith("task.data_dir=")
    )


def start(run: Run) -> int:
    """Runs it to its end or to Ctrl-C; returns the exit code of launch.py."""
    command = [sys.executable, str(ROOT / "launch.py"), *run.overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            return process.wait()
        except KeyboardInterrupt:  # the run has it too: it finishes its step
            process.wait()
            raise


def keep(run: Run, where: Path) -> None:
    """Copies the small files of a run, journal and rows among them, below `where` as they lie below runs/."""
    target = where / run.folder.relative_to(Path(run.config.paths.runs))
    target.mkdir(parents=True, exist_ok=True)
    for name in SMALL:
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, target / name)
    leave_places_out(target)


def leave_places_out(kept: Path) -> None:
    """Rewrites config.yaml and provenance.json of kept files without folders of the machine that ran them."""
    config, _ = read_configuration(kept)
    model = Path(config["model"]["path"])
    places = {str(model.parent): "models"} if model.is_absolute() else {}
    places |= {os.environ["ZO_SHARED"]: "$ZO_SHARED", str(ROOT): "."}
    (kept / "config.yaml").write_text(config_text(_renamed(config, places)), encoding="utf-8")
    provenance = json.loads((kept / "provenance.json").read_text(encoding="utf-8"))
    text = json.dumps(_renamed(provenance, places), indent=2) + "\n"
    (kept / "provenance.json").write_text(text, encoding="utf-8")


def _renamed(value: Any, places: Mapping[str, str]) -> Any:
    """The value with other words for places in all its texts."""
    if isinstance(value, str):
        return functools.reduce(lambda text, place: text.replace(place, places[place]), places, value)
    if isinstance(value, Mapping):
        return {key: _renamed(each, places) for key, each in value.items()}
    return [_renamed(each, places) for each in value] if isinstance(value, list) else value


def put_back(lines: Sequence[Line], searched: Sequence[Line], where: Path) -> None:
    """Copies what is kept of runs into their folders, where these are not there; searches first, which give rates."""
    for part in (searched, lines):
        for _, run in runs_of(part, searched, Planner()):
            if run is None or run.folder.exists():
                continue
            kept = where / run.folder.relative_to(Path(run.config.paths.runs))
            if kept.is_dir():
                shutil.copytree(kept, run.folder)


def table(lines: Sequence[Line], searched: Sequence[Line]) -> None:
    """Prints the list in Markdown: what is finished, with its seconds, and what is still to be run."""
    print("| part | run | forward passes | state |\n|---|---|--:|---|")
    total, done = 0, 0
    for line, run in runs_of(lines, searched, planner := Planner()):
        shown = run or named(line, planner)  # its passes do not depend on the rate
        passes = shown.passes or 0
        state = "waits for its search"
        if run is not None:
            state = "to do"
            if run.ended:
                (found,) = read_runs([run.folder])
                state = f"{found.status}, {(found.result or {}).get('seconds', 0):,.0f} s"
                done += passes
        total += passes
        print(f"| {line.part} | {label(line, lines)} | {passes:,} | {state} |")
    print(f"\n{len(lines)} runs of {total:,} forward passes, {done:,} of them done.")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="PART or KEY=VALUE")
    parser.add_argument("--list", action="store_true", help="print the table of runs, start none")
    parser.add_argument("--keep", type=Path, default=KEEP, help="where the files of finished runs are copied")
    options = parser.parse_args()
    more = [word for word in options.words if "=" in word]
    try:
        searched = lines_of([], more)
        lines = lines_of([word for word in options.words if "=" not in word], more)
        put_back(lines, searched, options.keep)
        if options.list:
            table(lines, searched)
            return 0
        return _all(lines, searched, options.keep)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def _all(lines: Sequence[Line], searched: Sequence[Line], where: Path) -> int:
    """Runs what is not finished and keeps what is; returns 1 where a run failed or waits for a search."""
    os.nice(19 - os.nice(0))
    open_ends = 0
    for number, (line, run) in enumerate(runs_of(lines, searched, Planner()), start=1):
        head = f"{time.strftime('%H:%M')} {number}/{len(lines)} {line.part}: {label(line, lines)}"
        if run is None:
            print(f"{head}: its search is not finished", flush=True)
            open_ends += 1
            continue
        if not run.ended:
            print(f"{head} in {run.folder}", flush=True)
            try:
                code = start(run)
            except KeyboardInterrupt:
                keep(run, where)
                return 130
            if not run.ended:
                print(f"    ended with {code} and without a result: see {run.folder / 'log.txt'}", flush=True)
                open_ends += 1
                continue
        keep(run, where)
    return 1 if open_ends else 0


if __name__ == "__main__":
    sys.exit(main())
