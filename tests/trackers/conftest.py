"""Small runs below one folder, and what W&B's own reader says of its offline files."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SMALL = (
    "task.train=16",
    "task.dev=8",
    "task.test=8",
    "batch.size=4",
    "stop.every=3",
    "budget.steps=8",
    "save=false",
)
KEY = "0123456789abcdef" * 2 + "deadbeef"  # of nobody


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Neither this machine's W&B account nor its settings, and a home of one's own."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home" / "wandb"))
    yield
    if "wandb" in sys.modules:  # whatever a test logged in with is forgotten
        from wandb.sdk.lib import wbauth

        sys.modules["wandb"].teardown()
        wbauth.unauthenticate_session()


def run_below(folder: Path, *overrides: str, code: int = 0) -> Path:
    """Runs with overrides; the newest run's folder."""
    from experiments.commands.launch import main

    assert main([*SMALL, f"paths.runs={folder}", *overrides]) == code
    found = list(folder.rglob("status.json"))
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else folder


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """The same, `under` tmp_path."""

    def one(*overrides: str, under: str = "runs", code: int = 0) -> Path:
        return run_below(tmp_path / under, *overrides, code=code)

    return one


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a tracker that has ended."""
    return run_below(tmp_path_factory.mktemp("ended"))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def fragment(folder: Path) -> Path:
    """The only offline fragment of a run."""
    (path,) = (folder / "wandb").glob("*run-*/*.wandb")
    return path


def inspected(folder: Path, *more: str) -> str:
    """What `wandb leet inspect --json` says of the run's offline files."""
    wandb = Path(sys.executable).with_name("wandb")
    command = [str(wandb), "leet", "inspect", "--json", *more, str(fragment(folder))]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def summary(folder: Path) -> dict[str, Any]:
    """Configuration, summary and state."""
    return json.loads(inspected(folder, "--summary"))


def records(folder: Path) -> list[dict[str, Any]]:
    """All records of the run's offline file."""
    return [json.loads(line) for line in inspected(folder).splitlines()]


def history(folder: Path) -> list[dict[str, Any]]:
    """The logged rows without W&B's own clocks."""
    items = [record["history"]["item"] for record in records(folder) if record["type"] == "history"]
    return [
        {key: value for key, value in item.items() if key not in ("_runtime", "_timestamp")} for item in items
    ]


def metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """What define_metric said, by name."""
    defined = [record["metric"] for record in records(folder) if record["type"] == "metric"]
    return {metric.get("name") or metric["glob_name"]: metric for metric in defined}
