"""Folders of tiny models and of labelled sentences, as a user has them."""

import json
from pathlib import Path

import pytest

from .tiny import CAUSAL, MORE_CAUSAL, SENTENCES, make, tokenizer


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A function from an architecture's name to its folder."""
    root, made = tmp_path_factory.mktemp("models"), set()

    def get(name: str) -> Path:
        if name not in made:
            make(name).save_pretrained(root / name)
            tokenizer(name not in (*CAUSAL, *MORE_CAUSAL)).save_pretrained(root / name)
            made.add(name)
        return root / name

    return get


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    """A folder of labelled sentences of many lengths."""
    root = tmp_path_factory.mktemp("reviews")
    for split, count in (("train", 30), ("validation", 12)):
        rows = [{"sentence": f"{SENTENCES[i % 10]} {i} ", "label": i % 2} for i in range(count)]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root
