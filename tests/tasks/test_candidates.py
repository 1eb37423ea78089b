"""A row's own options: a list in the data, the right ones by number or by text."""

import pytest

from zo.errors import DataError

from ..models.tiny import conf, evaluate
from .test_papers import task_of

TASK = {
    "columns": {"question": "q", "choices": "choices.text", "label": "right"},
    "candidates": "choices",
    "options": None,
    "templates": {"causal": {"prompt": "{question}?", "answer": " {option}", "sfc": "It was"}},
}
CHOICES = {"text": ["great", "a film", "It"]}


def chosen(clm, folder, *rights, **changes):
    rows = [{"q": "what", "choices": CHOICES, "right": right} for right in rights]
    return task_of("sst2", clm, folder, *rows, **{**TASK, **changes})


@pytest.mark.parametrize(
    ("right", "golds"), [(1, (1,)), ("It", (2,)), (["It", "great"], (2, 0)), ([1, 1], (1,))]
)
def test_the_right_ones_by_number_or_by_text(clm, tmp_path, right, golds):
    example = chosen(clm, tmp_path, right).test[0]
    assert example.options == tuple(CHOICES["text"])
    assert example.golds == golds


@pytest.mark.parametrize("calibrate", [None, "sfc"])
def test_options_of_several_numbers_are_batched_and_scored(clm, tmp_path, calibrate):
    rows = [{"q": "what", "choices": {"text": CHOICES["text"][: n + 1]}, "right": [n, 0]} for n in range(3)]
    task = task_of("sst2", clm, tmp_path, *rows, **TASK, calibrate=calibrate)
    together, alone = (evaluate(task, clm, task.test, size) for size in (18, 1))
    assert together.predictions == alone.predictions
    assert all(p < len(e.options) for p, e in zip(together.predictions, task.test, strict=True))
    assert (
        together.value == sum(p in e.golds for p, e in zip(together.predictions, task.test, strict=True)) / 18
    )


@pytest.mark.parametrize("right", [3, -1, "nothing", [], None, ["great", "x"]])
def test_labels_outside_the_list_are_named(clm, tmp_path, right):
    with pytest.raises(DataError, match=r"train\.jsonl:1: label .* is not among the 3 candidates"):
        chosen(clm, tmp_path, right)


@pytest.mark.parametrize("choices", [[], ["a", ""], "abc", [1, 2]])
def test_empty_candidates_are_named(clm, tmp_path, choices):
    row = {"q": "what", "choices": {"text": choices}, "right": 0}
    with pytest.raises(DataError, match=r"train\.jsonl:1: .*choices is"):
        task_of("sst2", clm, tmp_path, row, **TASK)


def test_the_fingerprint_follows_the_candidates(clm, tmp_path):
    rows = [{"q": "what", "choices": {"text": [text, "a"]}, "right": 0} for text in ("x", "y")]
    one, two = (task_of("sst2", clm, tmp_path, row, **TASK).fingerprint for row in rows)
    assert one != two
    assert conf("task", "record")["candidates"] == "lines"
