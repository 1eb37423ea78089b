"""Digests a run's rows and their order part by part, so that two runs can be compared.

Parts: train (which rows, whatever their order), order (as training takes them), dev, test, demonstrations (as they
stand before the prompts of test), start (the weights, new parameters among them), and the seeds of directions and
dropout. One that the run does not use is None: no seed of it can change the run.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.tasks.prompts import Example

Draw = Mapping[str, str | int | None]

ROWS = ("train", "order", "dev", "test", "demonstrations")  # of the parts, those that `draw_sha256` is of
_LETTERS = 16  # of a part's digest


def rows_digest(examples: Sequence[Example], *, ordered: bool) -> str | None:
    """Returns the digest of examples by their contents, in their order or in any; None without any."""
    lines = [json.dumps([e.fields, e.golds, e.answers, e.options], sort_keys=True) for e in examples]
    return _digest(lines if ordered else sorted(lines))[:_LETTERS] if lines else None


def prompts_digest(examples: Sequence[Example]) -> str | None:
    """Returns the digest of all text in the first rows of examples, demonstrations too."""
    return _digest(json.dumps(e.rows[0].ids) for e in examples)[:_LETTERS]


def draw_digest(draw: Draw) -> str:
    """SHA-256 (hex) of the rows drawn and their order: equal for two runs that saw the same examples alike."""
    return _digest([json.dumps([name, draw.get(name)]) for name in ROWS])


def answers_digest(answers: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what answers.json holds."""
    return _digest([json.dumps(answers, sort_keys=True)])


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
