"""Sets the label words' embeddings: apart from each other, yet without knowledge of the classes.

The label words of a pre-trained model differ by what the last steps of a fair coin left: a preference of a random
sign, and as the model tells the classes apart cleanly the sign is that of a whole class; untuned it would be 0, 50
or 100 % right. Equal embeddings would end that, but where the embeddings are frozen, as in LoRA or a prefix, the
options would come out equal for good, whatever the layers learn to compute. So with the mean e of their embeddings

    e_k = e + δ u_k,   Σ_k u_k = 0

u_k is ±u for two words, the corners of a triangle in a plane for three. h · u_k, with h what the head reads where a
reply stands, then answers; and the u_k are orthogonal to the mean of h over the rows of every class. So no class
has a preferred word on average, nor has the whole task; what decides is how rows of one class differ.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from experiments.world import grammar, words
from tools.build_models import tokenizer

ROWS = 3000  # of the train split
BATCH = 250
DIRECTIONS = 16  # leading principal ones of the rows within their class
CANDIDATES = 3000  # lines or planes drawn in their span; the most even one is taken

OPTIONS: dict[grammar.Task, tuple[str, ...]] = {
    "sentiment": words.SENTIMENT_OPTIONS,
    "entailment": words.ENTAILMENT_OPTIONS,
}
OTHER_REPLIES: dict[grammar.Task, tuple[str, ...]] = {
    "sentiment": words.NEGATIVE + words.POSITIVE,
    "entailment": tuple(word for replies in words.ENTAILMENT_REPLIES for word in replies),
}


def ids_of(pieces: PreTrainedTokenizerFast, some: tuple[str, ...]) -> list[int]:
    """Returns the pieces of words inside a text; each word of the world is one."""
    vocabulary = pieces.get_vocab()
    return [vocabulary[f"Ġ{word}"] for word in some]


def head_of(model: PreTrainedModel) -> nn.Linear:
    """Returns the layer that turns states into logits; its weight is the embeddings'."""
    return cast(nn.Linear, model.get_output_embeddings())


@torch.no_grad()
def states(
    model: PreTrainedModel, pieces: PreTrainedTokenizerFast, task: grammar.Task, family: tokenizer.Family
) -> tuple[Tensor, Tensor]:
    """Returns what the head reads at the reply [ROWS, D] in float64, and the labels [ROWS], of train rows."""
    rows = grammar.examples(task, "train", ROWS, seed=0)
    template = grammar.TEMPLATES[task][family]
    read: list[Tensor] = []
    hook = head_of(model).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    found = []
    for start in range(0, ROWS, BATCH):
        prompts = [
            template.format(**row, option="", mask=pieces.mask_token).strip()
            for row in rows[start : start + BATCH]
        ]
        batch = pieces(prompts, padding=True, return_tensors="pt")
        ids, seen = batch["input_ids"], batch["attention_mask"]
        model(input_ids=ids, attention_mask=seen)
        masked = family == "masked"
        places = (ids == pieces.mask_token_id).int().argmax(1) if masked else seen.sum(1) - 1
        found.append(read.pop()[torch.arange(len(prompts)), places].double())
    hook.remove()
    return torch.cat(found), torch.tensor([row["label"] for row in rows])


def shares(h: Tensor, labels: Tensor, u: Tensor) -> Tensor:
    """Returns how often each class's rows are answered with each word [K, K], by h [N, D] and u [K, D]."""
    answers, k = (h @ u.T).argmax(1), len(u)
    return torch.stack(
        [torch.bincount(answers[labels == c], minlength=k) / (labels == c).sum() for c in range(k)]
    )


def corners(k: int) -> Tensor:
    """Returns k points around 0 at distance 1: [2, 1] on a line, [3, 2] in a plane."""
    if k == 2:
        return torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    angles = 2 * math.pi * torch.arange(k, dtype=torch.float64) / k
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def neutral_directions(h: Tensor, labels: Tensor, k: int) -> Tensor:
    """Returns u [K, D] orthogonal to each class's mean state: the most even of CANDIDATES draws.

    A mean of zero does not make a median of zero: of planes drawn in the leading principal directions that the
    means leave, the one is taken whose shares of answers, class by class, are nearest to 1 / K.
    """
    means = torch.stack([h[labels == c].mean(dim=0) for c in range(k)])
    basis = torch.linalg.qr(means.T).Q  # [D, K], of the classes' means
    within = h - means[labels]
    within = within - within @ basis @ basis.T
    principal = torch.linalg.eigh(within.T @ within).eigenvectors.flip(1)[:, :DIRECTIONS]  # [D, DIRECTIONS]
    generator = torch.Generator().manual_seed(0)
    best, chosen = math.inf, torch.zeros(0)
    for _ in range(CANDIDATES):
        drawn = torch.randn(DIRECTIONS, k - 1, generator=generator, dtype=torch.float64)
        u = corners(k) @ torch.linalg.qr(drawn).Q.T @ principal.T
        uneven = float((shares(h, labels, u) - 1 / k).abs().max())
        if uneven < best:
            best, chosen = uneven, u
    return chosen


@torch.no_grad()
def spread(model: PreTrainedModel, pieces: PreTrainedTokenizerFast, family: tokenizer.Family) -> None:
    """Sets the label words' rows of the embeddings (tied to the head) and a masked head's bias, in place.

    δ is the mean distance of the other replies' embeddings from their mean. The words stand at the ends of prompts
    alone, so what the embeddings are as inputs changes no state that the tasks read.
    """
    head = head_of(model)
    embeddings = head.weight
    for task, options in OPTIONS.items():
        u = neutral_directions(*states(model, pieces, task, family), len(options))
        others = embeddings[ids_of(pieces, OTHER_REPLIES[task])]
        size = (others - others.mean(dim=0)).norm(dim=1).mean()
        ids = ids_of(pieces, options)
        embeddings[ids] = embeddings[ids].mean(dim=0) + size * u.float()
        if head.bias is not None:
            head.bias[ids] = head.bias[ids].mean()
