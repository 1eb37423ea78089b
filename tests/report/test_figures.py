"""Figures as files: which there are, that they have something on them, and that equal numbers give equal bytes."""

import numpy as np
import pytest

from experiments.report.comparison import comparison
from experiments.report.figures import short, write_figures
from experiments.report.runs import read_runs
from tests.report.made import dev_rows, run, train_rows

image = pytest.importorskip("PIL.Image", reason="figures are looked at with Pillow")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    for task in ("t", "u"):
        for seed, best in enumerate((0.7, 0.8)):
            rows = [*train_rows(0.7, 0.6), *dev_rows(0.5, best)]
            run(runs, "mezo", seed, after=best, dev=best, rows=rows, task__name=task)
            run(runs, "fzoo", seed, after=best + 0.1, dev=0.6, rows=dev_rows(0.5, 0.6), task__name=task)
    return comparison(read_runs([runs]), target=0.75)


@pytest.fixture(scope="module")
def files(made, tmp_path_factory):
    return write_figures(made, tmp_path_factory.mktemp("figures"))


def test_each_figure_is_a_png_and_a_pdf(files):
    names = {"curves", "dev-loss", "by-method", "forward-passes-to-target", "peak-memory", "seconds-per-step"}
    assert {file.name for file in files} == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}
    for file in files:
        if file.suffix == ".pdf":
            assert file.read_bytes().startswith(b"%PDF")
        else:
            pixels = np.asarray(image.open(file).convert("RGB"))
            assert pixels.shape[0] > 500 and 0.01 < (pixels < 250).any(-1).mean() < 0.6


@pytest.mark.slow
def test_equal_numbers_give_equal_bytes(made, files, tmp_path):
    again = write_figures(made, tmp_path)
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_without_a_result_there_is_no_figure(tmp_path):
    run(tmp_path / "runs", after=None, status="failed")
    assert write_figures(comparison(read_runs([tmp_path / "runs"])), tmp_path / "figures") == []


def test_numbers_beside_bars():
    assert [short(x) for x in (0.4204, 2.5, 99.96, 3275.4)] == ["0.42", "2.5", "100", "3,275"]
