"""Provides nonsense for files, overrides and rows of data."""

import json
import random
from collections.abc import Callable
from typing import Any

FILES = ("config.yaml", "journal", "metrics.jsonl", "result.json", "status.json", "provenance.json", "lock")
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "[]": lambda content: b"[]\n",
    "{}": lambda content: b"{}\n",
    "null": lambda content: b"null\n",
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "a bad line in the middle": lambda content: (
        content[: len(content) // 2] + b"\n{]\n" + content[len(content) // 2 :]
    ),
    "one bit": lambda content: bytes(
        b ^ (16 if i == len(content) // 2 else 0) for i, b in enumerate(content)
    ),
}
VALUES = (
    "-1", "0", "1e308", "nan", "null", "[]", "{}", "''", "true", "4294967296", "x y", "[1,[2]]", "é", "${seed}", "???"
)  # fmt: skip


def line(draw: random.Random, split: str) -> bytes:
    """Returns a row of data: mostly valid, sometimes not."""
    row = {"sentence": f"{split} {draw.random()}", "label": draw.randint(0, 1)}
    odd: list[Any] = [None, "", 3, [], {"a": 1}, True, "\ud83d", "x" * 3000, float("nan"), "\x00", " "]
    kind = draw.random()
    if kind < 0.03:
        row[draw.choice(["sentence", "label"])] = draw.choice(odd)
    elif kind < 0.05:
        del row[draw.choice(["sentence", "label"])]
    text = json.dumps(row).encode()
    if kind > 0.985:
        text = text[: draw.randint(0, len(text))] + b"\xff"
    return text + b"\n"
