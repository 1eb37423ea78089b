"""TensorBoard's event files, read with its own reader."""

import json

import pytest

pytest.importorskip(
    "tensorboard", reason="the package tensorboard is not installed (pip install zo-finetune[tensorboard])"
)

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.__main__ import main
from tests.trackers.conftest import rows_of

KINDS = {"before": "eval/test_score", "dev": "eval/dev_score", "after": "eval/test_score"}


def scalars(folder):
    """(step, time, value) of each name."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()
    assert isinstance(tags, dict)
    names = tags["scalars"]
    return {name: [(e.step, e.wall_time, e.value) for e in events.Scalars(name)] for name in names}


def expected(folder, key, kinds):
    rows = [row for row in rows_of(folder) if row["kind"] in kinds]
    return [
        (row["forward_passes"], row["seconds"], pytest.approx(row[key], rel=1e-6)) for row in rows
    ]  # fp32


def test_a_run_and_the_same_synced(run):
    folder = run("tracker=tensorboard")
    direct = scalars(folder)
    assert direct["train/loss"] == expected(folder, "loss", ("train",))
    assert direct["train/sigma"] == expected(folder, "sigma", ("train",))
    assert direct["eval/dev_score"] == expected(folder, "value", ("dev",))
    assert direct["eval/test_score"] == expected(folder, "value", ("before", "after"))
    assert direct["tokens"] == expected(folder, "tokens", ("before", "train", "dev", "after"))
    result = json.loads((folder / "result.json").read_text())
    assert direct["result/after"][-1][2] == pytest.approx(result["after"])
    assert main(["sync", str(folder)]) == 0  # its own tracker again
    assert scalars(folder) == direct
