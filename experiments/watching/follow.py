"""Follows runs by their files alone: new rows of metrics.jsonl, their states, and names that tell them apart."""

import heapq
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.display.track import Goal, Pace, Track, goal_of
from experiments.launching.check import variations
from experiments.launching.states import OPEN, SETTLED, Scheduler, State, state_of
from experiments.launching.submission import submission
from experiments.rundir.json_files import read_configuration, read_json, row_of

_HEAD = 256  # bytes at the beginning of a file by which a replaced file is recognised
_QUERY_SECONDS = 15.0  # between queries of a scheduler, which may be slow


class Tail:
    """Reads the rows of a growing file, each once; an unfinished last line waits for the next read.

    age: seconds since the file was last written; None while it does not exist.
    """

    def __init__(self, path: Path):
        self._path = path
        self._at = 0
        self._head = b""
        self._seen: tuple[int, int, int] | None = None
        self._written: float | None = None

    @property
    def age(self) -> float | None:
        """Returns the seconds since the last row."""
        return None if self._written is None else max(0.0, time.time() - self._written)

    def new(self) -> tuple[list[dict[str, Any]], bool]:
        """Returns the new rows, and True if they begin anew because the file was replaced or cut."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if stamp == self._seen:
                return [], False
            with self._path.open("rb") as file:
                anew = self._at > stat.st_size or file.read(len(self._head)) != self._head
                self._at = 0 if anew else self._at
                if self._at < _HEAD:
                    file.seek(0)
                    self._head = file.read(_HEAD)
                file.seek(self._at)
                data = file.read()
        except OSError:  # it does not exist yet, or is being replaced
            return [], False
        complete = data[: data.rfind(b"\n") + 1]
        self._head = self._head[: self._at + len(complete)]
        self._at += len(complete)
        self._seen, self._written = stamp, stat.st_mtime
        return [row for line in complete.splitlines() if (row := row_of(line)) is not None], anew


class Followed:
    """A run that is read again and again.

    state: as `status` reports it. track: progress by its rows. ended: True if the run is in a final state.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = State(folder, "new")
        self.rows = Tail(folder / "metrics.jsonl")
        self._goal = Goal()
        self.track = Track(self._goal)
        self.job: str | None = None
        self.parallel: int | None = None  # runs that its pool runs at once; None without a pool
        self.overrides: list[str] = []
        self._request: dict[str, Any] = {}  # submission.json
        self._stamp: tuple[float, ...] = ()
        self._is_new = False  # files that the state follows from have changed
        self._began: tuple[object, ...] = ()  # (pid, time) of the process that runs it
        self._from = 0  # steps done before that process began

    @property
    def ended(self) -> bool:
        """Returns True if the run is in a final state."""
        return self.state.state not in OPEN

    @property
    def duration(self) -> float | None:
        """Returns the seconds of the whole run, known or estimated; None if neither is possible."""
        if self.state.state == "finished":
            return self.track.seconds
        return None if self.eta is None else self.track.seconds + self.eta

    @property
    def eta(self) -> float | None:
        """Returns the seconds to go; None if the run is not running."""
        return self.track.eta(self.rows.age or 0.0) if self.state.state == "running" else None

    def refresh(self) -> None:
        """Reads submission, budget and process again, if a file of them has changed."""
        stamp = tuple(
            _stamp(self.folder / name) for name in ("status.json", "result.json", "submission.json")
        )
        self._is_new = self._is_new or stamp != self._stamp
        if stamp != self._stamp:
            self._process()
        self._stamp = stamp

    def look(self, scheduler: Scheduler) -> None:
        """Reads state and rows after a refresh; unchanged files are not opened."""
        # A failed or stopped run may still have a job in the queue, so only settled states are never queried again.
        if self._is_new or not self.ended or (self.job and self.state.state not in SETTLED):
            self.state = state_of(self.folder, self._request, scheduler)
        self._is_new = False
        rows, anew = self.rows.new()
        if anew:
            self.track = Track(self._goal)
        is_running = self.state.state == "running"  # without a pace otherwise
        for row in rows:
            self.track.take(row, live=is_running and row["steps"] > self._from)
        if rows and self.ended:
            self.track.memory = (
                _read_object(self.folder / "result.json").get("peak_memory_bytes") or self.track.memory
            )

    def _process(self) -> None:
        """Re-reads the submission and the budget; a new process starts a new pace."""
        self._request = submission(self.folder) or {}
        self.job = self._request.get("job")
        self.parallel = self._request.get("launch", {}).get("parallel")
        self.overrides = self._request.get("overrides", [])
        self._goal = self.track.goal = _goal(self.folder)
        status = _read_object(self.folder / "status.json")
        began = (status.get("pid"), status.get("time"))
        if status.get("state") == "running" and began != self._began:
            self._began, self._from = began, status.get("steps") or 0
            self.track.pace = Pace()


def eta_of_all(runs: Sequence[Followed]) -> float | None:
    """Returns the seconds until all running and pooled runs have ended; None if that is unknown.

    A queued run goes to the first free worker and is assumed to take the mean of the known durations.
    """
    running = [run for run in runs if run.state.state == "running"]
    queued = [run for run in runs if run.state.state == "queued"]
    durations = [seconds for run in runs if (seconds := run.duration) is not None]
    mean = sum(durations) / len(durations) if durations else None
    lanes = [mean if run.eta is None else run.eta for run in running]
    if queued and (mean is None or any(run.parallel is None for run in queued)):
        return None
    lanes += [0.0] * (max((run.parallel or 0 for run in queued), default=0) - len(lanes))
    ends = [lane for lane in lanes if lane is not None]
    heapq.heapify(ends)
    for _ in queued:
        heapq.heapreplace(ends, ends[0] + (mean or 0.0))
    return max(ends, default=None)


def _goal(folder: Path) -> Goal:
    """Returns the budget in the run's config.yaml, which may be of another version of zo."""
    try:
        return goal_of(read_configuration(folder)[0])
    except (KeyError, TypeError, AttributeError):
        return Goal()


def _read_object(path: Path) -> dict[str, Any]:
    return read_json(path) or {}


def _stamp(path: Path) -> float:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


class Flock:
    """Follows all runs below some folders; later ones are found too."""

    def __init__(self) -> None:
        self.runs: list[Followed] = []
        self.names: list[str] = []
        self._known: dict[Path, Followed] = {}
        self._scheduler = Scheduler(())
        self._asked = (frozenset[str](), 0.0)

    def look(self, folders: Sequence[Path]) -> None:
        """Reads the runs in these folders."""
        if list(folders) != [run.folder for run in self.runs]:
            for folder in folders:
                self._known.setdefault(folder, Followed(folder))
            self.runs = [self._known[folder] for folder in folders]
            self.names = []
        for run in self.runs:
            run.refresh()
        if not self.names:
            self.names = names_of(folders, [run.overrides for run in self.runs])
        # Includes stopped and failed runs: SLURM may have requeued their jobs.
        jobs = frozenset(
            run.job for run in self.runs if run.job is not None and run.state.state not in SETTLED
        )
        if jobs != self._asked[0] or (jobs and time.monotonic() - self._asked[1] > _QUERY_SECONDS):
            self._scheduler, self._asked = Scheduler(jobs), (jobs, time.monotonic())
        for run in self.runs:
            run.look(self._scheduler)

    @property
    def ended(self) -> bool:
        """Returns True if every run has ended."""
        return all(run.ended for run in self.runs)


def names_of(folders: Sequence[Path], overrides: Sequence[Sequence[str]]) -> list[str]:
    """Returns names that tell the runs apart: the overrides they differ in, else parts of their folders."""
    names_by_overrides = [" ".join(texts) for texts in variations(overrides)]
    if all(names_by_overrides) and len(set(names_by_overrides)) == len(names_by_overrides):
        return names_by_overrides
    parts = [folder.absolute().parts[-3:] for folder in folders]
    differ = [len({part[i : i + 1] for part in parts}) > 1 for i in range(3)]
    if not any(differ):
        return [" ".join((*part[:1], *part[-1:])) for part in parts]
    firsts = _apart([part[0] for part in parts])

    def names(letters: int) -> list[str]:
        """Returns the names with this many letters of the hash."""
        short = [(name, part[1][:letters], part[2]) for name, part in zip(firsts, parts, strict=True)]
        return [
            " ".join(word for word, differs in zip(part, differ, strict=True) if differs) for part in short
        ]

    return names(4) if len(set(names(4))) == len(parts) else names(8)


def _apart(names: Sequence[str]) -> list[str]:
    """Strips the hyphen-separated words that all names share at the beginning and end."""
    words = [name.split("-") for name in names]
    shortest = min(map(len, words), default=0)
    begin = end = 0
    while begin < shortest - 1 and len({word[begin] for word in words}) == 1:
        begin += 1
    while end < shortest - 1 - begin and len({word[-1 - end] for word in words}) == 1:
        end += 1
    return ["-".join(word[begin : len(word) - end]) for word in words]
