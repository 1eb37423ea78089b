"""A ZOTrainer on a model of one layer, and the same steps by zo.train on the batches that it was given."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import TrainerCallback, TrainingArguments

from tests.tiny import Shape, build
from zo import Journal, ModuleLook, train
from zo.integrations.row_losses import objective_of
from zo.integrations.trainer_state import JOURNAL
from zo.integrations.transformers import ZOTrainer
from zo.look import MicroBatches
from zo.records import read_header

Row = dict[str, Tensor]


def model(dtype: torch.dtype = torch.float32) -> Any:
    return build("opt", Shape(layers=1), dtype)


def rows(count: int = 20) -> list[Row]:
    """Rows of 4 to 7 tokens; the first token of each has no label."""
    made = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        ids = torch.randint(3, 50, (4 + number % 4,), generator=generator)
        made.append({"input_ids": ids, "labels": torch.cat([torch.tensor([-100]), ids[1:]])})
    return made


class Collator:
    """Pads rows to their common width, and keeps every batch that it made."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Tensor]] = []

    def __call__(self, some: list[Row]) -> dict[str, Tensor]:
        width = max(len(row["input_ids"]) for row in some)

        def padded(name: str, value: int) -> Tensor:
            return torch.stack([pad(row[name], (0, width - len(row[name])), value=value) for row in some])

        ids = padded("input_ids", 1)
        mask = (torch.arange(width) < torch.tensor([len(row["input_ids"]) for row in some])[:, None]).long()
        self.batches.append({"input_ids": ids, "attention_mask": mask, "labels": padded("labels", -100)})
        return self.batches[-1]


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    usual: dict[str, Any] = {
        "max_steps": 6, "per_device_train_batch_size": 3, "learning_rate": 1e-2, "logging_steps": 1, "report_to": [],
        "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "remove_unused_columns": False,
    }  # fmt: skip
    return TrainingArguments(str(folder), **{**usual, **options})


def trainer(folder: Path, method: Any, trained: Any = None, **options: Any) -> ZOTrainer:
    """A trainer of `model()`; options of ZOTrainer, and the rest of TrainingArguments."""
    names = ("method_options", "losses", "callbacks", "probes_per_forward", "eval_dataset")
    own = {name: options.pop(name) for name in names if name in options}
    return ZOTrainer(
        model() if trained is None else trained,
        arguments(folder, **options),
        train_dataset=rows(),
        data_collator=Collator(),
        method=method,
        **own,
    )


def grouped(batches: list[Row], epoch: int, parts: int) -> list[MicroBatches]:
    """The micro-batches of each step: no step reaches into the next epoch, which begins after `epoch` batches."""
    return [
        MicroBatches(batches[first : min(first + parts, start + epoch)])
        for start in range(0, len(batches), epoch)
        for first in range(start, min(start + epoch, len(batches)), parts)
    ]


def again(done: ZOTrainer, folder: Path, optimizer: Any, fresh: Any, rate: Any) -> Path:
    """Takes the trainer's steps by zo.train on a fresh model; returns the journal's path."""
    collator: Any = done.data_collator
    steps = grouped(collator.batches, len(done.get_train_dataloader()), done.args.gradient_accumulation_steps)
    header = read_header(Path(str(done.args.output_dir)) / JOURNAL)
    look = ModuleLook(fresh, objective_of(fresh), optimizer)
    folder.mkdir()
    with Journal(folder / JOURNAL, header, optimizer.losses_per_step, with_lr=True) as journal:
        train(optimizer, look, steps.__getitem__, done.state.global_step, journal=journal, rate=rate)
    return folder / JOURNAL


class At(TrainerCallback):
    """Does something when a step has ended."""

    def __init__(self, step: int, act: Any):
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.act()
