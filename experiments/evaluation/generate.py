"""Greedy generation in batches: padded on the left, ended by a newline or the end token."""

from collections.abc import Sequence

import torch

from experiments.models.loading import Loaded
from experiments.tasks.batches import padded
from experiments.tasks.prompts import Example
from experiments.tasks.task import Task


def generate(task: Task, loaded: Loaded, examples: Sequence[Example]) -> list[str]:
    """One answer an example, stripped, of at most task.max_new_tokens tokens."""
    ids, mask = padded([example.prompt for example in examples], loaded.pad, task.limit, left=True)
    made = loaded.model.generate(  # type: ignore[operator]  # causal models have it, and peft's wrappers of them
        input_ids=ids.to(task.device),
        attention_mask=mask.to(task.device),
        do_sample=False,
        num_beams=1,
        max_new_tokens=task.max_new_tokens,
        eos_token_id=_ends(loaded),
        pad_token_id=loaded.pad,
    )
    assert isinstance(made, torch.Tensor)
    return [
        text.strip()
        for text in loaded.tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
    ]


def _ends(loaded: Loaded) -> list[int]:
    """The last token of a newline, and the end token."""
    newline = loaded.tokenizer.encode("\n", add_special_tokens=False)[-1:]
    end = loaded.tokenizer.eos_token_id
    return [*newline, *([end] if isinstance(end, int) else [])]
