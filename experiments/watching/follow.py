"""Runs by their files alone: what is new in metrics.jsonl since the last look, how they are, what they are called."""

import heapq
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.display.track import Goal, Pace, Track, goal_of
from experiments.launching.check import varied
from experiments.launching.states import OPEN, SETTLED, Scheduler, State, states
from experiments.launching.submission import submission
from experiments.rundir.json_files import read_configuration, read_json, row_of

_HEAD = 256  # bytes at the beginning of a file by which it is known again
_ASK = 15.0  # seconds between questions to a scheduler


class Tail:
    """The rows of a growing file, each once. A last line without its end is left for the next look.

    age: seconds since the file was written to; None while there is none.
    """

    def __init__(self, path: Path):
        self._path = path
        self._at = 0
        self._head = b""
        self._seen: tuple[int, int, int] | None = None
        self._written: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the last row."""
        return None if self._written is None else max(0.0, time.time() - self._written)

    def new(self) -> tuple[list[dict[str, Any]], bool]:
        """Rows that have come, and whether they begin anew because the file is another one or was cut."""
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            if stamp == self._seen:
                return [], False
            with self._path.open("rb") as file:
                anew = self._at > found.st_size or file.read(len(self._head)) != self._head
                self._at = 0 if anew else self._at
                if self._at < _HEAD:
                    file.seek(0)
                    self._head = file.read(_HEAD)
                file.seek(self._at)
                data = file.read()
        except OSError:  # not there yet, or just being replaced
            return [], False
        whole = data[: data.rfind(b"\n") + 1]
        self._head = self._head[: self._at + len(whole)]
        self._at += len(whole)
        self._seen, self._written = stamp, found.st_mtime
        return [row for line in whole.splitlines() if (row := row_of(line)) is not None], anew


class Followed:
    """One run, looked at again and again.

    state: as `status` tells it. track: what its rows say. ended: whether it may not change by itself any more.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = State(folder, "new")
        self.rows = Tail(folder / "metrics.jsonl")
        self._goal = _goal(folder)
        self.track = Track(self._goal)
        self.job: str | None = None
        self.parallel: int | None = None  # runs that its pool runs at once; None without a pool
        self._read_submission()
        self._stamp: tuple[float, ...] = ()
        self._began: tuple[object, ...] = ()  # the process at it
        self._from = 0  # steps that were done when that process began

    @property
    def ended(self) -> bool:
        """Whether it may not change by itself any more."""
        return self.state.state not in OPEN

    @property
    def duration(self) -> float | None:
        """Seconds that the whole run takes, as far as that can be said of one that runs or has ended."""
        if self.state.state == "finished":
            return self.track.seconds
        return None if self.eta is None else self.track.seconds + self.eta

    @property
    def eta(self) -> float | None:
        """Seconds to go; None for what is not running."""
        return self.track.eta(self.rows.age or 0.0) if self.state.state == "running" else None

    def look(self, scheduler: Scheduler) -> None:
        """Reads what is new; files that have not changed are not opened."""
        stamp = tuple(
            _stamp(self.folder / name) for name in ("status.json", "result.json", "submission.json")
        )
        if stamp != self._stamp:
            self._process()
        if stamp != self._stamp or not self.ended or (self.job and self.state.state not in SETTLED):
            (self.state,) = states([self.folder], scheduler)
        self._stamp = stamp
        rows, anew = self.rows.new()
        if anew:
            self.track = Track(self._goal)
        for row in rows:
            self.track.take(row, live=row["steps"] > self._from)
        if rows and self.ended:
            self.track.memory = (
                _read(self.folder / "result.json").get("peak_memory_bytes") or self.track.memory
            )

    def _read_submission(self) -> None:
        asked = submission(self.folder) or {}
        self.job = asked.get("job")
        self.parallel = asked.get("launch", {}).get("parallel")

    def _process(self) -> None:
        """A process that begins has a pace of its own."""
        self._read_submission()
        self._goal = self.track.goal = _goal(self.folder)
        status = _read(self.folder / "status.json")
        began = (status.get("pid"), status.get("time"))
        if status.get("state") == "running" and began != self._began:
            self._began, self._from = began, status.get("steps") or 0
            self.track.pace = Pace()


def eta_of_all(runs: Sequence[Followed]) -> float | None:
    """Seconds until runs that are at work or queued in a pool have ended; None where that cannot be said.

    The queued ones are given to whoever is free first, each as long as the known ones are in the mean.
    """
    going = [run for run in runs if run.state.state == "running"]
    queued = [run for run in runs if run.state.state == "queued"]
    known = [seconds for run in runs if (seconds := run.duration) is not None]
    mean = sum(known) / len(known) if known else None
    lanes = [mean if run.eta is None else run.eta for run in going]
    if queued and (mean is None or any(run.parallel is None for run in queued)):
        return None
    lanes += [0.0] * (max((run.parallel or 0 for run in queued), default=0) - len(lanes))
    ends = [lane for lane in lanes if lane is not None]
    heapq.heapify(ends)
    for _ in queued:
        heapq.heapreplace(ends, ends[0] + (mean or 0.0))
    return max(ends, default=None)


def _goal(folder: Path) -> Goal:
    """The budget of the run's config.yaml, which another version of zo may have written."""
    try:
        return goal_of(read_configuration(folder)[0])
    except (KeyError, TypeError, AttributeError):
        return Goal()


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) or {}


def _stamp(path: Path) -> float:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


class Flock:
    """All the runs below some folders; those that come later are found too."""

    def __init__(self) -> None:
        self.runs: list[Followed] = []
        self.names: list[str] = []
        self._known: dict[Path, Followed] = {}
        self._scheduler = Scheduler(())
        self._asked = (frozenset[str](), 0.0)

    def look(self, folders: Sequence[Path]) -> None:
        """Looks at the runs in these folders."""
        if list(folders) != [run.folder for run in self.runs]:
            for folder in folders:
                self._known.setdefault(folder, Followed(folder))
            self.runs = [self._known[folder] for folder in folders]
            self.names = names_of(folders)
        # Of stopped and failed ones too: their jobs may have been put back into the queue.
        jobs = frozenset(
            run.job for run in self.runs if run.job is not None and run.state.state not in SETTLED
        )
        if jobs != self._asked[0] or (jobs and time.monotonic() - self._asked[1] > _ASK):
            self._scheduler, self._asked = Scheduler(jobs), (jobs, time.monotonic())
        for run in self.runs:
            run.look(self._scheduler)

    @property
    def ended(self) -> bool:
        """Whether every run has ended."""
        return all(run.ended for run in self.runs)


def names_of(folders: Sequence[Path]) -> list[str]:
    """What tells the runs apart: the overrides they differ in, else the parts of their folders."""
    asked = [(submission(folder) or {}).get("overrides", []) for folder in folders]
    said = [" ".join(varied(overrides, asked)) for overrides in asked]
    if all(said) and len(set(said)) == len(said):
        return said
    parts = [folder.absolute().parts[-3:] for folder in folders]
    differ = [len({part[i : i + 1] for part in parts}) > 1 for i in range(3)]
    if not any(differ):
        return [" ".join((*part[:1], *part[-1:])) for part in parts]
    firsts = _apart([part[0] for part in parts])

    def names(letters: int) -> list[str]:
        """With so many letters of the hash."""
        short = [(name, part[1][:letters], part[2]) for name, part in zip(firsts, parts, strict=True)]
        return [" ".join(word for word, other in zip(part, differ, strict=True) if other) for part in short]

    return names(4) if len(set(names(4))) == len(parts) else names(8)


def _apart(names: Sequence[str]) -> list[str]:
    """Names of words joined by hyphens, without the words with which all of them begin and end."""
    words = [name.split("-") for name in names]
    shortest = min(map(len, words), default=0)
    begin = end = 0
    while begin < shortest - 1 and len({word[begin] for word in words}) == 1:
        begin += 1
    while end < shortest - 1 - begin and len({word[-1 - end] for word in words}) == 1:
        end += 1
    return ["-".join(word[begin : len(word) - end]) for word in words]
