"""Options of transformers that forward passes make meaningless are refused, all together; their defaults are not."""

from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tests.integrations.tiny_trainer import arguments, model, rows, trainer
from zo import FZOO, AdamW, ConfigError, MeZO
from zo.integrations.ignored_options import Request, refuse
from zo.integrations.transformers import ZOTrainer

REFUSED: dict[str, Any] = {
    "optim": "sgd", "optim_args": "a=1", "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6,
    "max_grad_norm": 0.5, "torch_compile": True, "neftune_noise_alpha": 5.0, "label_smoothing_factor": 0.1,
    "use_liger_kernel": True, "auto_find_batch_size": True, "torch_empty_cache_steps": 3,
    "gradient_checkpointing": True,
    "average_tokens_across_devices": False, "ddp_find_unused_parameters": True, "ddp_bucket_cap_mb": 5,
    "ddp_broadcast_buffers": True, "bf16": True, "fp16_full_eval": True,
}  # fmt: skip


def sentences(method, args=None, *, kind=ZOTrainer, losses=False, options=None, **given):
    with pytest.raises(ConfigError) as refused:
        refuse(Request(kind, {"args": args, **given}, method, options or {}, losses))
    return str(refused.value).splitlines()


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_without_effect_is_refused_by_name(name, tmp_path):
    (line,) = sentences(MeZO, TrainingArguments(str(tmp_path), use_cpu=True, **{name: REFUSED[name]}))
    assert line.startswith(f"TrainingArguments.{name} = ")


@pytest.mark.parametrize("name, value", [("deepspeed", {"zero_optimization": {}}), ("fsdp", "full_shard")])
def test_sharded_models_are_refused(name, value, tmp_path):
    """Set behind the constructor, which needs deepspeed, or several processes."""
    args = arguments(tmp_path)
    setattr(args, name, value)
    (line,) = sentences(MeZO, args)
    assert line.startswith(f"TrainingArguments.{name} = ") and "each holds the whole model" in line


def test_all_are_listed_together_before_anything_is_made(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, optim="sgd", bf16=True)
    with pytest.raises(ConfigError) as refused:
        ZOTrainer(
            model(), args, method=FZOO, method_options={"epss": 1e-3, "n": 1, "lr": 0.1},
            optimizers=(torch.optim.SGD([torch.zeros(1)]), None), compute_loss_func=lambda *_: 0,
        )  # fmt: skip
    text = str(refused.value)
    for part in (
        "TrainingArguments.optim = 'sgd' would have no effect",
        "TrainingArguments.bf16 = True rounds the weights",
        "FZOO has no option 'epss'. Did you mean eps?",
        "optimizer.n = 1 must be",
        "method_options['lr'] is decided by TrainingArguments.learning_rate",
        "optimizers = ... would have no effect",
        "compute_loss_func gives one mean a batch",
    ):
        assert part in text
    assert len(text.splitlines()) == 7


def test_defaults_and_what_means_the_same_are_taken(tmp_path):
    chosen: tuple[dict[str, Any], ...] = (
        {},
        {"max_grad_norm": 0.0},
        {"lr_scheduler_type": "cosine", "warmup_steps": 2, "seed": 1},
    )
    for options in chosen:
        args = TrainingArguments(str(tmp_path), use_cpu=True, **options)
        refuse(Request(ZOTrainer, {"args": args, "model": model()}, MeZO, {"eps": 1e-2}))


def test_a_method_is_one_of_forward_passes():
    assert sentences(AdamW) == [
        "method = AdamW moves by gradients. Take transformers' own Trainer for it (optim=...)."
    ]
    assert "is no method of zo" in sentences("fzoo")[0]
    assert "is no method of zo" in sentences(torch.optim.SGD)[0]


def test_an_optimizer_and_the_arguments_agree(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, learning_rate=1e-3, weight_decay=0.1)
    lines = sentences(MeZO(model(), lr=1e-4), args, options={"eps": 1e-2}, model_init=model)
    assert len(lines) == 4
    assert "The optimizer has lr = 0.0001, and TrainingArguments.learning_rate = 0.001" in lines[2]
    assert "lr is a schedule" in sentences(MeZO(model(), lr=lambda t: 1e-4, weight_decay=0.1), args)[0]
    refuse(Request(ZOTrainer, {"args": args}, MeZO(model(), lr=1e-3, weight_decay=0.1)))


class Preferring(Trainer):
    """A trainer with a loss of its own, as TRL's DPOTrainer is one."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs).loss


class ZOPreferring(ZOTrainer, Preferring):
    """That trainer with zo's steps."""


def test_a_loss_that_would_never_be_called_is_refused_unless_one_by_row_is_given():
    (line,) = sentences(MeZO, kind=ZOPreferring)
    assert line.startswith("Preferring.compute_loss is not called to train")
    refuse(Request(ZOPreferring, {}, MeZO, {}, True))


def test_nothing_is_refused_that_the_tests_of_the_trainer_use(tmp_path):
    assert trainer(tmp_path, MeZO, eval_dataset=rows(2)).args.logging_nan_inf_filter is False
