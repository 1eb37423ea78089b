"""Rebuilds a tracker's runs from run folders: python -m experiments sync.

Each run becomes one clean run with the same id.

The same rows, configuration and result go the same way as while the run went on, so what comes out is what direct
tracking gives. What a tracker had of the run before, in however many fragments, is replaced.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.config import tracker_config
from experiments.config.run_config import RunConfig, plain
from experiments.config.saved import load_config
from experiments.rundir.folder import RunFolder, title_of
from experiments.rundir.json_files import read_json
from experiments.rundir.lock import holder_of
from experiments.trackers.interface import Tracker, metrics_of, summary_of
from experiments.trackers.opening import about_run
from experiments.trackers.tensorboard import TensorBoard
from experiments.trackers.trackio import Trackio
from experiments.trackers.wandb import Mode, Wandb
from zo.errors import ConfigError

START, UPLOAD = 60.0, 600.0  # seconds that W&B may take to answer, and to upload one run


def sync(
    folders: Sequence[Path],
    say: Callable[[str], None],
    *,
    to: str | None = None,
    mode: Mode = "online",
    project: str | None = None,
    entity: str | None = None,
) -> int:
    """Returns 0 if all runs were synced, 1 if a tracker refused one. Raises ConfigError if nothing could be done.

    to: a tracker's name; None means each run's own, or W&B for runs without one. project, entity: None means each
    run's own.
    """
    configs, failed = {}, 0
    for folder in folders:
        try:
            configs[folder] = load_config(folder)
        except ConfigError as error:
            if len(folders) == 1:
                raise
            failed += 1
            say(f"{title_of(folder)}: not synced: {error}")
    names = {folder: to or own_tracker(config)["name"] for folder, config in configs.items()}
    for name in sorted(set(names.values())):
        tracker_config.need(name)
    for folder, config in configs.items():
        name = names[folder]
        section = own_tracker(config) if own_tracker(config)["name"] == name else {}
        account = {
            "project": project or section.get("project", "zo"),
            "entity": entity or section.get("entity"),
        }
        try:
            message = _copy(folder, config, _tracker(name, mode, account["project"], account["entity"]))
        except PermissionError as error:  # the key or folder is wrong for every run
            raise ConfigError(f"{folder} was not synced: {error}.") from error
        except Exception as error:  # a tracker's own kinds, from its server or its threads: other runs go on
            failed += 1
            message = f"not synced: {' '.join(str(error).split()) or type(error).__name__}"
        say(f"{title_of(folder)}: {message}")
    return int(failed > 0)


def own_tracker(config: RunConfig) -> dict[str, Any]:
    """Returns the tracker section of a run's configuration; W&B if it has none."""
    own = config.tracker
    return {"name": "wandb"} if own.name == "none" else plain(own)


def _tracker(name: str, mode: Mode, project: str, entity: str | None) -> Tracker:
    if name == "tensorboard":
        return TensorBoard()
    if name == "trackio":
        return Trackio(project, own=False)
    return Wandb(mode, project, entity, timeout_seconds=START, finish_seconds=UPLOAD, own=False, strict=True)


def _copy(folder: Path, config: RunConfig, tracker: Tracker) -> str:
    """Copies all of a run to a tracker; returns the sentence to print. Raises whatever the tracker raises."""
    if holder_of(folder / "lock"):
        return "it is running and tracking itself; sync it after it ends."
    files = RunFolder(folder)
    rows = files.metrics()
    if not rows:
        return "it has no rows yet."
    result = files.result()
    location = tracker.start(about_run(config, folder))
    for number, row in enumerate(rows):
        tracker.log(number, metrics_of(row))
    status = result["status"] if result else _state(folder)
    tracker.finish(status, summary_of(status, result))
    return f"{len(rows):,} rows. {location}"


def _state(folder: Path) -> str:
    """Returns the state of a run without a result: stopped, or failed (also if it was killed while running)."""
    state = (read_json(folder / "status.json") or {}).get("state")
    return "stopped" if state in ("stopped", "requeued", "queued") else "failed"
