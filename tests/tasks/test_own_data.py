"""Files as practitioners have them: what can be read is the same task, what is not supported is said."""

import csv
import gzip
import io
import json

import pytest

from experiments.tasks.records import records
from experiments.tasks.rowfiles import read_files
from zo.errors import ConfigError, DataError

from ..models.tiny import conf, load_task

ROWS = [{"sentence": f'film {i}, "good"\nor not', "label": i % 2} for i in range(20)]


def as_table(rows, mark):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=mark)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


KINDS = {
    ".jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".csv": lambda rows: as_table(rows, ","),
    ".tsv": lambda rows: as_table(rows, "\t"),
}
SPREADSHEET = lambda rows: as_table(rows, ";")  # noqa: E731


def folder_of(tmp_path, kind, change=lambda content: content, write=None, suffix=""):
    folder = tmp_path / f"{kind.strip('.')}{suffix.strip('.')}"
    folder.mkdir()
    for split, rows in (("train", ROWS), ("validation", ROWS[:10])):
        content = change((write or KINDS[kind])(rows))
        (folder / f"{split}{kind}{suffix}").write_bytes(content)
    return folder


def task_of(loaded, data, name="sst2", **changes):
    return load_task(conf("task", name, data_dir=str(data), **changes), loaded)


def content(task):
    return {
        split: [(e.index, dict(e.fields), e.golds) for e in getattr(task, split)]
        for split in ("train", "dev", "test")
    }


@pytest.fixture
def plain(clm, tmp_path):
    return task_of(clm, folder_of(tmp_path, ".jsonl"))


@pytest.mark.parametrize("kind", [".json", ".csv", ".tsv"])
def test_other_kinds_of_files_are_the_same_task(clm, plain, tmp_path, kind):
    task = task_of(clm, folder_of(tmp_path, kind))
    assert content(task) == content(plain)
    assert task.fingerprint == plain.fingerprint


def test_a_spreadsheets_semicolons(clm, plain, tmp_path):
    assert task_of(clm, folder_of(tmp_path, ".csv", write=SPREADSHEET)).fingerprint == plain.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_gzip_and_a_byte_order_mark(clm, plain, tmp_path, kind):
    packed = folder_of(tmp_path, kind, gzip.compress, suffix=".gz")
    assert task_of(clm, packed).fingerprint == plain.fingerprint
    (tmp_path / "bom").mkdir()
    marked = folder_of(tmp_path / "bom", kind, lambda content: b"\xef\xbb\xbf" + content)
    assert task_of(clm, marked).fingerprint == plain.fingerprint


def test_a_folder_for_each_split(clm, plain, tmp_path):
    for split, parts in (("train", (ROWS[:7], ROWS[7:])), ("validation", (ROWS[:10],))):
        (tmp_path / split).mkdir()
        for number, rows in enumerate(parts):
            (tmp_path / split / f"part-{number}.csv").write_bytes(KINDS[".csv"](rows))
    assert task_of(clm, tmp_path).fingerprint == plain.fingerprint
    (tmp_path / "train" / "more.jsonl").write_bytes(KINDS[".jsonl"](ROWS))
    with pytest.raises(DataError, match=r"files of several kinds \(more\.jsonl, part-0\.csv, part-1\.csv\)"):
        task_of(clm, tmp_path)


def test_a_csvs_values_are_text(clm, tmp_path):
    """NA and 2012 stay what they are; labels are numbers or the values of task.labels that are written so."""
    (tmp_path / "train.csv").write_text("sentence,label\nNA,1\n2012,0\ntrue,1\n,0\n", encoding="utf-8")
    table = read_files([tmp_path / "train.csv"])
    choice = load_choice(data_dir=str(tmp_path))
    assert [(r.fields["sentence"], r.golds) for r in records(table, choice, ["sentence"])] == [
        ("NA", (1,)), ("2012", (0,)), ("true", (1,)), ("", (0,))
    ]  # fmt: skip
    (tmp_path / "train.csv").write_text("sentence,label\na,True\nb,False\n", encoding="utf-8")
    table = read_files([tmp_path / "train.csv"])
    choice = load_choice(data_dir=str(tmp_path), labels=[False, True])
    assert [r.golds for r in records(table, choice, ["sentence"])] == [(1,), (0,)]


def load_choice(**changes):
    from experiments.config.parsing import read
    from experiments.config.task_config import TaskConfig

    return read(TaskConfig, conf("task", "sst2", **changes), "task")


def test_one_file_is_shared_out_by_a_fixed_rule(clm, tmp_path):
    file = tmp_path / "all.csv"
    file.write_bytes(KINDS[".csv"](ROWS))
    with pytest.raises(DataError, match=r"all\.csv is one file.*Set task\.test_share=0\.2"):
        task_of(clm, file)
    tasks = [
        load_task(conf("task", "sst2", data_dir=str(file), test_share=0.2), clm, seed) for seed in (0, 1)
    ]
    for task in tasks:
        tests, others = ({e.index for e in some} for some in (task.test, task.train + task.dev))
        assert len(tests) == 4 and not tests & others and tests | others == set(range(20))
    assert {e.index for e in tasks[0].test} == {e.index for e in tasks[1].test}  # whatever the seed
    assert {e.index for e in tasks[0].train} != {e.index for e in tasks[1].train}
    with pytest.raises(DataError, match=r"task\.test_share=0\.01 of 20 rows leaves 0 for test"):
        task_of(clm, file, test_share=0.01)
    with pytest.raises(
        ConfigError, match=r"task\.test_share=1\.5: It takes a number above 0 and below 1, or null"
    ):
        task_of(clm, file, test_share=1.5)


# Wrong input ---------------------------------------------------------------------------------------------------


def refused(loaded, folder, rows, *parts, **changes):
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "validation.jsonl").write_text('{"sentence": "a", "label": 0}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        task_of(loaded, folder, **changes)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (float("nan"), "NaN"), (True, "true"), (False, "false"), (2012, "2012"), (1.5, "1.5"), (None, "null"),
        ([], "a list"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused(clm, tmp_path, value, found):
    rows = [{"sentence": "a", "label": 0}, {"sentence": value, "label": 1}]
    refused(clm, tmp_path, rows, f"train.jsonl:2: sentence is {found}, but must be text")


def test_half_a_character_is_named(clm, tmp_path):
    rows = [{"sentence": "a", "label": 0}, {"sentence": "sad \ud83d", "label": 0}]
    refused(clm, tmp_path, rows, "train.jsonl:2: sentence holds half a character", r"\ud83d")
    question = {"context": "a", "question": "b", "answers": ["c \udc00"]}
    refused(clm, tmp_path, [question], "train.jsonl:1: answers holds half a character", name="question")


def test_wrong_labels_are_told_by_value(clm, tmp_path):
    rows = [{"sentence": "a", "label": label} for label in ["ok"] * 30 + ["bad"] * 2 + [0] * 5]
    message = refused(
        clm, tmp_path, rows, "train.jsonl:1: label 'ok'", "In 30 rows.", "train.jsonl:31: label 'bad'"
    )
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"sentence": "a", "label": [0, 1]}, "Several labels for a row (multi-label) are not supported"),
        ({"sentence": "a", "label": 0.73}, "A number to predict (regression) is not supported"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference pairs (chosen, rejected), which are not"),
        ({"messages": [{"role": "user", "content": "a"}]}, "conversations (messages), which are not supported"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_said(clm, tmp_path, row, what):
    refused(clm, tmp_path, [row] * 4, what)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("train.csv", b"sentence,label\na,b,1\n", "train.csv:2: 3 values for the 2 columns"),
        ("train.csv", b"sentence,sentence\na,b\n", "two columns are called sentence"),
        ("train.csv", b"sentence,label\n\xff,1\n", "is not UTF-8"),
        ("train.jsonl", '{"sentence": "a", "label": 0}\n'.encode("utf-16"), "is UTF-16. Save it as UTF-8"),
        ("train.jsonl.gz", b"no gzip", "cannot be unpacked"),
        ("train.json", b'[{"sentence": "a", "label": 0}, 3]', "row 2 is no JSON object but a int"),
        ("train.json", b'[{"sentence": "a"', "neither a JSON array"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(clm, tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "validation.jsonl").write_text('{"sentence": "a", "label": 0}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        task_of(clm, tmp_path)
    assert what in str(caught.value), str(caught.value)


def test_yes_and_no_without_quotes(clm, tmp_path):
    rows = [{"sentence": "a", "label": "no"}] * 4
    refused(clm, tmp_path, rows, "YAML reads yes and no without quotes", labels=[False, True])


# What is used ----------------------------------------------------------------------------------------------------


def test_what_is_used_is_counted_and_noted(clm, tmp_path):
    train = [{"sentence": f"film {n}", "label": 0} for n in range(6)]
    tests = [
        {"sentence": " FILM  1", "label": 1},
        {"sentence": "a <s> b", "label": 1},
        {"sentence": "c", "label": 0},
    ]
    for split, rows in (("train", train), ("validation", tests)):
        (tmp_path / f"{split}.jsonl").write_bytes(KINDS[".jsonl"](rows))
    found = task_of(clm, tmp_path, train=40, dev=2, test=3, dev_share=1.0).summary
    assert found.counts == {"train": 4, "dev": 2, "test": 3}
    assert found.labels["test"] == {"terrible": 1, "great": 2}
    text = "\n".join(found.warnings)
    assert "task.train asks for 40 train examples; the data give 4." in text
    assert "All 4 train examples have the label terrible." in text
    assert "special token: <s> in 1 rows, the first" in text and "validation.jsonl:2" in text
    assert "Examples: train 4 (terrible 4, great 0); dev 2 (terrible 2, great 0); test 3" in found.line()


def test_rows_of_test_that_stand_in_train_are_counted(clm, tmp_path):
    for split, rows in (
        ("train", ROWS),
        ("validation", [{**ROWS[3], "sentence": ROWS[3]["sentence"].upper()}, *ROWS[:4]]),
    ):
        (tmp_path / f"{split}.jsonl").write_bytes(KINDS[".jsonl"](rows))
    found = task_of(clm, tmp_path, train=20, dev=0, test=5).summary
    assert found.warnings == (
        "5 of 5 test examples have the text of a train example, so the test metric says less about new text.",
    )


@pytest.mark.parametrize("name", ["sentiment", "entailment", "question"])
def test_the_built_in_tasks_have_nothing_to_note(clm, name):
    assert load_task(conf("task", name), clm).summary.warnings == ()


def test_screen_result_and_dry_run_say_what_is_used(tmp_path, capsys):
    from experiments.commands.launch import main

    data = folder_of(tmp_path, ".csv")
    words = [
        "model=tiny-clm",
        "model.device=cpu",
        "task=sst2",
        f"task.data_dir={data}",
        f"paths.runs={tmp_path / 'runs'}",
    ]
    words += ["task.train=10", "task.dev=4", "task.test=20", "optimizer=none"]
    assert main([*words, "-m", "--dry-run", "task.test=10,20"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "sst2: Examples: train 10 (" in out
        and "sst2: Note: task.test asks for 20 test examples; the data give 10." in out
    )
    assert main(words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "Examples: train 10 (" in out
        and "Note: task.test asks for 20 test examples; the data give 10." in out
    )
    (result,) = (tmp_path / "runs").rglob("result.json")
    used = json.loads(result.read_text(encoding="utf-8"))["data"]
    assert used["counts"] == {"train": 10, "dev": 4, "test": 10}
    assert sum(used["labels"]["train"].values()) == 10
    assert used["warnings"][0].startswith("task.test asks for 20")
