"""Answers of a task's examples, generated greedily in batches."""

from collections.abc import Sequence

from experiments.models.loading import Loaded
from experiments.tasks.generation import Greedy
from experiments.tasks.prompts import Example
from experiments.tasks.task import Task


def generate(task: Task, loaded: Loaded, examples: Sequence[Example]) -> list[str | None]:
    """One answer an example, stripped, of at most task.max_new_tokens tokens; None where logits were no numbers."""
    batch = task.collate_prompts(examples)
    greedy = Greedy(loaded.tokenizer, loaded.pad, task.max_new_tokens)
    return greedy(loaded.model, batch["input_ids"], batch["attention_mask"])
