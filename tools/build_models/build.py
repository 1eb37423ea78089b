"""Rebuilds the shipped models from nothing: `python -m tools.build_models.build [--only clm|mlm]`.

    tiny-clm   OPT, 3 layers of width 96, causal language modelling
    tiny-mlm   RoBERTa of the same size, masked language modelling; its word embeddings start from tiny-clm's
               (from random ones it does not learn polarity in this many steps)

Both read a fresh stream of the world's text, one text a row, in fp32 on one thread; AdamW, linear warm-up,
cosine decay. Then the label words of the tasks get embeddings that know nothing of the classes (`label_words`). The
folders are in the Hugging Face layout, weights in fp32.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from experiments.world import grammar
from tools.build_models import card, label_words, tokenizer

Name = Literal["clm", "mlm"]

FOLDER = Path(__file__).parents[2] / "experiments" / "world"
SEED = 0
WIDTH, LAYERS, HEADS = 96, 3, 4
ROWS = 32  # texts a step
STEPS: dict[Name, int] = {"clm": 2400, "mlm": 2400}
LEARNING_RATE = 3e-3
WARM_UP = 0.05
IGNORED = -100  # a label the loss leaves out
REPLY_WEIGHT = 10.0  # of a reply in the loss (any other word: 1): the replies are what the tasks build on

# A masked model is asked for a reply as often as this, for any other word as often as that.
MASK_REPLY, MASK_WORD = 0.5, 0.15


class Batch(NamedTuple):
    """A batch of texts [ROWS, T]: ids, attention mask, labels (or IGNORED), weights."""

    ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    weights: Tensor


def new_clm(pieces: PreTrainedTokenizerFast) -> OPTForCausalLM:
    """Returns an untrained OPT (layer norm before each block, tied embeddings)."""
    config = OPTConfig(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        ffn_dim=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=tokenizer.MAX_LENGTH,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=0.05,
        bos_token_id=tokenizer.SPECIAL["</s>"],
        eos_token_id=tokenizer.SPECIAL["</s>"],
        pad_token_id=tokenizer.SPECIAL["<pad>"],
    )
    return OPTForCausalLM(config)


def new_mlm(pieces: PreTrainedTokenizerFast, clm: OPTForCausalLM) -> RobertaForMaskedLM:
    """Returns an untrained RoBERTa with the word embeddings of the trained causal model."""
    config = RobertaConfig(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=tokenizer.MAX_LENGTH + 2,  # RoBERTa counts positions from pad + 1
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.05,
        bos_token_id=tokenizer.SPECIAL["<s>"],
        eos_token_id=tokenizer.SPECIAL["</s>"],
        pad_token_id=tokenizer.SPECIAL["<pad>"],
    )
    model = RobertaForMaskedLM(config)
    with torch.no_grad():
        model.roberta.embeddings.word_embeddings.weight.copy_(clm.model.decoder.embed_tokens.weight)
    return model


def reply_places(attention_mask: Tensor) -> Tensor:
    """Returns a mask [ROWS, T] of each text's reply: its last word, before a full stop and the end token."""
    ends = attention_mask.sum(dim=1, keepdim=True)
    return torch.arange(attention_mask.shape[1]) == ends - 3


def causal_batches(pieces: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Yields batches of ROWS texts [ROWS, T], each closed by the end token, labels = the next piece."""
    texts = grammar.pretraining_text(seed)
    while True:
        rows = [f"{text}</s>" for text in islice(texts, ROWS)]
        batch = pieces(rows, padding=True, return_tensors="pt")
        ids, attention_mask = batch["input_ids"], batch["attention_mask"]
        labels = ids.masked_fill(attention_mask == 0, IGNORED)
        weights = torch.where(reply_places(attention_mask), REPLY_WEIGHT, 1.0) * attention_mask
        yield Batch(ids[:, :-1], attention_mask[:, :-1], labels[:, 1:], weights[:, 1:])


def masked_batches(pieces: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Yields batches of ROWS texts [ROWS, T] with words masked, labels = the masked words."""
    texts, rng = grammar.pretraining_text(seed), Random(f"mask/{seed}")
    special = torch.tensor(pieces.all_special_ids)
    while True:
        batch = pieces(list(islice(texts, ROWS)), padding=True, return_tensors="pt")
        ids, attention_mask = batch["input_ids"], batch["attention_mask"]
        chance = torch.where(reply_places(attention_mask), MASK_REPLY, MASK_WORD)
        uniform = torch.tensor([rng.random() for _ in range(ids.numel())]).view_as(ids)
        masked = (uniform < chance) & ~torch.isin(ids, special)
        weights = torch.where(reply_places(attention_mask), REPLY_WEIGHT, 1.0) * masked
        hidden = ids.masked_fill(masked, pieces.mask_token_id)
        yield Batch(hidden, attention_mask, ids.masked_fill(~masked, IGNORED), weights)


def learning_rate(step: int, steps: int) -> float:
    """Returns a linear warm-up, then a half cosine to zero."""
    warm = WARM_UP * steps
    if step < warm:
        return LEARNING_RATE * (step + 1) / warm
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def weighted_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Returns the weighted mean of the cross-entropy over the labels."""
    logits = model(input_ids=batch.ids, attention_mask=batch.attention_mask).logits
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return (losses * batch.weights.flatten()).sum() / batch.weights.sum()


def pretrain(model: PreTrainedModel, batches: Iterator[Batch], steps: int) -> float:
    """Trains in place; returns the mean loss of the last 100 steps."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)
    recent: list[float] = []
    started = time.monotonic()
    model.train()
    for step, batch in enumerate(islice(batches, steps)):
        loss = weighted_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        optimizer.step()
        recent = [*recent[-99:], float(loss.detach())]
        if (step + 1) % 200 == 0:
            progress = f"{step + 1}/{steps} steps, loss {sum(recent) / len(recent):.3f}"
            sys.stderr.write(f"{progress}, {time.monotonic() - started:.0f} s\n")
    model.eval()
    return sum(recent) / len(recent)


def save(name: Name, model: PreTrainedModel, pieces: PreTrainedTokenizerFast, loss: float) -> None:
    """Writes the model, its tokenizer and its card."""
    folder = FOLDER / f"tiny-{name}"
    model.save_pretrained(folder)
    pieces.save_pretrained(folder)
    (folder / "README.md").write_text(card.text(name, model, STEPS[name], loss), encoding="utf-8")


def build_clm() -> None:
    """Trains and saves tiny-clm."""
    torch.manual_seed(SEED)  # transformers initialises from torch's global generator
    pieces = tokenizer.build("causal", SEED)
    model = new_clm(pieces)
    loss = pretrain(model, causal_batches(pieces, SEED), STEPS["clm"])
    label_words.spread(model, pieces, "causal")
    save("clm", model, pieces, loss)


def build_mlm() -> None:
    """Trains and saves tiny-mlm; tiny-clm must exist beside it."""
    torch.manual_seed(SEED)
    pieces = tokenizer.build("masked", SEED)
    clm = OPTForCausalLM.from_pretrained(FOLDER / "tiny-clm")
    model = new_mlm(pieces, clm)
    loss = pretrain(model, masked_batches(pieces, SEED), STEPS["mlm"])
    label_words.spread(model, pieces, "masked")
    save("mlm", model, pieces, loss)


def main() -> None:
    """Builds both models, or one."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--only", choices=("clm", "mlm"), help="build this model alone")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    if only in (None, "clm"):
        build_clm()
    if only in (None, "mlm"):
        build_mlm()


if __name__ == "__main__":
    main()
