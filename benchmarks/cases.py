"""Defines the models, batches and loss of all measurements: OPT with random weights.

A case is a method of conf/optimizer with its defaults, but for what the case changes, on one
shape of model and batch.
"""

import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zo.optimizers import Optimizer
from zo.weights import Weights

METHODS = Path(__file__).parents[1] / "conf" / "optimizer"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_FIELDS = ("hidden_size", "num_hidden_layers", "ffn_dim", "num_attention_heads", "vocab_size")
SIZES = {
    name: dict(zip(_FIELDS, shape, strict=True))
    for name, shape in {
        "10m": (320, 6, 1280, 5, 8192),
        "125m": (768, 12, 3072, 12, 50272),
        "1.3b": (2048, 24, 8192, 32, 50272),
        "13b": (5120, 40, 20480, 40, 50272),
        "66b": (9216, 64, 36864, 72, 50272),
    }.items()
}
RECIPES = ("mezo", "fzoo")  # benchmarks/recipe.py has their published form
LR, EPS = 1e-6, 1e-3


@dataclass(frozen=True)
class Case:
    """A benchmark case.

    tokens: rows x length. directions: rademacher, gaussian …, or None if the method has its own kinds.
    """

    method: str
    directions: str | None
    size: str
    tokens: str
    dtype: str

    @property
    def shape(self) -> tuple[int, int]:
        rows, length = self.tokens.split("x")
        return int(rows), int(length)


# The targets of the project's plan: the largest step over its forward passes.
TARGETS = {
    ("fzoo", "rademacher", "16x64", "float32"): 1.08,
    ("fzoo", "rademacher", "4x32", "float32"): 1.12,
    ("fzoo", "rademacher", "4x32", "bfloat16"): 1.20,
    ("mezo", "rademacher", "16x64", "float32"): 1.05,
    ("mezo", "rademacher", "4x32", "float32"): 1.15,
    ("mezo", "gaussian", "16x64", "float32"): 1.10,
    ("mezo", "gaussian", "4x32", "float32"): 1.45,
}


@cache
def methods() -> dict[str, type[Optimizer]]:
    """Returns every method of conf/optimizer by name; a YAML's values are its constructor's defaults."""
    import yaml  # transformers brings it

    classes = {}
    for path in sorted(METHODS.glob("*.yaml")):
        module, _, kind = yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"].rpartition(".")
        if module.startswith("zo."):  # the others take no steps
            classes[path.stem] = getattr(importlib.import_module(module), kind)
    return classes


def arguments_of(method: str) -> dict[str, Any]:
    """Returns the constructor's arguments with their defaults."""
    parameters = inspect.signature(methods()[method]).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def cases(size: str, tokens: Iterable[str] = ("16x64", "4x32"), dtypes: Iterable[str] = DTYPES) -> list[Case]:
    """Returns every method with its own directions, and those that have a target, on every batch and dtype."""
    kinds: list[tuple[str, str | None]] = [(method, directions) for method, directions, *_ in TARGETS]
    kinds += [(method, arguments_of(method).get("directions")) for method in methods()]
    return [
        Case(*kind, size, batch_tokens, dtype)
        for kind in dict.fromkeys(kinds)
        for batch_tokens in tokens
        for dtype in dtypes
    ]


def optimizer(case: Case, network: nn.Module, kernels: str) -> Optimizer:
    """Returns the method of a case as a user gets it, on all weights of the model."""
    arguments: dict[str, Any] = {"lr": LR} | (
        {} if case.directions is None else {"directions": case.directions}
    )
    arguments |= {"eps": EPS} if "eps" in arguments_of(case.method) else {}
    return methods()[case.method](Weights(network, kernels=kernels), **arguments)


def model(case: Case, device: torch.device) -> nn.Module:
    """Returns OPT in eval mode with N(0, 0.02) weights from a fixed seed, created on the device."""
    from transformers import OPTConfig, OPTForCausalLM  # two seconds that --help need not wait for

    shape: dict[str, Any] = {**SIZES[case.size]}
    config = OPTConfig(
        **shape,
        word_embed_proj_dim=shape["hidden_size"],
        max_position_embeddings=max(256, case.shape[1]),
        dropout=0.0,
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        network = OPTForCausalLM(config)
    nn.Module.to(network, DTYPES[case.dtype])
    if device.type == "meta":
        return network
    nn.Module.to_empty(network, device=device)
    network.tie_weights()
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
    return network.eval()


def batch(case: Case, device: torch.device) -> dict[str, Tensor]:
    """Returns random tokens without padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, SIZES[case.size]["vocab_size"], case.shape, generator=generator)
    return {"input_ids": ids.to(device)}


def objective(network: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Returns each row's mean next-token loss over all positions, with the softmax in fp32."""
    ids = inputs["input_ids"]
    hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state
    logits = network.lm_head(hidden[:, :-1]).float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return losses.view(ids.shape[0], -1).mean(1)


def plain_forward(network: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Evaluates the loss once at the current weights: what a step is measured against."""
    with torch.no_grad():
        return objective(network, inputs).double().mean().item()
