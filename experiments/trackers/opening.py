"""Opens the tracker of a run (`sink_of`) and describes a run's folder for any tracker (`about_run`)."""

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.config import tracker_config
from experiments.config.run_config import RunConfig
from experiments.config.run_id import Config
from experiments.rundir.json_files import read_json
from experiments.trackers.interface import About, Tracker, about
from experiments.trackers.sink import Row, Sink
from experiments.trackers.tensorboard import TensorBoard
from experiments.trackers.trackio import Trackio
from experiments.trackers.wandb import Wandb


def sink_of(config: RunConfig, folder: Path, rows: Sequence[Row], say: Callable[[str], None]) -> Sink | None:
    """Opens the sink for the rows of a new or resumed run; None without a tracker.

    rows: those written by earlier processes. folder: must have its provenance already.
    """
    tracker = _tracker(config.tracker, resumed=bool(rows))
    return None if tracker is None else Sink(tracker, about_run(config, folder), rows, say)


def _tracker(chosen: tracker_config.Tracking, resumed: bool) -> Tracker | None:
    match chosen:
        case tracker_config.Wandb(_, mode, project, entity, seconds):
            return Wandb(mode, project, entity, seconds, resumed=resumed)
        case tracker_config.TensorBoard():
            return TensorBoard()
        case tracker_config.Trackio(_, project):
            return Trackio(project)
        case _:
            return None


def about_run(config: Config, folder: Path) -> About:
    """Describes a run by its folder and its configuration."""
    folder = folder.resolve()
    return about(config, folder, read_json(folder / "provenance.json") or {}, sweeps_of(folder))


def sweeps_of(folder: Path) -> tuple[str, ...]:
    """Returns the names of the sweeps that list a run: sweeps/<name>/sweep.json beside the experiments."""
    places = (above / "sweeps" for above in folder.parents)
    lists = next((files for place in places if (files := sorted(place.glob("*/sweep.json")))), [])
    return tuple(path.parent.name for path in lists if _lists(path, folder))


def _lists(path: Path, folder: Path) -> bool:
    runs = (read_json(path) or {}).get("runs", [])
    return any((path.parent / run["folder"]).resolve() == folder for run in runs)
