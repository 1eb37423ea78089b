"""Lists the options of a transformers or TRL trainer that would have no effect with forward passes only."""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import torch
from torch import nn

from zo.errors import ConfigError
from zo.integrations.row_losses import refusal, rows_of
from zo.optimizers import Optimizer
from zo.weights import Weights

_MOVES = "the moves are those of `method`. Drop it, and give the method's own options in method_options"
_BACKWARD = "there is no backward pass. Drop it"
_SHARDED = "processes exchange losses alone, and each holds the whole model. Start them with torchrun"
_UNWRAPPED = "the model is not wrapped, since there are no gradients to exchange. Drop it"
_IGNORED = {
    "optim": _MOVES,
    "optim_args": _MOVES,
    "optim_target_modules": _MOVES,
    "adam_beta1": _MOVES,
    "adam_beta2": _MOVES,
    "adam_epsilon": _MOVES,
    "max_grad_norm": "no gradient exists that could be clipped. Set 0, or an option of the method (FZOO's clip)",
    "activation_offloading": _BACKWARD,
    "torch_compile": "probes replace the forwards of modules, which a compiled model does not call. Drop it",
    "neftune_noise_alpha": "losses are measured in eval mode, without noise. Drop it",
    "label_smoothing_factor": "losses are those of the labels. Drop it, or give losses= with a smoothing of its own",
    "use_liger_kernel": "its fused loss leaves no logits, of which a row's loss is made. Drop it",
    "auto_find_batch_size": "a run has the batches that its journal began with. Drop it; if memory is short, lower "
    "per_device_train_batch_size and raise gradient_accumulation_steps",
    "torch_empty_cache_steps": "the memory of a step is a forward pass's. Drop it",
    "average_tokens_across_devices": "the loss is always the mean over all tokens of all processes. Drop it",
    "loss_type": "it is computed in compute_loss, which is not called to train. Drop it, or give losses=",
    "deepspeed": _SHARDED,
    "fsdp": _SHARDED,
    "parallelism_config": _SHARDED,
    "ddp_find_unused_parameters": _UNWRAPPED,
    "ddp_bucket_cap_mb": _UNWRAPPED,
    "ddp_broadcast_buffers": _UNWRAPPED,
    "ddp_static_graph": _UNWRAPPED,
}
_NARROW = ("bf16", "fp16", "bf16_full_eval", "fp16_full_eval")
# Their compute_loss is the likelihood of the labels, which is what rows_of computes.
_KNOWN_TRAINERS = ("transformers.trainer", "trl.trainer.sft_trainer", "zo.integrations.transformers")


@dataclass(frozen=True)
class Request:
    """The arguments of a ZOTrainer.

    trainer: its class. given: what the trainers behind it get, by name. losses: whether losses= was given.
    """

    trainer: type
    given: Mapping[str, Any]
    method: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    losses: bool = False


def refuse(request: Request) -> None:
    """Raises ConfigError with a sentence for every option that would be ignored, and for what cannot work."""
    problems = [
        *_of_method(request),
        *_of_arguments(request.given.get("args")),
        *_of_trainer(request),
    ]
    model = request.given.get("model")
    if isinstance(model, nn.Module) and not request.losses and rows_of(model) is None:
        problems.append(refusal(model))
    if problems:
        raise ConfigError("\n".join(problems))


def _of_method(request: Request) -> Iterator[str]:
    method, args = request.method, request.given.get("args")
    if isinstance(method, Optimizer):
        yield from _of_instance(method, request, args)
        kind = type(method)
    elif isinstance(method, type) and issubclass(method, Optimizer) and not inspect.isabstract(method):
        yield from _of_options(method, request.options)
        kind = method
    else:
        yield (
            f"method = {method!r} is no method of zo: give a class such as zo.FZOO, or an optimizer made with it."
        )
        return
    if kind.backward_passes:
        yield f"method = {kind.__name__} moves by gradients. Take transformers' own Trainer for it (optim=...)."


def _of_options(kind: type[Optimizer], options: Mapping[str, Any]) -> Iterator[str]:
    decided = {"lr": "learning_rate", "weight_decay": "weight_decay"}
    for name in sorted(decided.keys() & options):
        yield f"method_options['{name}'] is decided by TrainingArguments.{decided[name]}. Set it there alone."
    known = {one.name for one in fields(kind)} - {"params", *decided}
    for name in sorted(options.keys() - known - decided.keys()):
        close = difflib.get_close_matches(name, known, n=1)
        yield f"{kind.__name__} has no option {name!r}." + (f" Did you mean {close[0]}?" if close else "")
    try:
        kind(
            Weights(
                [("w", nn.Parameter(torch.zeros(1, dtype=torch.float32, device="cpu")))], kernels="eager"
            ),
            **{name: value for name, value in options.items() if name in known},
        )
    except ConfigError as error:
        yield str(error)


def _of_instance(method: Optimizer, request: Request, args: Any) -> Iterator[str]:
    if request.options:
        yield "method_options belongs to a class; the optimizer that was given has its options already."
    if request.given.get("model_init") is not None:
        yield "model_init makes a new model, which an optimizer of another one cannot train. Give the method's class."
    for mine, theirs in (("lr", "learning_rate"), ("weight_decay", "weight_decay")):
        value, wanted = getattr(method, mine), getattr(args, theirs, None)
        if callable(value):
            yield (
                "The optimizer's lr is a schedule, and lr_scheduler_type is another one. Give it a number, the same as "
                "TrainingArguments.learning_rate, and choose the schedule there."
            )
        elif wanted is not None and value != wanted:
            yield (
                f"The optimizer has {mine} = {value:g}, and TrainingArguments.{theirs} = {wanted:g}. Give both the "
                "same, or give the method's class, which takes it from there."
            )


def _of_arguments(args: Any) -> Iterator[str]:
    """Sentences for the values of TrainingArguments, or of TRL's SFTConfig, that are no defaults of theirs."""
    if args is None:
        return
    defaults = {
        one.name: one.default if one.default is not MISSING else None for one in fields(args) if one.init
    }
    kind = type(args).__name__
    for name, reason in _IGNORED.items():
        value, default = getattr(args, name, None), defaults.get(name)
        if value == default or not (value or default) or (name == "max_grad_norm" and value == 0):
            continue
        yield f"{kind}.{name} = {_short(value)} would have no effect: {reason}."
    # A default of SFTConfig's, where it is harmless: in eval mode nothing is checkpointed.
    if getattr(args, "gradient_checkpointing", False) and not defaults.get("gradient_checkpointing"):
        yield f"{kind}.gradient_checkpointing = True would have no effect: {_BACKWARD}."
    for name in _NARROW:
        if getattr(args, name, False):
            whose = (
                " (the default of TRL's configurations)"
                if name == "bf16" and defaults.get("bf16") is None
                else ""
            )
            yield (
                f"{kind}.{name} = True{whose} rounds the weights to 16 bits, and with them the perturbations that are "
                f"compared. Set {name}=False; to save memory load the model in bfloat16 (dtype=torch.bfloat16), which "
                "zo trains with fp32 copies of its vectors."
            )
    if args.n_gpu > 1:
        yield (
            f"{args.n_gpu} GPUs are visible to one process, which would split batches among copies of the model. Start "
            "with torchrun --nproc-per-node N, or make one visible with CUDA_VISIBLE_DEVICES."
        )


def _of_trainer(request: Request) -> Iterator[str]:
    """Sentences for functions and optimizers of theirs that are not called."""
    given = request.given
    if any(one is not None for one in given.get("optimizers") or ()):
        yield (
            "optimizers = ... would have no effect: the moves are those of `method`, and the schedule is that of "
            "lr_scheduler_type."
        )
    if given.get("optimizer_cls_and_kwargs") is not None:
        yield f"optimizer_cls_and_kwargs = ... would have no effect: {_MOVES}."
    if request.losses:
        return
    if given.get("compute_loss_func") is not None:
        yield (
            "compute_loss_func gives one mean a batch and is not called to train. Give losses=, a function "
            "(model, batch) → one loss a row, or (losses, weights)."
        )
    for kind in request.trainer.__mro__:
        names = {"compute_loss", "training_step"} & vars(kind).keys()
        if names and kind.__module__ not in _KNOWN_TRAINERS:
            yield (
                f"{kind.__name__}.{min(names)} is not called to train, since it gives one mean a batch. Give losses=, "
                "a function (model, batch) → one loss a row, or (losses, weights)."
            )


def _short(value: Any) -> str:
    text = repr(getattr(value, "value", value))
    return text if len(text) <= 60 else text[:57] + "..."
