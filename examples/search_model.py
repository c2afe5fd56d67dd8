"""The best recipe for a small convolutional network on scikit-learn's digits.

python examples/search_model.py
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

from poise import AdamW, Budget, Cosine, Float, OneOf, Recipe, Space, search
from poise.methods import EMA, BatchNorm, Dropout, LabelSmoothing, WeightDecay


def network() -> nn.Module:
    """A new network, each time it is called."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip


def accuracy(outputs: torch.Tensor, y: torch.Tensor) -> float:
    """Share of digits that are read rightly."""
    return float((outputs.argmax(1) == y).float().mean())


def main() -> None:
    """Search, and show what was tried."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
    y = torch.from_numpy(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, val, test = ((x[rows], y[rows]) for rows in order.split([600, 500, len(x) - 1100]))

    # What does not vary, and what may.
    base = Recipe(methods=(WeightDecay(),), optimizer=AdamW(lr=Cosine(3e-3)), budget=Budget(batch_size=64))
    space = Space(
        base,
        {
            "norm": OneOf(None, BatchNorm()),
            "dropout": OneOf(None, Dropout()),
            "average": OneOf(None, EMA(decay=0.95)),
            "smoothing": OneOf(None, LabelSmoothing(smoothing=0.05)),
            "Dropout.p": Float(0.05, 0.5),
            "WeightDecay.weight_decay": Float(1e-3, 0.3, log=True),
            "optimizer.lr": Float(1e-3, 3e-2, log=True),
        },
    )
    result = search(
        network, space, train=train, val=val, test=test, loss=nn.functional.cross_entropy, metric=accuracy, trials=12,
        max_epochs=9,
    )  # fmt: skip
    sys.stdout.write(f"{result}\n\n{result.regimen.diff()}\n")

    if result.test_metric is None or result.test_metric < 0.95:
        raise SystemExit("The network that was found reads fewer than 95 % of the test digits.")


if __name__ == "__main__":
    main()
