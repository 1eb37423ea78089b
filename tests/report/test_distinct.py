"""Runs that are one count once, and what the others differ in stands beside their deviation."""

import json
from typing import Any

import pytest

from experiments.report.cells import cells_of
from experiments.report.comparison import comparison
from experiments.report.distinct import distinct, draw_of, paired_seeds, varied
from experiments.report.exported_rows import records
from experiments.report.runs import read_runs
from experiments.report.tables.builders import choices, results
from tests.report.made import run

DRAW = {"train": "a", "order": "o", "dev": "d", "test": "t", "demonstrations": None, "start": "s",
        "directions": None, "dropout": None}  # fmt: skip


def written(folder, *, weights="w", rows="r", answers="x", dropout=0.0, **draw):
    """A result as this version writes it."""
    path = folder / "result.json"
    more = {"model_sha256": weights, "draw_sha256": rows, "answers_sha256": answers, "draw": DRAW | draw}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more, "dropout": dropout}))


def older(folder, weights, **more):
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_sha256": weights, **more}))


def only(path):
    (cell,) = cells_of(read_runs([path]))
    return cell


def test_seeds_that_changed_nothing_are_one_run_without_a_deviation(tmp_path):
    for seed in range(3):
        written(run(tmp_path, "adamw", seed, after=0.445))
    cell = only(tmp_path)
    assert (cell.n, cell.mean, cell.deviation, len(cell.values)) == (1, 0.445, None, 3)
    made = comparison(read_runs([tmp_path]))
    assert results(made).rows[0][1].text == "44.5 (3 seeds, 1 distinct run)"
    assert "adamw on t with m (none): 3 seeds, 1 distinct run; the other seeds changed nothing." in made.notes
    (row,) = records(made)["cells"]
    assert (row["n"], row["seeds"], row["deviation"], row["low"], row["varied"]) == (1, 3, None, None, "")


@pytest.mark.parametrize("part", ["weights", "rows", "answers"])
def test_two_runs_are_two_where_anything_that_a_seed_changes_differs(tmp_path, part):
    """Equal numbers of two runs that differ are two numbers."""
    for seed in range(2):
        changed: dict[str, Any] = {part: str(seed)}
        written(run(tmp_path, "icl", seed, after=0.5), **changed)
    cell = only(tmp_path)
    assert (cell.n, cell.deviation) == (2, 0.0)


def test_of_several_that_are_one_the_mean_takes_one(tmp_path):
    for seed, after in enumerate((0.4, 0.4, 0.6)):
        written(run(tmp_path, "adamw", seed, after=after), weights=str(after))
    assert (only(tmp_path).n, only(tmp_path).mean) == (2, pytest.approx(0.5))


def test_a_pair_of_runs_that_are_one_is_one_pair(tmp_path):
    for seed in range(3):
        written(run(tmp_path, "adamw", seed, after=0.5))
        written(run(tmp_path, "sgd", seed, after=0.4))
        written(run(tmp_path, "mezo", seed, after=0.3 + 0.1 * seed), weights=f"m{seed}", directions=seed)
    runs = {m: [r for r in read_runs([tmp_path]) if r.method == m] for m in ("adamw", "sgd", "mezo")}
    assert paired_seeds(runs["adamw"], runs["sgd"]) == [0]
    assert paired_seeds(runs["adamw"], runs["mezo"]) == [0, 1, 2]
    assert len(distinct(runs["adamw"])) == 1 and len(distinct(runs["mezo"])) == 3
    made = comparison(read_runs([tmp_path]))
    spreads = {(each.a, each.b): each.spread for each in made.differences}
    assert (spreads["adamw", "sgd"].n, spreads["adamw", "sgd"].low) == (1, None)
    assert spreads["adamw", "mezo"].n == 3


def test_what_varied_is_said_of_every_deviation(tmp_path):
    for seed in range(2):
        written(run(tmp_path, "mezo", seed, after=0.5 + 0.1 * seed), weights=f"m{seed}", rows=str(seed),
                directions=seed, order=f"o{seed}", train=f"t{seed}")  # fmt: skip
        written(run(tmp_path, "adamw", seed, after=0.5 + 0.1 * seed), weights=f"a{seed}", order=f"o{seed}")
    made = comparison(read_runs([tmp_path]))
    said = " ".join(results(made).notes)
    assert "between the seeds' runs: directions, order, train rows (mezo); order (adamw)." in said
    table = choices(made)
    column = table.head.index("varied")
    assert [row[column].text for row in table.rows] == ["order", "directions, order, train rows"]


def test_the_note_on_dropout_looks_at_its_probability(tmp_path):
    for seed, (method, p) in enumerate([("adamw", 0.0), ("sgd", 0.1)]):
        folder = run(tmp_path, method, seed)
        older(folder, "w", train_mode=True)
        written(folder, dropout=p)
    assert (
        "With dropout in training: sgd. All others train without." in comparison(read_runs([tmp_path])).notes
    )
    older(run(tmp_path / "old", "adamw"), "w", train_mode=True)
    (note,) = [note for note in comparison(read_runs([tmp_path / "old"])).notes if "dropout" in note]
    assert note == "In train mode, by a version that did not record the dropout: adamw."


def test_older_runs_are_told_apart_by_the_seeds_of_their_configuration(tmp_path):
    """Version 1 had no seeds.test: test was drawn under seeds.split, or with task.k always the same."""
    for seed in range(3):
        older(run(tmp_path / "fixed", "adamw", seed, seeds__split=0, seeds__order=0), "w")
        older(run(tmp_path / "rows", "icl", seed, seeds__order=0), "w")
        older(run(tmp_path / "k", "mezo", seed, seeds__order=0, task__k=16), f"m{seed}")
    assert only(tmp_path / "fixed").n == 1
    assert only(tmp_path / "rows").n == 3
    assert varied(read_runs([tmp_path / "k"])) == ("directions", "train rows", "dev rows")
    (first, *_) = read_runs([tmp_path / "rows"])
    assert draw_of(first)["test"] == first.seed and draw_of(first)["order"] == 0


def test_runs_without_digests_are_each_one(tmp_path):
    for seed in range(2):
        run(tmp_path, "mezo", seed, after=0.5)
    assert only(tmp_path).n == 2
