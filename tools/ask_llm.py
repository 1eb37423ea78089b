"""Checks that model=smollm2-135m was unpacked rightly: it must go on "The capital of France is" with " Paris".

python -m tools.ask_llm (make llm runs it). Exits with 1 when the model says anything else.
"""

import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from experiments.models.loading import load

QUESTION, ANSWER = "The capital of France is", " Paris"
CHOICE = Path(__file__).parents[1] / "conf" / "model" / "smollm2-135m.yaml"


def main() -> int:
    """The command."""
    loaded = load(OmegaConf.to_container(OmegaConf.load(CHOICE)))  # pyright: ignore[reportArgumentType]
    ids = loaded.tokenizer(QUESTION, return_tensors="pt").input_ids.to(loaded.device)
    with torch.inference_mode():
        likeliest = int(loaded.model(input_ids=ids).logits[0, -1].argmax())
    word = loaded.tokenizer.decode([likeliest])
    print(
        f"{QUESTION}:{word}" if word == ANSWER else f"{QUESTION} is continued with {word!r}, not {ANSWER!r}."
    )
    return 0 if word == ANSWER else 1


if __name__ == "__main__":
    sys.exit(main())
