"""Fine-tunes a language model by a reward on the text that it generates. The reward is any Python function.

    python examples/reward.py --model FOLDER_OR_ID --prompts "The play was really" --words lovely funny touching

There is no gradient of sampled text, so a forward-only method needs no policy gradient: the loss of a prompt is minus
the reward of its continuation. Here the reward is the share of samples that contain one of some words.
"""

import argparse

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import zo

Batch = tuple[Tensor, Tensor]  # prompts [B, T], uniform numbers in [0, 1) [B, new tokens]


def sample(model: nn.Module, prompts: Tensor, uniform: Tensor) -> Tensor:
    """Returns sampled continuations [B, new tokens].

    uniform decides the samples: all probes of a step use the same numbers, so that their rewards differ by the weights
    alone, not by chance.
    """
    ids = prompts
    for number in range(uniform.shape[1]):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, -1]
        cumulative = logits.float().softmax(dim=-1).cumsum(dim=-1)
        following = torch.searchsorted(cumulative, uniform[:, number : number + 1].contiguous())
        ids = torch.cat([ids, following.clamp(max=logits.shape[-1] - 1)], dim=1)
    return ids[:, prompts.shape[1] :]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune by a reward on generated text.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", nargs="+", required=True, help="of equal length in tokens")
    parser.add_argument(
        "--words", nargs="+", required=True, help="a continuation with one of them has reward 1"
    )
    parser.add_argument("--samples", type=int, default=16, help="continuations of each prompt in a step")
    parser.add_argument("--new-tokens", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-2)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model).eval()
    prompts = torch.tensor([tokenizer(prompt).input_ids for prompt in args.prompts])
    prompts = prompts.repeat_interleave(args.samples, dim=0)

    def reward(text: str) -> float:
        return float(any(word in args.words for word in text.split()))

    def losses(model: nn.Module, batch: Batch) -> Tensor:
        texts = tokenizer.batch_decode(sample(model, *batch))
        return torch.tensor([-reward(text) for text in texts])

    def batch_of(t: int) -> Batch:
        generator = torch.Generator().manual_seed(t)
        return prompts, torch.rand(len(prompts), args.new_tokens, generator=generator)

    def show(t: int, seen: dict[str, float], replayed: bool) -> None:
        if t % 20 == 0 or t == args.steps - 1:
            print(f"step {t:4}: mean reward {-seen['loss']:.2f}")

    # The objective calls the model once a token, so a probe's weights are made once for all of them (materialise).
    optimizer = zo.FZOO(model, lr=args.lr, eps=1e-2)
    look = zo.ModuleLook(model, losses, optimizer, materialise=True)
    zo.train(optimizer, look, batch_of, args.steps, on_step=show)


if __name__ == "__main__":
    main()
