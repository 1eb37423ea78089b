"""Writes TensorBoard event files to <run>/tensorboard, with forward passes as the step.

Show all runs with tensorboard --logdir runs.

The time of a row is its `seconds`, so that the relative axis is that of the run however often it was resumed.
"""

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from experiments.trackers.interface import About


class TensorBoard:
    """The event files of one run."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._about: About | None = None
        self._last: Mapping[str, float] = {}

    def start(self, about: About) -> str:
        """Opens the event file. Raises OSError if the folder cannot be written."""
        from torch.utils.tensorboard import SummaryWriter

        folder = about.folder / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer, self._about = SummaryWriter(str(folder)), about
        described = {
            "id": about.id,
            "group": about.group,
            "job_type": about.job_type,
            "tags": list(about.tags),
        }
        self._writer.add_text("run", _block(described), walltime=0)
        self._writer.add_text("config", _block(about.config), walltime=0)
        return f"TensorBoard shows this run with: tensorboard --logdir {folder}"

    def log(self, number: int, metrics: Mapping[str, float]) -> None:
        step, seconds = int(metrics["forward_passes"]), metrics["seconds"]
        for name, value in metrics.items():
            if name != "forward_passes":
                self._writer.add_scalar(name, value, step, walltime=seconds)
        self._last = metrics

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Writes the result to the tab HPARAMS with the configuration, to compare runs."""
        from torch.utils.tensorboard.summary import hparams

        assert self._about is not None
        numbers = {key: value for key, value in summary.items() if not isinstance(value, str)}
        for part in hparams(dict(_flat(self._about.config)) | {"status": status}, numbers):
            self._writer.file_writer.add_summary(part, walltime=self._last.get("seconds", 0))
        for name, value in numbers.items():
            step = int(self._last.get("forward_passes", 0))
            self._writer.add_scalar(name, value, step, walltime=self._last.get("seconds", 0))
        self._writer.add_text("status", status, walltime=self._last.get("seconds", 0))
        self._writer.close()


def _block(content: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    return "".join(f"    {line}\n" for line in text.splitlines())


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys and values that HPARAMS can show."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float):
            yield prefix + key, value
