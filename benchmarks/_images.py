"""Fashion-MNIST, two small convolutional networks with batch normalization, and a plain loop that trains them.

The images are those of Debian's package: `apt-get install dataset-fashion-mnist`.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path("/usr/share/datasets/fashion-mnist")
NUM_CLASSES = 10
Norm = Callable[[int], nn.Module]


def _read(name: str) -> np.ndarray:
    """An IDX file of bytes: two zeros, the type 8, the number of axes, their lengths, the values."""
    path = FOLDER / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: apt-get install dataset-fashion-mnist")
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


@dataclass(frozen=True)
class Images:
    """x (N, 1, 28, 28), standardized, and y (N,)."""

    x: Tensor
    y: Tensor

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """In the given order; the last may be short."""
        rows = torch.arange(len(self.x)) if order is None else order
        for part in rows.split(size):
            yield self.x[part], self.y[part]


def load(kind: str) -> Images:
    """All images of "train" or "t10k"."""
    x = torch.from_numpy(_read(f"{kind}-images-idx3-ubyte.gz").copy()).float().div_(255)
    y = torch.from_numpy(_read(f"{kind}-labels-idx1-ubyte.gz").copy()).long()
    return Images(((x - 0.286) / 0.353).unsqueeze(1), y)


def draw(images: Images, number: int, seed: int) -> Images:
    """That many of them."""
    rows = torch.randperm(len(images.x), generator=torch.Generator().manual_seed(seed))[:number]
    return Images(images.x[rows], images.y[rows])


class _DenseLayer(nn.Module):
    """x and dropout(conv(relu(norm(x)))) side by side."""

    def __init__(self, channels: int, growth: int, p: float, norm: Norm) -> None:
        super().__init__()
        self.norm, self.conv = norm(channels), nn.Conv2d(channels, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.dropout(self.conv(self.norm(x).relu()))], dim=1)


def dense_net(p: float, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """Three dense blocks of three layers; dropout after every convolution, as in Huang et al. 2017."""
    channels, growth = 16, 12
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False)]
    for block in range(3):
        for _ in range(3):
            layers.append(_DenseLayer(channels, growth, p, norm))
            channels += growth
        if block < 2:
            transition = nn.Conv2d(channels, channels // 2, 1, bias=False)
            layers += [norm(channels), nn.ReLU(), transition, nn.Dropout(p), nn.AvgPool2d(2)]
            channels //= 2
    layers += [norm(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, NUM_CLASSES)]
    return nn.Sequential(*layers)


class _WideBlock(nn.Module):
    """x + conv(dropout(relu(norm(conv(relu(norm(x)))))))."""

    def __init__(self, inside: int, outside: int, stride: int, p: float, norm: Norm) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inside), nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = norm(outside), nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.dropout, self.shortcut = nn.Dropout(p), nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.norm1(x).relu())
        return self.shortcut(x) + self.conv2(self.dropout(self.norm2(hidden).relu()))


def wide_res_net(p: float, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """Three wide blocks; dropout between the convolutions of each, as in Zagoruyko and Komodakis 2016."""
    widths, strides = (16, 32, 48, 64), (1, 2, 2)
    blocks = [
        _WideBlock(inside, outside, stride, p, norm)
        for inside, outside, stride in zip(widths, widths[1:], strides, strict=False)
    ]
    head = [norm(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], NUM_CLASSES)]
    return nn.Sequential(nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False), *blocks, *head)


NETWORKS = {"DenseNet-like": dense_net, "WideResNet-like": wide_res_net}


@dataclass(frozen=True)
class Loop:
    """SGD with momentum 0.9, weight decay 5e-4 and a learning rate that falls as half a cosine.

    Args:
        epochs: Of training.
        batch: Rows of an optimizer step.
        micro: Equal micro-batches whose gradients make up a step.
        whole: Whether a short last batch is left out.
        lr: At the start.
        last_lr: At the end.
    """

    epochs: int
    batch: int = 64
    micro: int = 1
    whole: bool = False
    lr: float = 0.1
    last_lr: float = 0.0

    def train(
        self, network: nn.Module, images: Images, seed: int, *,
        after_step: Callable[[], None] = lambda: None, after_epoch: Callable[[int], None] = lambda _: None,
    ) -> nn.Module:  # fmt: skip
        """Train in place."""
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        optimizer = torch.optim.SGD(network.parameters(), lr=self.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
        rounds = len(images.x) // self.batch if self.whole else math.ceil(len(images.x) / self.batch)
        for epoch in range(self.epochs):
            network.train()
            steps = list(images.batches(self.batch, torch.randperm(len(images.x), generator=generator)))[:rounds]
            for step, (x, y) in enumerate(steps):
                done = (epoch + step / rounds) / self.epochs
                lr = self.last_lr + (self.lr - self.last_lr) * (1 + math.cos(math.pi * done)) / 2
                optimizer.param_groups[0]["lr"] = lr
                for part, target in zip(x.chunk(self.micro), y.chunk(self.micro), strict=True):
                    (nn.functional.cross_entropy(network(part), target) / self.micro).backward()
                optimizer.step()
                optimizer.zero_grad()
                after_step()
            after_epoch(epoch)
        return network


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    """Share of images that are classified rightly, in eval mode."""
    network.eval()
    right = sum(int((network(x).argmax(1) == y).sum()) for x, y in images.batches(500))
    return right / len(images.x)
