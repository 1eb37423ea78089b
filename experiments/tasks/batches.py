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


def padded(rows: Sequence[Ids], pad: int, limit: int | None, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids and attention mask [len(rows), T]; T is the longest, rounded up to 8 as far as `limit` allows."""
    longest = max(map(len, rows))
    width = longest if limit is None else max(min(-(-longest // MULTIPLE) * MULTIPLE, limit), longest)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    return ids, mask


def read_once(rows: Sequence[Row]) -> tuple[list[Ids], list[int]]:
    """The token rows that a causal model must read to score `rows`, and for each of `rows` the number of its own.

    A row's last token is predicted and never read. The logits at a place depend on no later token, so a row that
    begins another one is read there: options of one token all after one reading of their prompt.
    """
    holder: dict[Ids, Ids] = {}
    longer: Ids = ()
    # In this order a row that begins another one comes behind it.
    for ids in sorted({row.ids[:-1] for row in rows}, reverse=True):
        if longer[: len(ids)] != ids:
            longer = ids
        holder[ids] = longer
    number = {ids: n for n, ids in enumerate(dict.fromkeys(holder[row.ids[:-1]] for row in rows))}
    return list(number), [number[holder[row.ids[:-1]]] for row in rows]


def span(row: Row) -> range:
    """The places whose logits predict the row's last `span` tokens."""
    return range(len(row.ids) - row.span - 1, len(row.ids) - 1)


def scored_batch(groups: Sequence[Sequence[Row]], pad: int, limit: int | None) -> Batch:
    """Collates B groups of up to O rows each, such as the options of B examples, read as `read_once` says.

    input_ids, attention_mask [B, D, T]: the distinct rows. positions [B, D, P]: places in them whose logits are wanted.
    targets [B, O, K]: the rows' last `span` tokens; places [B, O, K]: which of the D · P positions predicts each.
    Where a group has fewer distinct rows than another, its first stands again and is not scored.
    """
    read = [read_once(rows) for rows in groups]
    wanted = [_wanted(rows, owners) for rows, (_, owners) in zip(groups, read, strict=True)]
    distinct = max(len(heads) for heads, _ in read)
    ids, mask = padded(
        [head for heads, _ in read for head in [*heads, *heads[:1] * (distinct - len(heads))]], pad, limit
    )
    width = max(len(places) for some in wanted for places in some)
    positions = torch.zeros((len(groups), distinct, width), dtype=torch.long)
    shape = (len(groups), max(map(len, groups)), max(row.span for rows in groups for row in rows))
    targets, places = torch.full(shape, NOTHING, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for b, (rows, (_, owners)) in enumerate(zip(groups, read, strict=True)):
        for d, some in enumerate(wanted[b]):
            positions[b, d, : len(some)] = torch.tensor(some)
        for o, (row, owner) in enumerate(zip(rows, owners, strict=True)):
            targets[b, o, : row.span] = torch.tensor(row.ids[-row.span :])
            flat = [owner * width + wanted[b][owner].index(place) for place in span(row)]
            places[b, o, : row.span] = torch.tensor(flat)
    tensors = {
        name: t.unflatten(0, positions.shape[:2])
        for name, t in (("input_ids", ids), ("attention_mask", mask))
    }
    return tensors | {"positions": positions, "places": places, "targets": targets}


def _wanted(rows: Sequence[Row], owners: Sequence[int]) -> list[list[int]]:
    """The places of each distinct row whose logits are wanted, in order."""
    wanted: list[set[int]] = [set() for _ in range(max(owners) + 1)]
    for row, owner in zip(rows, owners, strict=True):
        wanted[owner].update(span(row))
    return [sorted(places) for places in wanted]


def option_batch(examples: Sequence[Example], pad: int, limit: int) -> Batch:
    """Returns the `scored_batch` of the examples' options, with labels [B] and golds [B, O]."""
    tensors = scored_batch([example.rows for example in examples], pad, limit)
    return tensors | {"labels": _labels(examples), "golds": golds(examples)}


def answer_batch(examples: Sequence[Example], pad: int, limit: int) -> Batch:
    """Returns the `row_batch` of the right options, or of the model answers."""
    return row_batch([answer_row(example) for example in examples], pad, limit)


def answer_row(example: Example) -> Row:
    """The row of the right option, or of the model answer."""
    return example.rows[example.golds[0] if example.golds else 0]


def row_batch(rows: Sequence[Row], pad: int, limit: int) -> Batch:
    """input_ids, attention_mask [R, T] without the rows' last tokens; positions, places, targets [R, K]."""
    ids, mask = padded([row.ids[:-1] for row in rows], pad, limit)
    width = max(row.span for row in rows)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    targets = torch.full((len(rows), width), NOTHING, dtype=torch.long)
    for number, row in enumerate(rows):
        positions[number, : row.span] = torch.tensor(span(row))
        targets[number, : row.span] = torch.tensor(row.ids[-row.span :])
    places = torch.arange(width).expand(len(rows), -1).clone()
    tensors = {"input_ids": ids, "attention_mask": mask, "positions": positions}
    return tensors | {"places": places, "targets": targets}


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
    scores = torch.zeros(len(examples), max(len(example.options) for example in examples))
    for number, example in enumerate(examples):
        scores[number, list(example.golds)] = 1.0
    return scores


def _labels(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([example.golds[0] for example in examples])
