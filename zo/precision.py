"""Whether numbers of 16 bits can hold what is asked of them: a perturbation, a move."""

import warnings

import torch

from zo.weights import Weights


def unseen(weights: Weights, eps: float) -> list[str]:
    """The names of tensors most of whose entries a perturbation of eps would not change."""
    lost = []
    for name, tensor in weights.tensors.items():
        if name in weights.copies or tensor.dtype == torch.float32:
            continue
        sample = tensor.detach().view(-1)[:65536].float()
        if ((sample + eps).to(tensor.dtype).float() == sample.to(tensor.dtype).float()).float().mean() > 0.5:
            lost.append(name)
    return lost


def check_eps(weights: Weights, eps: float) -> None:
    """Warns of tensors most of whose entries a perturbation of eps would not change."""
    lost = unseen(weights, eps)
    if lost:
        warnings.warn(
            f"eps = {eps} is below the resolution of most entries of {lost[0]}"
            + (f" and {len(lost) - 1} other tensors" if len(lost) > 1 else "")
            + ": their probes see nothing. Raise eps or load the model in float32.",
            stacklevel=3,
        )


def check_move(weights: Weights, size: float) -> None:
    """Warns when entries that move by about `size` would mostly be rounded back to where they were."""
    if weights.update != "nearest":
        return
    for name, tensor in weights.tensors.items():
        if name in weights.copies or tensor.dtype == torch.float32:
            continue
        typical = tensor.detach().view(-1)[:65536].float().pow(2).mean().sqrt().item()
        spacing = typical * torch.finfo(tensor.dtype).eps
        if size < spacing / 10:
            warnings.warn(
                f"A move of about {size:.1e} an entry is under a tenth of the spacing {spacing:.1e} of typical "
                f"entries of {name}: rounded to nearest, nearly all of it is lost. Use update = 'stochastic' "
                "or 'master'.",
                stacklevel=3,
            )
            return
