"""TRL's SFTTrainer prepares data and evaluates; the steps are zo's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tests.integrations.test_trainer import LR, linear
from tests.integrations.tiny_trainer import again
from zo import FZOO, ConfigError
from zo.integrations.ignored_options import Request, refuse
from zo.integrations.trainer_state import JOURNAL
from zo.integrations.transformers import ZOTrainer

trl = pytest.importorskip("trl", reason="trl is not installed: pip install 'trl>=1.16,<2'")
MODEL = str(Path(__file__).parents[2] / "experiments" / "world" / "tiny-clm")
ROWS = [
    {"prompt": f"The {kind} play was really", "completion": f" {word} ."}
    for kind in ("Spanish", "new", "first") for word in ("touching", "dull", "funny", "lovely")
]  # fmt: skip


class ZOSFTTrainer(ZOTrainer, trl.SFTTrainer):
    """SFTTrainer with zo's steps."""


def config(folder, **options):
    usual = {
        "max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": LR, "logging_steps": 1, "report_to": [],
        "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "bf16": False,
    }  # fmt: skip
    return trl.SFTConfig(str(folder), **usual | options)


def test_the_steps_are_those_of_a_plain_loop_on_the_tokens_of_the_completions(tmp_path):
    data = Dataset.from_list(ROWS)
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
               "per_device_eval_batch_size": 12}  # fmt: skip
    one = ZOSFTTrainer(
        MODEL, config(tmp_path / "a", **options), train_dataset=data, eval_dataset=data, method=FZOO
    )
    theirs: Any = one.data_collator
    batches: list[Any] = []

    def collator(some):
        made = theirs(some)
        if len(some) == 4:  # evaluation takes all twelve rows at once
            batches.append(made)
        return made

    collator.batches = batches
    one.data_collator = collator
    one.train()
    assert all((batch["labels"] == -100).any(1).all() for batch in batches)  # prompts have no label
    one.data_collator = theirs  # `again` asks for the number of batches in an epoch
    theirs.batches = batches
    fresh = AutoModelForCausalLM.from_pretrained(MODEL)
    optimizer = FZOO(fresh, lr=LR, seed=one.args.seed)
    path = again(one, tmp_path / "b", optimizer, fresh, lambda t: linear(t, steps=3))
    assert path.read_bytes() == (tmp_path / "a" / JOURNAL).read_bytes()
    assert optimizer.weights.sha256() == one.zo.weights.sha256()
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert "Trained by FZOO of zo" in card and "SFT" in card
    resumed = ZOSFTTrainer(
        MODEL, config(tmp_path / "a", **options), train_dataset=data, eval_dataset=data, method=FZOO
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert resumed.zo.weights.sha256() == one.zo.weights.sha256()
    assert any("eval_mean_token_accuracy" in row for row in one.state.log_history)  # TRL's own evaluation


def test_of_trls_defaults_only_its_autocast_is_refused(tmp_path):
    with pytest.raises(ConfigError) as refused:
        refuse(Request(ZOSFTTrainer, {"args": trl.SFTConfig(str(tmp_path), use_cpu=True)}, FZOO))
    (line,) = str(refused.value).splitlines()
    assert line.startswith("SFTConfig.bf16 = True (the default of TRL's configurations) rounds the weights")
    with pytest.raises(ConfigError) as refused:
        refuse(
            Request(
                ZOSFTTrainer, {"args": config(tmp_path, loss_type="dft", activation_offloading=True)}, FZOO
            )
        )
    lines = str(refused.value).splitlines()
    assert [line.split(" = ")[0] for line in lines] == [
        "SFTConfig.activation_offloading",
        "SFTConfig.loss_type",
    ]


class ZODPOTrainer(ZOTrainer, trl.DPOTrainer):
    """A trainer of pairs, whose loss is in compute_loss."""


def test_a_trainer_with_a_loss_of_its_own_is_refused():
    with pytest.raises(ConfigError, match=r"DPOTrainer.compute_loss is not called to train"):
        refuse(Request(ZODPOTrainer, {}, FZOO))


def test_adapters_are_trained_alone(tmp_path):
    from peft import LoraConfig

    data = Dataset.from_list(ROWS)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    one = ZOSFTTrainer(
        MODEL, config(tmp_path, save_strategy="steps", save_steps=1, max_steps=2), train_dataset=data,
        peft_config=lora, method=FZOO,
    )  # fmt: skip
    one.train()
    assert {name.split(".")[-3] for name in one.zo.weights.tensors} <= {"lora_A", "lora_B"}
    fresh = ZOSFTTrainer(
        MODEL, config(tmp_path, max_steps=2), train_dataset=data, peft_config=lora, method=FZOO
    )
    fresh.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert torch.equal(*(next(iter(t.zo.weights.tensors.values())) for t in (one, fresh)))
    assert fresh.zo.weights.sha256() == one.zo.weights.sha256()
