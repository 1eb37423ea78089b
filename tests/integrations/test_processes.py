"""Several processes that accelerate has joined: each looks at its own rows, and all take the same steps."""

import os
import shutil
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch.nn.parallel import DistributedDataParallel

from tests.distributed.ranks import free_port
from tests.integrations.tiny_trainer import model, trainer
from tests.train import forking
from zo import FZOO
from zo.integrations.trainer_state import JOURNAL

SAVED = {"save_strategy": "steps", "save_steps": 2, "max_steps": 3, "ddp_backend": "gloo"}


def start(folder, size, resume):
    """Trains in `size` forked processes, as torchrun would start them; returns what each ended with."""
    port = free_port()

    def rank(number):
        os.environ |= {
            "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        AcceleratorState._reset_state(reset_partial_state=True)  # what the tests before have left
        GradientState._reset_state()
        one = trainer(folder, FZOO, model(), **SAVED)
        assert one.args.world_size == size
        one.train(resume_from_checkpoint=resume)
        collator: Any = one.data_collator
        ended = {
            "sha": one.zo.weights.sha256(),
            "passes": one.look.forward_passes,
            "rows": sum(len(batch["labels"]) for batch in collator.batches),
            "wrapped": isinstance(one.model_wrapped, DistributedDataParallel),
            "losses": [row["loss"] for row in one.state.log_history if "loss" in row],
        }
        torch.save(ended, folder / f"ended-{number}")

    folder.mkdir(exist_ok=True)
    pids = [forking.start(lambda number=number: rank(number)) for number in range(size)]
    assert [forking.wait(pid) for pid in pids] == [0] * size
    return [torch.load(folder / f"ended-{number}") for number in range(size)]


def test_two_processes_are_one_that_accumulates_two_batches(tmp_path):
    """On a CPU to the bit: a batch is padded and evaluated as it is, whoever does it, and the sums are added."""
    one = trainer(tmp_path / "one", FZOO, model(), gradient_accumulation_steps=2, max_steps=3)
    one.train()
    first, second = start(tmp_path / "two", 2, None)
    assert first["sha"] == second["sha"] == one.zo.weights.sha256()
    assert (tmp_path / "two" / JOURNAL).read_bytes() == (tmp_path / "one" / JOURNAL).read_bytes()
    assert first["losses"] == [row["loss"] for row in one.state.log_history if "loss" in row]
    assert not first["wrapped"]
    # Resumed from the checkpoint of step 2, without the journal beside it: one step is looked at again.
    (tmp_path / "two" / JOURNAL).unlink()
    shutil.rmtree(tmp_path / "two" / "checkpoint-3")
    resumed = start(tmp_path / "two", 2, True)
    assert [ended["sha"] for ended in resumed] == [first["sha"]] * 2
    assert [ended["passes"] for ended in resumed] == [9, 9]
    assert (tmp_path / "two" / JOURNAL).read_bytes() == (tmp_path / "one" / JOURNAL).read_bytes()
