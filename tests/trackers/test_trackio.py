"""trackio's SQLite file."""

import json
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip("trackio", reason="the package trackio is not installed (pip install trackio)")

from experiments.trackers.interface import metrics_of, summary_of
from tests.trackers.conftest import rows_of


def test_a_synced_run_is_there_once(ended, tmp_path, monkeypatch):
    """In processes of their own, for trackio reads TRACKIO_DIR when it is imported."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    command = [
        sys.executable,
        "-m",
        "experiments",
        "sync",
        str(ended),
        "--to",
        "trackio",
        "--project",
        "mine",
    ]
    for _ in range(2):
        subprocess.run(command, check=True, timeout=120)
    result = json.loads((ended / "result.json").read_text())
    wanted = [*map(metrics_of, rows_of(ended)), summary_of("finished", result)]
    with sqlite3.connect(tmp_path / "mine.db") as file:
        metrics = file.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        ((config,),) = file.execute("SELECT config FROM configs").fetchall()
    name = f"tiny-clm-sentiment-fzoo-none-{result['config_hash'][:8]}-seed0"
    assert metrics[0][0] == name and [json.loads(row[2]) for row in metrics] == wanted
    assert [row[1] for row in metrics] == list(range(len(wanted)))
    assert json.loads(config)["optimizer"]["n"] == 8 and json.loads(config)["id"] == name
