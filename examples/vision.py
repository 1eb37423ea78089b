"""Trains a small convolutional network on scikit-learn's digits with MeZO's and FZOO's forward passes.

    python examples/vision.py

Any torch module is trained in this way: zo asks for one loss an example, and never for a gradient.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import zo


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels, reduction="none")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network with forward passes only.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    pixels, digits = load_digits(return_X_y=True)  # 1,797 images of 8x8, values 0 to 16
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    labels = torch.tensor(digits)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(args.seed))
    train, test = order[:1300], order[1300:]

    def batch_of(t: int) -> tuple[Tensor, Tensor]:
        chosen = train[torch.randint(len(train), (64,), generator=torch.Generator().manual_seed(t))]
        return images[chosen], labels[chosen]

    # The same budget for both: a step of FZOO is 9 forward passes, of MeZO 2. The rates are not tuned.
    for name, passes in (("FZOO", 9), ("MeZO", 2)):
        torch.manual_seed(args.seed)
        model = network()
        if name == "FZOO":
            optimizer = zo.FZOO(model, lr=2e-2, n=8, seed=args.seed)
        else:
            optimizer = zo.MeZO(model, lr=1e-3, seed=args.seed)
        steps = zo.train(optimizer, losses, batch_of, args.steps * 9 // passes)
        with torch.no_grad():
            right = (model(images[test]).argmax(dim=1) == labels[test]).float().mean().item()
        print(f"{name}: {right:.1%} of {len(test)} test images after {steps * passes} forward passes")


if __name__ == "__main__":
    main()
