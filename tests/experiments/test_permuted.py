"""With permuted training labels nothing can be learned, and nothing is.

The shipped models tell the classes apart so cleanly that, told nonsense, they still answer a whole class
alike: which one is chance, and the accuracy of a single run may be anything. Chance shows in two other ways: the
loss on true labels stays at that of guessing, and, where nothing prefers a word at the start, training on the same
labels turned round answers the opposite.
"""

import json
import math
import random

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.world.grammar import examples
from experiments.world.words import SENTIMENT_OPTIONS

from .conftest import ROOT

WORLD = ROOT / "experiments" / "world"
COMMON = (
    "task.train=400",
    "task.dev=0",
    "task.test=200",
    "task.source.world=null",
    "batch.size=16",
    "save=false",
)


@pytest.fixture
def turned(tmp_path):
    """Folders with permuted training labels, and with the same labels turned round; test labels are true."""
    rows = examples("sentiment", "train", 400, 0)
    labels = [row["label"] for row in rows]
    random.Random(0).shuffle(labels)
    folders = []
    for turn in (0, 1):
        folder = tmp_path / f"data{turn}"
        folder.mkdir()
        train = [{**row, "label": label ^ turn} for row, label in zip(rows, labels, strict=True)]
        for split, content in (("train", train), ("validation", examples("sentiment", "test", 200, 0))):
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
        folders.append(folder)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        ["optimizer=adamw", "optimizer.dropout=false", "budget.steps=40"],
        ["optimizer=fzoo", "budget.steps=60"],
        ["optimizer=mezo", "budget.steps=200"],
        ["model=tiny-mlm", "optimizer=fzoo", "budget.steps=60"],
    ],
    ids=["adamw", "fzoo", "mezo", "tiny-mlm"],
)
def test_permuted_labels_end_at_chance(runs, turned, choices):
    for folder in turned:
        result = runs(*choices, *COMMON, f"task.data_dir={folder}")
        # True labels give below 0.1 after as many steps. A coin gives ln 2 = 0.693; 10 % less is what a bias of
        # the 400 permuted labels of two standard errors (0.05 each way) could earn at most.
        assert result["loss_after"] > 0.9 * math.log(2)


@pytest.mark.slow
def test_labels_turned_round_mirror_the_run(runs, turned, tmp_path):
    """Where the label words start equal, the same labels turned round train a model that answers the opposite."""
    pieces = AutoTokenizer.from_pretrained(WORLD / "tiny-clm")
    model = AutoModelForCausalLM.from_pretrained(WORLD / "tiny-clm")
    table = model.state_dict()["model.decoder.embed_tokens.weight"]
    words = pieces.convert_tokens_to_ids([f"Ġ{word}" for word in SENTIMENT_OPTIONS])
    table[words] = table[words].mean(dim=0)
    for part in (model, pieces):
        part.save_pretrained(tmp_path / "tied")
    choices = ["model=hub", f"model.path={tmp_path / 'tied'}", "optimizer=adamw", "optimizer.dropout=false"]
    sizes = ["optimizer.lr=5e-4", "budget.steps=40", *COMMON]
    one, other = (runs(*choices, *sizes, f"task.data_dir={folder}") for folder in turned)
    # Products of mirrored numbers round alike but for the order of sums: a row or two at the border may differ.
    assert abs(one["after"] + other["after"] - 1.0) < 0.02
