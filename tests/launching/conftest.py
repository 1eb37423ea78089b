"""Sweeps of few steps on few examples below one folder."""

from pathlib import Path

import pytest

SMALL = ("task.train=16", "task.dev=8", "task.test=8", "batch.size=4", "stop.every=5")


@pytest.fixture
def small(tmp_path: Path):
    """Overrides of small runs below `tmp_path`."""

    def overrides(*more: str) -> list[str]:
        budget = [] if any(text.startswith("budget.") for text in more) else ["budget.steps=3"]
        return [*SMALL, *budget, f"paths.runs={tmp_path / 'runs'}", *more]

    return overrides
