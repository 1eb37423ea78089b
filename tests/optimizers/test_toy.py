"""Path lengths on the AdaMeZO paper's toy functions, with torch's generator and in-place fp32 arithmetic."""

import os
from pathlib import Path

import pytest
import torch

from notebooks.toy_functions import PUBLISHED, TOYS, Generator, run
from zo import Key, Weights

ROOT = Path(__file__).parents[2]
# The fp32 operations of MeZO and AdaMeZO are the authors' one by one, but for AdaMeZO's root, whose last bit depends on
# the processor: 9e-10. Adam's operations are of another torch.
TOLERANCES = {
    "TF1": {"mezo": 1e-12, "adam": 1e-6, "adamezo": 1e-9},
    "TF2": {"mezo": 1e-12, "adam": 1e-6, "adamezo": 1e-9},
    "TF3": {"mezo": 1e-12, "adam": 1e-6, "adamezo": 1e-9},
}
LOSSES = {
    "TF1": {"mezo": 1.2345, "adam": 1.0e-3, "adamezo": 1.3e-4},
    "TF2": {"mezo": 0.586, "adam": 2.4868e-3, "adamezo": 1.0e-3},
    "TF3": {"mezo": 0.489, "adam": 1.8e-15, "adamezo": 1.35e-3},
}


@pytest.mark.parametrize(
    "name, method",
    [
        pytest.param(name, method, marks=[] if name == "TF3" else pytest.mark.slow)
        for name in TOYS
        for method in TOLERANCES[name]
    ],
)
def test_paths_are_as_long_as_published(name, method):
    path = run(method, TOYS[name])
    published = dict(zip(("mezo", "adam", "adamezo"), PUBLISHED[name], strict=True))[method]
    assert path.length == pytest.approx(published, rel=TOLERANCES[name][method])
    assert path.loss == pytest.approx(LOSSES[name][method], rel=0.15)


def test_the_generator_names_two_directions():
    point = Weights([("theta", torch.nn.Parameter(torch.zeros(2)))])
    kind = Generator()
    first, second, third = (point.direction("theta", Key(0, t, 0), kind) for t in range(3))
    assert torch.equal(first, torch.randn(2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(second, torch.randn(2, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(first, third)


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(ROOT / "notebooks" / "toy_functions.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3").execute()
    printed = notebook.cells[3]["outputs"][0]["text"]
    assert "TF2  adamezo" in printed
