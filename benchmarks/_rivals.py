"""The rivals of `benchmarks.fleet`: the same trainings in ordinary torch, in processes of their own."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection

import torch
from torch import nn

OPTIMIZERS = ("for-loop", "foreach", "fused")


@dataclass(frozen=True)
class Size:
    """A network, its batch and its table; dropout and batch normalization after every hidden layer."""

    name: str
    features: int
    width: int
    depth: int
    classes: int
    batch: int
    rows: int = 8192
    val_rows: int = 1024
    p: float = 0.3
    weight_decay: float = 0.01

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return self.rows // self.batch

    @property
    def flops(self) -> int:
        """Of the matrix products of one step."""
        widths = [self.features, *[self.width] * self.depth, self.outputs]
        return 6 * self.batch * sum(a * b for a, b in pairwise(widths))

    @property
    def outputs(self) -> int:
        """Of the network: one logit for two classes."""
        return 1 if self.classes == 2 else self.classes


SIZES = (
    Size("S", features=20, width=64, depth=2, classes=2, batch=64),
    Size("M", features=54, width=128, depth=2, classes=7, batch=128),
    Size("L", features=100, width=256, depth=3, classes=2, batch=256),
)
WIDE_BATCH = Size("S with large batches", features=20, width=64, depth=2, classes=2, batch=256)


def table(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and class codes with a signal, training rows first."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size.rows + size.val_rows, size.features, generator=generator)
    signal = x[:, 0] + x[:, 1] * x[:, 2]
    edges = torch.quantile(signal, torch.linspace(0, 1, size.classes + 1)[1:-1])
    return x, torch.bucketize(signal, edges)


class Rival:
    """One or two processes that train the same network over and over, each on its own threads.

    Args:
        size: Of the training.
        processes: 1 or 2.
        threads: Of each process.
        optimizer: One of OPTIMIZERS.
        precision: Of float32 products, in torch's words.
    """

    def __init__(self, size: Size, *, processes: int, threads: int, optimizer: str, precision: str = "highest") -> None:
        allowed = ", bfloat16 allowed" if precision == "medium" else ""
        self.label = f"{processes} x {threads} threads, AdamW {optimizer}{allowed}"
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, size, threads, optimizer, precision), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def epochs_per_second(self, epochs: int) -> float:
        """Epochs of training and scoring a second, all processes together."""
        started = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(epochs)
        for pipe in self.pipes:
            pipe.recv()
        return epochs * len(self.pipes) / (time.perf_counter() - started)

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(0)
            process.join()


def _serve(pipe: Connection, size: Size, threads: int, optimizer: str, precision: str) -> None:
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    train = training(size, optimizer)
    train()
    pipe.send(None)
    while epochs := pipe.recv():
        for _ in range(epochs):
            train()
        pipe.send(None)


def training(size: Size, kind: str, device: str = "cpu"):
    """A function that trains one network for an epoch and scores it.

    Args:
        size: Of the training.
        kind: Of AdamW, one of OPTIMIZERS.
        device: Of the network and of all data.
    """
    x, y = (one.to(device) for one in table(size))
    layers: list[nn.Module] = []
    width = size.features
    for _ in range(size.depth):
        layers += [nn.Linear(width, size.width, bias=False), nn.BatchNorm1d(size.width), nn.ReLU(), nn.Dropout(size.p)]
        width = size.width
    network = nn.Sequential(*layers, nn.Linear(width, size.outputs)).to(device)
    options = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[kind]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=size.weight_decay, **options)
    binary = size.outputs == 1
    target = y.float().unsqueeze(1) if binary else y
    loss_of = nn.functional.binary_cross_entropy_with_logits if binary else nn.functional.cross_entropy

    def epoch() -> None:
        network.train()
        order = torch.randperm(size.rows, device=device)
        for start in range(0, size.rows, size.batch):
            rows = order[start : start + size.batch]
            optimizer.zero_grad(set_to_none=True)
            loss_of(network(x[rows]), target[rows]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for part in (slice(0, size.rows), slice(size.rows, None)):
                float(loss_of(network(x[part]), target[part]))

    return epoch
