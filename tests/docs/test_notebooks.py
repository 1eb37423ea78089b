"""The notebooks, run from top to bottom in a copy of the project, without a network."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from .copies import copied
from .pages import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def printed(name: str, tmp_path: Path, monkeypatch) -> str:
    """Runs a notebook and gives what its cells printed."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    folder = copied(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook: Any = nbformat.read(folder / "notebooks" / name, as_version=4)
    place = {"metadata": {"path": str(folder / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=550, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(o.get("text", o.get("data", {}).get("text/plain", "")) for o in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_short_calls_and_has_no_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell["source"])
    assert path.stat().st_size < 20_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_your_model_and_task(tmp_path, monkeypatch):
    said = printed("your_model_and_task.ipynb", tmp_path, monkeypatch)
    assert "The bits are those of the run." in said
    (result,) = (json.loads(path.read_text()) for path in tmp_path.rglob("result.json"))
    assert result["model"] == "model" and result["task"] == "verdict" and result["backward_passes"] == 0
    # 500 sentences: of an even coin's, 0.58 is passed once in five thousand.
    assert result["after"] > max(0.58, result["before"])
    assert re.findall(r"tuned +Tom saw .* It was (\w+)", said) == ["great", "terrible"]
    assert not os.path.exists(ROOT / "conf" / "local" / "task" / "verdict.yaml")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compare_methods(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    said = printed("compare_methods.ipynb", tmp_path, monkeypatch)
    runs = tmp_path / "notebooks" / "runs" / "compare_methods"
    assert len(list(runs.rglob("result.json"))) == 6
    for method in ("adamw", "fzoo", "mezo"):
        assert re.search(rf"^{method} +[01]\.\d+ over 2 seeds", said, re.M)
    assert "fzoo - mezo: " in said
    assert (runs / "report" / "comparison.json").exists() and list((runs / "figures").glob("*.png"))
