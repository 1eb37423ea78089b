"""Batches: examples as tensors with B in front, padded on the right to the longest row (a multiple of 8).

Every tensor's leading dimension is B, so a batch may be cut or stacked along it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.tasks.prompts import Example, Ids, Row

NOTHING = -100  # a target that is not there
MULTIPLE = 8

Batch = dict[str, Tensor]


def padded(rows: Sequence[Ids], pad: int, limit: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids and attention mask [len(rows), T]; T is the longest, rounded up to 8 where `limit` allows."""
    longest = max(map(len, rows))
    width = max(min(-(-longest // MULTIPLE) * MULTIPLE, limit), longest)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    return ids, mask


def spans(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Positions whose logits predict the rows' last `span` tokens, and those tokens, both [len(rows), K]."""
    width = max(max((row.span for row in rows), default=1), 1)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    targets = torch.full((len(rows), width), NOTHING, dtype=torch.long)
    for number, row in enumerate(rows):
        if row.span:
            end = len(row.ids)
            positions[number, : row.span] = torch.arange(end - row.span - 1, end - 1)
            targets[number, : row.span] = torch.tensor(row.ids[-row.span :])
    return positions, targets


def option_batch(examples: Sequence[Example], pad: int, limit: int) -> Batch:
    """input_ids, attention_mask [B, O, T]; positions, targets [B, O, K]; labels [B]; golds [B, O].

    Where an example has fewer options than another, its first row stands again with no targets.
    """
    options = max(len(example.rows) for example in examples)
    rows = [r for e in examples for r in [*e.rows, *[Row(e.rows[0].ids)] * (options - len(e.rows))]]
    tensors = row_batch(rows, pad, limit)
    shaped = {name: t.unflatten(0, (len(examples), options)) for name, t in tensors.items()}
    return shaped | {"labels": _labels(examples), "golds": golds(examples)}


def answer_batch(examples: Sequence[Example], pad: int, limit: int) -> Batch:
    """input_ids, attention_mask [B, T]; positions, targets [B, K]: the right option, or the model answer."""
    return row_batch([answer_row(example) for example in examples], pad, limit)


def answer_row(example: Example) -> Row:
    """The row of the right option, or of the model answer."""
    return example.rows[example.golds[0] if example.golds else 0]


def row_batch(rows: Sequence[Row], pad: int, limit: int) -> Batch:
    """input_ids, attention_mask [R, T]; positions, targets [R, K]."""
    ids, mask = padded([row.ids for row in rows], pad, limit)
    positions, targets = spans(rows)
    return {"input_ids": ids, "attention_mask": mask, "positions": positions, "targets": targets}


def prompt_batch(examples: Sequence[Example], pad: int, limit: int) -> Batch:
    """input_ids, attention_mask [B, T] of prompts, padded on the left; numbers [B] of the examples."""
    ids, mask = padded([example.prompt for example in examples], pad, limit, left=True)
    numbers = torch.tensor([example.index for example in examples])
    return {"input_ids": ids, "attention_mask": mask, "numbers": numbers}


def cloze_batch(examples: Sequence[Example], words: Sequence[int], pad: int, limit: int) -> Batch:
    """input_ids, attention_mask [B, T]; positions [B, 1] of the mask; words, golds [B, O]; labels [B]."""
    rows = [example.rows[0] for example in examples]
    ids, mask = padded([row.ids for row in rows], pad, limit)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "positions": torch.tensor([[row.span] for row in rows]),
        "words": torch.tensor(words).expand(len(rows), -1).clone(),
        "labels": _labels(examples),
        "golds": golds(examples),
    }


def class_batch(examples: Sequence[Example], pad: int, limit: int) -> Batch:
    """input_ids, attention_mask and, where the tokenizer has them, token_type_ids [B, T]; labels [B]; golds [B, O]."""
    rows = [example.rows[0] for example in examples]
    ids, mask = padded([row.ids for row in rows], pad, limit)
    batch = {"input_ids": ids, "attention_mask": mask}
    batch |= {"labels": _labels(examples), "golds": golds(examples)}
    if rows[0].types:
        types, _ = padded([row.types for row in rows], 0, limit)
        batch["token_type_ids"] = types
    return batch


def golds(examples: Sequence[Example]) -> Tensor:
    """1 at each right option, [B, O]; O is the largest number of options."""
    found = torch.zeros(len(examples), max(len(example.options) for example in examples))
    for number, example in enumerate(examples):
        found[number, list(example.golds)] = 1.0
    return found


def _labels(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([example.golds[0] for example in examples])
