"""Ties are called ties, and runs that learned nothing are said to: page, tables and terminal."""

import pytest

from experiments.__main__ import main
from experiments.report.comparison import comparison
from experiments.report.headline import headlines
from experiments.report.page import page
from experiments.report.runs import read_runs
from experiments.report.tables.builders import results
from experiments.rundir.metric_rows import learned_nothing
from tests.report.made import dev_rows, run


@pytest.fixture
def tied(tmp_path):
    """fzoo and mezo at 46.0 % from beginning to end, dev at 48.0 % at all looks; the majority class has 54.0 %."""
    for method in ("FZOO", "MeZO"):
        for seed in (0, 1):
            folder = run(tmp_path, method, seed, after=0.46, majority=0.54, rows=dev_rows(*[0.48] * 10))
            path = folder / "result.json"
            path.write_text(path.read_text(encoding="utf-8").replace('"before": 0.5', '"before": 0.46'))
    return tmp_path


def test_methods_that_print_alike_are_tied(tied):
    made = comparison(read_runs([tied]))
    assert headlines(made) == [
        "Forward passes only: fzoo and mezo, 46.0 % each, are tied for the highest mean of 2 on t · m; it is of runs "
        "that learned nothing."
    ]


def test_one_leader_is_no_tie_and_several_columns_are_counted(tmp_path):
    for task, means in {"t": (0.70, 0.80), "u": (0.90, 0.60), "v": (0.7001, 0.7004)}.items():
        for method, after in zip(("FZOO", "MeZO"), means, strict=True):
            run(tmp_path, method, after=after, task__name=task)
    runs = read_runs([tmp_path])
    assert headlines(comparison(runs)) == [
        "Forward passes only: fzoo and mezo are tied, each with the highest mean in 2 of 3 columns."
    ]
    one = comparison([each for each in runs if each.task == "t"])
    assert headlines(one) == ["Forward passes only: mezo has the highest mean of 2 on t · m, 80.0 % (1)."]


def test_runs_that_learned_nothing_are_said_to_in_tables_notes_page_and_terminal(tied, capsys, monkeypatch):
    made = comparison(read_runs([tied]))
    rows = {row[0].text: row[1].text for row in results(made).rows}
    assert rows == dict.fromkeys(("fzoo", "mezo"), "46.0 ± 0.0 (2); 2 learned nothing")
    why = "learned nothing: test stayed where it began, at 46.0 %, and dev at 48.0 % at all 10 evaluations."
    assert sum(note.endswith(why) for note in made.notes) == 4
    text = page(made)
    assert "2 learned nothing" in text and "These runs learned nothing" in text and "are tied for" in text
    assert text.count("46.0<small> % each") == 1 and why[:-1] in text
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["report", str(tied)]) == 0
    printed = capsys.readouterr().out
    assert (
        "are tied for the highest mean of 2" in printed and "2 learned nothing" in printed and why in printed
    )


RESULT = {"status": "finished", "method": "fzoo", "before": 0.5, "after": 0.6, "majority": 0.55}


@pytest.mark.parametrize(
    ("changed", "dev", "reason"),
    [
        ({}, (0.5, 0.6), None),
        ({"after": 0.5, "majority": None}, (0.5, 0.5), "stayed where it began"),
        ({"after": 0.5, "majority": None}, (), "stayed where it began"),
        ({"after": 0.5, "majority": None}, (0.5, 0.6), None),  # it moved and is back by chance
        ({"after": 0.55}, (0.5, 0.6), "not above the majority class's 55.0 %"),
        ({"after": 0.52}, (0.5, 0.6), "not above the majority class's 55.0 %"),
        ({"after": 0.52, "method": "zeroshot"}, (), None),  # nothing was to be learned
        ({"after": 0.52, "status": "diverged"}, (0.5,), None),  # which is said already
        ({"after": None}, (), None),
    ],
)
def test_what_learned_nothing_means(changed, dev, reason):
    found = learned_nothing(RESULT | changed, dev)
    assert found is None if reason is None else found is not None and reason in found
