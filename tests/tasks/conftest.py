"""Models to put tasks to, and the real data where they lie."""

import dataclasses
import os
from pathlib import Path

import pytest

from ..models.tiny import WORDS, conf, load, make, tokenizer

MORE_WORDS = "bad okay good Description Entity Expression Human Location Number".split()


@pytest.fixture(scope="session")
def clm(tmp_path_factory):
    """A causal model, 128 tokens of context, `<s>` before every text."""
    folder = tmp_path_factory.mktemp("clm")
    make("opt").save_pretrained(folder)
    tokenizer(masked=False).save_pretrained(folder)
    return load(conf("model", "hub", path=str(folder), device="cpu"))


@pytest.fixture(scope="session")
def mlm(tmp_path_factory):
    """A masked model."""
    folder = tmp_path_factory.mktemp("mlm")
    make("roberta").save_pretrained(folder)
    tokenizer(masked=True).save_pretrained(folder)
    return load(conf("model", "hub", path=str(folder), device="cpu"))


@pytest.fixture(scope="session")
def worded(mlm):
    """A masked model whose tokenizer has the label words of every mask task (its weights are not of use)."""
    return dataclasses.replace(
        mlm, tokenizer=tokenizer(masked=True, words=[*WORDS, *MORE_WORDS]), vocabulary=None
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A classifier of two classes on sentences and pairs."""
    folder = tmp_path_factory.mktemp("encoder")
    make("encoder").save_pretrained(folder)
    tokenizer(masked=True).save_pretrained(folder)
    return load(conf("model", "hub", path=str(folder), device="cpu"), classes=2)


@pytest.fixture(scope="session")
def shared():
    """The folder with real models and data."""
    root = Path(os.environ.get("ZO_SHARED", Path(__file__).parents[3] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip("the real models and data are not here: set ZO_SHARED to their folder")
    return root
