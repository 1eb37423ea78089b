"""Generates the answers of a task's examples greedily in batches, and scores the gold answers.

Where the model allows it, a prompt goes through the model once: all but its last token in groups of like length, then
both the generation and the gold answer go on from its keys and values.

    row:    prompt ............ | answer         P: tokens of the prompt
            0 ... P - 2 | P - 1 | P ... L - 1    the tokens from P - 1 on, but for the last, are read after the others
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.evaluation.prefix_cache import Prompts, encode_by_length, shareable, tail_logprobs
from experiments.models.loading import Loaded
from experiments.models.padding import rows_of_one_length
from experiments.tasks.batches import answer_row, padded, span
from experiments.tasks.generation import Greedy
from experiments.tasks.objectives import span_logprobs
from experiments.tasks.prompts import Example
from experiments.tasks.task import Task


def generate(
    task: Task, loaded: Loaded, examples: Sequence[Example], *, share: bool = True
) -> list[str | None]:
    """Returns an answer an example, stripped, of at most task.max_new_tokens tokens; None where logits were NaN."""
    return _continued(task, loaded, examples, _encoded(loaded, examples, share))


def generate_and_score(
    task: Task, loaded: Loaded, examples: Sequence[Example], *, share: bool = True
) -> tuple[list[str | None], Tensor, Tensor]:
    """Returns the generated answers, and of the gold answers the sums of log-probabilities and numbers of tokens [B].

    share: both from one reading of the prompts; otherwise the gold answers are scored in whole rows.
    """
    rows = [answer_row(example) for example in examples]
    prompts = _encoded(loaded, examples, share)
    whole = [n for n, example in enumerate(examples) if prompts is None or not _continues(example)]
    tails = [n for n in range(len(examples)) if n not in set(whole)]
    sums = torch.zeros(len(examples), device=task.device)
    if whole:
        sums[whole], _ = span_logprobs(loaded.model, task.collate_rows([rows[n] for n in whole]))
    if prompts is not None and tails:
        after = [(len(examples[n].prompt) - 1, rows[n]) for n in tails]
        sums[tails] = tail_logprobs(loaded, prompts, torch.tensor(tails), after)
    counts = torch.tensor([float(row.span) for row in rows], device=task.device)
    return _continued(task, loaded, examples, prompts), sums, counts


def _continues(example: Example) -> bool:
    """Returns whether the gold answer stands behind the whole prompt.

    It does not where the row lost more of its beginning than the prompt, or where a token spans both.
    """
    row, read = answer_row(example), len(example.prompt) - 1
    return row.ids[:read] == example.prompt[:-1] and span(row).start >= read


def _encoded(loaded: Loaded, examples: Sequence[Example], share: bool) -> Prompts | None:
    """Reads the prompts without their last tokens; None where the model or a prompt does not allow it."""
    lengths = {len(example.prompt) for example in examples}
    if not share or not shareable(loaded) or min(lengths) < 2:
        return None
    if len(lengths) > 1 and rows_of_one_length(loaded.model, loaded.tokenizer, loaded.pad):
        return None
    return encode_by_length(loaded, [example.prompt[:-1] for example in examples])


def _continued(
    task: Task, loaded: Loaded, examples: Sequence[Example], prompts: Prompts | None
) -> list[str | None]:
    """Returns the greedy answers; appends to the prompts' keys and values, if there are."""
    greedy = Greedy(loaded.tokenizer, loaded.pad, task.max_new_tokens)
    if prompts is None:
        batch = task.collate_prompts(examples)
        return greedy(loaded.model, batch["input_ids"], batch["attention_mask"])
    ids, mask = padded([example.prompt for example in examples], loaded.pad, None, left=True)
    return greedy(loaded.model, ids.to(loaded.device), mask.to(loaded.device), prompts.cache)
