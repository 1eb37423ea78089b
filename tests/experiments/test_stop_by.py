"""Early stopping and selection by the metric or by the loss on dev: the papers' rules, resuming, and a run that learned
nothing.
"""

import io
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from experiments.config.compose import compose
from experiments.config.run_id import hash_of
from experiments.config.saved import load_config
from experiments.display.progress import closing_table
from experiments.display.track import Track, goal_of
from experiments.evaluation import Evaluation
from experiments.report.cells import cells_of
from experiments.report.runs import read_runs
from experiments.rundir.folder import RunFolder
from experiments.training.recorder import Recorder
from experiments.training.session import build
from tests.report.made import dev_rows, run

# (accuracy, loss) on dev. One example of 500 is lost after the first evaluation, and the loss falls at every one.
ONE_EXAMPLE = [(0.812, 0.60)] + [(0.810, 0.60 - 0.03 * k) for k in range(1, 7)]
# The accuracy peaks at the second evaluation and the loss falls on; the ninth is the lowest so far.
PLATEAU = [(0.70, 0.60), (0.72, 0.59)] + [(0.715, 0.59 - 0.005 * i) for i in range(1, 8)]
SMALL = ("task.train=4", "task.dev=2", "task.test=2", "budget.steps=40", "stop.every=1", "stop.patience=6")


def evaluation(value: float, loss: float) -> Evaluation:
    return Evaluation("accuracy", value, (0.0, 1.0), loss, 500, 1, 0.5, None, ())


@pytest.fixture(scope="module")
def sessions():
    """A small session by (stop.by, select_by)."""
    made = {}
    for stop_by in ("metric", "loss"):
        for select_by in ("metric", "loss"):
            config = compose([*SMALL, f"stop.by={stop_by}", f"select_by={select_by}"]).config
            assert config is not None
            made[stop_by, select_by] = build(config)
    return made


def ended_at(recorder: Recorder, looks, first: int = 0) -> int | None:
    """The evaluation, counted from 1, at which the run ends; None where it does not."""
    for t in range(first, len(looks)):
        recorder.note_step(t, {"loss": 1.0})
        if recorder.is_dev_due(t + 1):
            recorder.note_dev(t + 1, evaluation(*looks[t]))
        if recorder.is_early_stop(t + 1):
            return t + 1
    return None


@pytest.mark.parametrize(
    ("looks", "by", "ends"),
    [
        (ONE_EXAMPLE, "metric", 7),  # six evaluations in a row below 0.812
        (ONE_EXAMPLE, "loss", None),
        (PLATEAU, "metric", 8),  # at what is then the lowest loss
        (PLATEAU, "loss", None),
        # The loss rises from the second evaluation on, while the accuracy rises too.
        ([(0.5 + 0.01 * i, 0.5 + 0.01 * i) for i in range(9)], "loss", 7),
        ([(0.5 + 0.01 * i, 0.5 + 0.01 * i) for i in range(9)], "metric", None),
    ],
)
def test_a_run_ends_by_what_stop_by_names(sessions, tmp_path, looks, by, ends):
    assert ended_at(Recorder(sessions[by, "metric"], RunFolder(tmp_path), []), looks) == ends


def test_the_best_is_chosen_by_what_select_by_names_whatever_ends_the_run(sessions, tmp_path):
    for (stop_by, select_by), session in sessions.items():
        recorder = Recorder(session, RunFolder(tmp_path / stop_by / select_by), [])
        ended_at(recorder, PLATEAU)
        last = 8 if stop_by == "metric" else 9
        best = 2 if select_by == "metric" else last
        assert (recorder.best_step, recorder.best_value, recorder.best_loss) == (best, *PLATEAU[best - 1])
        value, loss = PLATEAU[last - 1]
        for further, winner in (((value - 0.5, loss - 0.1), "loss"), ((value + 0.1, loss + 0.5), "metric")):
            folder = RunFolder(tmp_path / stop_by / select_by / winner)
            once_more = Recorder(session, folder, recorder.folder.metrics())
            ended_at(once_more, [*PLATEAU[:last], further], last)
            assert once_more.best_step == (last + 1 if winner == select_by else best)


def test_a_run_that_is_resumed_after_any_evaluation_decides_the_same(sessions, tmp_path):
    for (stop_by, select_by), session in sessions.items():
        for looks in (ONE_EXAMPLE, PLATEAU):
            whole = Recorder(
                session, RunFolder(tmp_path / "whole" / stop_by / select_by / str(len(looks))), []
            )
            end = ended_at(whole, looks)
            for cut in range(1, end or len(looks)):
                folder = RunFolder(tmp_path / "cut" / stop_by / select_by / f"{len(looks)}-{cut}")
                ended_at(Recorder(session, folder, []), looks[:cut])
                resumed = Recorder(session, folder, folder.metrics())
                assert ended_at(resumed, looks, cut) == end
                assert (resumed.best_step, resumed.best_loss) == (whole.best_step, whole.best_loss)


def test_a_real_run_reports_the_weights_of_its_lowest_loss(runs, rows):
    choices = ("optimizer=fzoo", "optimizer.lr=0.05", "schedule=constant", "stop.every=1", "budget.steps=12")
    by_loss = runs(*choices, "select=best", "select_by=loss")
    dev = [row for row in rows(by_loss["folder"]) if row["kind"] == "dev"]
    lowest = min(dev, key=lambda row: row["loss"])
    assert (by_loss["selected_step"], by_loss["best_dev"], by_loss["best_dev_loss"]) == (
        lowest["steps"], lowest["value"], lowest["loss"]
    )  # fmt: skip


def test_both_keys_are_in_the_hash_of_what_is_trained_and_of_nothing_else():
    config = compose([]).config
    assert config is not None

    def hashes(steps: int) -> set[str]:
        changed = [
            replace(config, select_by=select_by, stop=replace(config.stop, by=stop_by))
            for select_by in ("metric", "loss")
            for stop_by in ("metric", "loss")
        ]
        return {hash_of(each, (), steps) for each in changed}

    assert len(hashes(10)) == 4 and len(hashes(0)) == 1


@pytest.mark.parametrize(
    ("choices", "stop_by", "select", "select_by"),
    [
        ("experiment=adamezo/opt-1.3b", "loss", "last", "loss"),
        ("experiment=adamezo/roberta-large", "loss", "last", "metric"),
        ("experiment=mezo/opt-13b", "metric", "best", "loss"),
        ("experiment=fzoo/opt-13b", "metric", "best", "loss"),
        ("experiment=hizoo/opt-13b", "metric", "best", "loss"),
        ("experiment=mezo/roberta-large", "metric", "best", "metric"),
    ],
)
def test_presets_stop_and_select_by_what_their_paper_does(choices, stop_by, select, select_by):
    config = compose([choices]).config
    assert config is not None
    assert (config.stop.by, config.select, config.select_by) == (stop_by, select, select_by)


def test_the_screen_names_the_step_that_is_selected():
    config = compose(["select_by=loss"]).config
    assert config is not None
    track = Track(goal_of(config))
    for row in dev_rows(*(value for value, _ in PLATEAU), losses=[loss for _, loss in PLATEAU]):
        track.take({**row, "metric": "accuracy"})
    assert (track.best_step, track.best) == (9, 0.715)


def test_the_report_reads_the_loss_of_the_weights_that_were_selected(tmp_path):
    """Of two settings with one metric on dev the one with the lower loss at its selected evaluation."""
    looks = {1e-3: [(0.8, 0.9), (0.7, 0.2)], 1e-4: [(0.8, 0.8), (0.7, 0.3)]}
    for by, chosen in (("loss", 1e-3), ("metric", 1e-4)):
        runs = tmp_path / by
        for lr, values in looks.items():
            rows = dev_rows(*(value for value, _ in values), losses=[loss for _, loss in values])
            folder = run(runs, dev=0.7 if by == "loss" else 0.8, rows=rows, optimizer__lr=lr)
            text = (folder / "config.yaml").read_text(encoding="utf-8")
            (folder / "config.yaml").write_text(f"{text}select: best\nselect_by: {by}\n", encoding="utf-8")
        (cell,) = cells_of(read_runs([runs]))
        assert cell.chosen is not None and cell.chosen.differs["optimizer.lr"] == chosen
        assert cell.chosen.dev_loss == (0.2 if by == "loss" else 0.8)


def test_a_folder_of_a_version_without_the_keys_is_read_and_is_the_same_setting(tmp_path):
    config = compose([]).config
    assert config is not None
    older = config.recorded()
    del older["select_by"], older["stop"]["by"]
    folders = []
    for name, each in (("new", config.recorded()), ("old", older)):
        folder = tmp_path / name / "tiny-clm-sentiment-fzoo-none" / ("0" * 8) / "seed0"
        made = RunFolder(folder)
        made.write_config(each)
        made.write_status("stopped")
        folders.append(folder)
    first, second = (load_config(folder) for folder in folders)
    assert first == second and second.stop.by == second.select_by == "metric"
    assert all(a.setting == b.setting for a, b in pairwise(read_runs([tmp_path])))


def test_the_screen_of_a_run_says_it(runs):
    result = runs("optimizer=mezo", "optimizer.lr=1e-12", "schedule=constant", "stop.every=1")
    assert result["after"] == result["before"] and "stayed where it began" in result["learned_nothing"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(closing_table(result, "folder"))
    assert "learned nothing" in console.export_text()
