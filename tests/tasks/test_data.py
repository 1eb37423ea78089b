"""Data as users have them, and what is wrong with them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zo.errors import ConfigError, DataError

from ..models.tiny import conf, load_task

ROWS = [{"sentence": f"film {i}", "label": i % 2} for i in range(20)]


def lines(folder, split, rows):
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path):
    lines(tmp_path, "train", ROWS)
    lines(tmp_path, "validation", ROWS[:10])
    return tmp_path


def task_of(loaded, folder, name="sst2", **changes):
    return load_task(conf("task", name, data_dir=str(folder), **changes), loaded)


def refused(loaded, folder, *parts, kind=DataError, **changes):
    with pytest.raises(kind) as caught:
        task_of(loaded, folder, **changes)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    return str(caught.value)


def content(task):
    return {
        split: [(e.index, dict(e.fields), e.golds) for e in getattr(task, split)]
        for split in ("train", "dev", "test")
    }


def test_parquet_is_jsonl(clm, data, tmp_path_factory):
    other = tmp_path_factory.mktemp("parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:12]), other / "train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[12:]), other / "train-00001-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:10]), other / "validation.parquet")
    one, two = task_of(clm, data), task_of(clm, other)
    assert content(one) == content(two)
    assert one.fingerprint == two.fingerprint


def test_columns_may_have_other_names_and_lie_deeper(clm, data, tmp_path):
    folder = tmp_path / "named"
    folder.mkdir()
    for split, rows in (("train", ROWS), ("validation", ROWS[:10])):
        lines(folder, split, [{"body": {"text": r["sentence"]}, "stars": r["label"]} for r in rows])
    columns = {"sentence": "body.text", "label": ["label", "stars"]}
    assert content(task_of(clm, folder, columns=columns)) == content(task_of(clm, data))


def test_labels_may_be_any_values(clm, data, tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    for split, rows in (("train", ROWS), ("validation", ROWS[:10])):
        lines(folder, split, [{**r, "label": ["bad", "good"][r["label"]]} for r in rows])
    assert content(task_of(clm, folder, labels=["bad", "good"])) == content(task_of(clm, data))


def test_the_splits_may_have_other_names(clm, data):
    (data / "validation.jsonl").rename(data / "held_out.jsonl")
    source = conf("task", "sst2")["source"]
    assert len(task_of(clm, data, source={**source, "test": "held_out"}).test) == 10


def test_blank_lines_do_not_move_line_numbers(clm, data):
    (data / "train.jsonl").write_text('{"sentence": "a", "label": 0}\n\n{"sentence": "b", "label": 7}\n')
    refused(clm, data, "train.jsonl:3: label 7", "0 terrible, 1 great", "task.labels")


def test_the_fingerprint_follows_the_texts(clm, data):
    before = task_of(clm, data).fingerprint
    assert task_of(clm, data).fingerprint == before
    lines(data, "validation", [{**ROWS[0], "sentence": "another"}, *ROWS[1:10]])
    assert task_of(clm, data).fingerprint != before


# Wrong input ---------------------------------------------------------------------------------------------------


def test_missing_folders_and_files_are_named(clm, data, tmp_path):
    refused(clm, tmp_path / "nowhere", "task.data_dir", "nowhere", "no such folder")
    (data / "validation.jsonl").rename(data / "valid.jsonl")
    refused(clm, data, "no validation.jsonl", "it holds train.jsonl, valid.jsonl", "task.source.test")


def test_every_line_that_is_no_json_is_named(clm, data):
    text = (data / "train.jsonl").read_text().splitlines()
    text[1], text[4], text[6] = '{"sentence": "a"', "[1, 2]", '{"sentence": "\xff'
    (data / "train.jsonl").write_bytes("\n".join(text).encode("latin-1"))
    refused(
        clm, data, "train.jsonl:2: this is no JSON", "train.jsonl:5: this is no JSON object but a list", ":7:"
    )


def test_damaged_parquet_is_named(clm, data):
    (data / "train.jsonl").unlink()
    (data / "train.parquet").write_bytes(b"PAR1 and nothing else")
    refused(clm, data, "train.parquet", "parquet")


def test_an_empty_split_is_named(clm, data):
    lines(data, "validation", [])
    refused(clm, data, "validation.jsonl is empty")


def test_a_missing_column_is_named_with_those_there_are(clm, data):
    lines(data, "train", [{"text": "a", "stars": 1}])
    message = refused(
        clm, data, "lacks label (looked for label), sentence (looked for sentence)".split(",")[0][:5]
    )
    for part in (
        "sentence (looked for sentence)",
        "label (looked for label)",
        "text, stars",
        "task.columns.",
    ):
        assert part in message


def test_wrong_values_are_named_row_by_row(clm, data):
    rows = [dict(r) for r in ROWS]
    rows[2]["label"], rows[5]["sentence"], rows[7]["label"] = -1, None, "great"
    del rows[9]["sentence"]
    lines(data, "train", rows)
    refused(
        clm,
        data,
        "train.jsonl:3: label -1; allowed are 0 terrible, 1 great",
        "train.jsonl:6: sentence is null, but must be text",
        "train.jsonl:8: label 'great'",
        "train.jsonl:10: the column sentence is missing",
    )


def test_a_long_list_of_problems_is_cut(clm, data):
    lines(data, "train", [{"sentence": None, "label": 1}] * 30)
    message = refused(clm, data, "and 20 more.")
    assert len(message.splitlines()) == 11


def test_answers_must_be_texts(clm, data):
    rows = [{"context": "a", "question": "b", "answers": answers} for answers in ([], ["x"], "y", [3])]
    lines(data, "train", rows)
    lines(data, "validation", rows[1:3])
    refused(clm, data, "train.jsonl:1: answers is []", "train.jsonl:4: answers is [3]", name="question")


def test_no_rows_left_to_train_on_is_an_error(clm, data):
    refused(clm, data, "none is left to train on", "task.dev", dev=40, dev_share=1.0)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"train": 0}, "task.train=0"),
        ({"dev_share": 1.5}, "task.dev_share=1.5"),
        ({"max_length": 1}, "task.max_length=1"),
        ({"options": ["great"]}, "task.options has 1 entry"),
        ({"labels": [0, 1, 2]}, "task.labels has 3 values for 2 options"),
        ({"metric": "f1"}, "task.metric=f1 is for generated answers"),
        ({"metric": "bleu"}, "It takes accuracy or f1 or exact_match"),
        ({"columns": {"sentence": "sentence"}}, "task.columns lacks `label`"),
        ({"options": None}, "task.metric=accuracy needs task.options"),
        ({"prompt": "x"}, "task.prompt: there is no such key"),
    ],
)
def test_a_task_that_cannot_be_is_refused_before_data_are_read(clm, changes, what):
    with pytest.raises(ConfigError) as caught:
        load_task(conf("task", "sst2", data_dir="/nowhere", **changes), clm)
    assert what in str(caught.value)


def test_a_source_is_needed(clm):
    choice = conf("task", "sst2")
    with pytest.raises(ConfigError, match="exactly one of world and hub"):
        load_task({**choice, "source": {**choice["source"], "hub": None}}, clm)


def test_a_data_set_of_the_hub_fails_at_once_without_network(clm, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    choice = conf("task", "sst2")
    with pytest.raises(DataError, match=r"someone/some-data.*HF_HUB_OFFLINE is set.*task\.data_dir"):
        load_task({**choice, "source": {**choice["source"], "hub": "someone/some-data"}}, clm)


def test_an_unknown_world_is_named(clm):
    choice = conf("task", "sentiment")
    with pytest.raises(DataError, match=r"task\.source\.world=moon"):
        load_task({**choice, "source": {**choice["source"], "world": "moon"}}, clm)


def test_the_hub_is_asked_for_the_first_name_of_a_split(clm, monkeypatch):
    import datasets

    asked = []

    def load_dataset(path, subset, *, split, revision):
        asked.append((path, subset, split, revision))
        rows = [{"premise": "a", "hypothesis": "b", "label": n % 3} for n in range(9)]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    choice = conf("task", "mnli")
    load_task({**choice, "source": {**choice["source"], "revision": "abc"}}, clm)
    assert asked == [("nyu-mll/glue", "mnli", split, "abc") for split in ("train", "validation_matched")]


def test_a_folder_may_have_a_splits_second_name(clm, data):
    source = {**conf("task", "sst2")["source"], "test": ["test", "validation"]}
    assert len(task_of(clm, data, source=source).test) == 10
    lines(data, "test", ROWS[:4])
    assert len(task_of(clm, data, source=source).test) == 4
    for name in ("test", "validation"):
        (data / f"{name}.jsonl").unlink()
    refused(clm, data, "no test or validation.jsonl", "task.source.test", source=source)
