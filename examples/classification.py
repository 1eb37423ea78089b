"""Fine-tunes a causal language model on a labelled data set with FZOO, without a backward pass.

    python examples/classification.py --model FOLDER_OR_ID --train train.jsonl --dev dev.jsonl --words terrible great

A row is {"sentence": ..., "label": 0 or 1, ...}. The loss of a row is the cross-entropy of its label's word among the
label words, read behind the prompt "SENTENCE It was". The model must be one that transformers can load.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import zo


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def encode(rows: list[dict], tokenizer: Any) -> dict[str, Tensor]:
    """Returns padded prompts [B, T], their mask, where each ends [B], and labels [B]."""
    prompts = [torch.tensor(tokenizer(f"{row['sentence']} It was").input_ids) for row in rows]
    ids = nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
    ends = torch.tensor([len(prompt) for prompt in prompts])
    mask = (torch.arange(ids.shape[1]) < ends[:, None]).long()
    return {"ids": ids, "mask": mask, "ends": ends, "labels": torch.tensor([row["label"] for row in rows])}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a classifier by prompts with FZOO.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--words", nargs="+", default=["terrible", "great"])
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model).eval()
    # The first token of each label word, in the form that it has behind a space.
    words = [tokenizer(f" {word}", add_special_tokens=False).input_ids[0] for word in args.words]
    assert len(set(words)) == len(words), "two label words begin with the same token: choose others"
    train, dev = read(args.train), read(args.dev)

    def scores(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Returns the logits of the label words behind each prompt: [B, words]."""
        logits = model(input_ids=batch["ids"], attention_mask=batch["mask"], use_cache=False).logits
        return logits[torch.arange(len(batch["ends"])), batch["ends"] - 1][:, words].float()

    def losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Returns one loss a row: zo needs the losses, not their mean, to sum them exactly."""
        return nn.functional.cross_entropy(scores(model, batch), batch["labels"], reduction="none")

    def accuracy() -> float:
        with torch.no_grad():
            batch = encode(dev, tokenizer)
            return (scores(model, batch).argmax(dim=1) == batch["labels"]).float().mean().item()

    def batch_of(t: int) -> dict[str, Tensor]:
        """Returns the batch of step t. A function of the step, so that a run can be resumed exactly."""
        return encode(random.Random(t).sample(train, 16), tokenizer)

    optimizer = zo.FZOO(model, lr=args.lr)  # 8 directions: 9 forward passes a step, in one stacked call
    print(f"before: {accuracy():.1%}")
    steps = zo.train(optimizer, losses, batch_of, args.steps)
    print(f"after {steps * optimizer.forward_passes} forward passes: {accuracy():.1%}")


if __name__ == "__main__":
    main()
