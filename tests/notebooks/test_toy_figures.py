"""Table 10 and Figures 3 and 5 of the AdaMeZO paper as files, by one command."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")

from notebooks import toy_figures
from notebooks.toy_functions import TOYS
from notebooks.toy_functions import Path as ToyPath

ROOT = Path(__file__).parents[2]
FILES = {
    "figure-3.pdf",
    "figure-3.png",
    "figure-5.pdf",
    "figure-5.png",
    "table-10.csv",
    "table-10.md",
    "table-10.tex",
}


@pytest.fixture(scope="module")
def tf3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    assert toy_figures.main(["--out", str(folder), "--functions", "TF3"]) == 0
    return folder


def test_the_command_writes_the_table_and_both_figures(tf3):
    assert {path.name for path in tf3.iterdir()} == FILES
    assert all(path.stat().st_size > 100 for path in tf3.iterdir())
    rows = list(csv.DictReader((tf3 / "table-10.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["method"] for row in rows] == ["MeZO", "Adam", "AdaMeZO"]
    for row in rows:
        # As tests/optimizers/test_toy.py holds them, whose tolerances say where each rest is from.
        assert float(row["length"]) == pytest.approx(float(row["published"]), rel=2e-6)
    table = (tf3 / "table-10.md").read_text(encoding="utf-8")
    assert "| TF3 | MeZO | 1.424332 | 1.424332 | 4.89e-01 |" in table
    assert r"\toprule" in (tf3 / "table-10.tex").read_text(encoding="utf-8")


def test_a_path_lies_on_the_surface_and_the_surface_holds_every_path():
    points = torch.tensor([[-1.0, 1.0], [0.5, 0.25], [2.0, -3.0]])
    path = ToyPath(points, 1.0, 0.0)
    x, y, height = toy_figures.surface(TOYS["TF3"], {"mezo": path})
    assert height.shape == x.shape == y.shape
    for axis, grid in enumerate((x, y)):
        assert grid.min() < points[:, axis].min() and grid.max() > points[:, axis].max()
    torch.testing.assert_close(height, torch.log1p(100 * x**2 + y**2))
    lifted = toy_figures.lifted(TOYS["TF3"], points[:, 0], points[:, 1])
    torch.testing.assert_close(lifted, torch.tensor([101.0, 25.0625, 409.0]).log1p())


def test_every_panel_of_figure_5_is_a_view_in_three_dimensions():
    points = torch.tensor([[-1.0, 1.0], [0.0, 0.0]])
    paths = {
        name: {method: ToyPath(points, 1.0, 0.0) for method in ("mezo", "adam", "adamezo")} for name in TOYS
    }
    drawn = toy_figures.views(paths)
    assert [panel.name for panel in drawn.axes] == ["3d"] * 3
    assert [text.get_text() for text in drawn.axes[0].get_legend().get_texts()] == ["MeZO", "Adam", "AdaMeZO"]
    assert all(len(panel.lines) == 3 for panel in drawn.axes)


def test_as_a_script_it_says_what_is_wrong(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "notebooks/toy_figures.py", "--out", str(taken)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr == f"--out {taken}: it is a file. Name a folder, which gets the table and the figures.\n"
    )
