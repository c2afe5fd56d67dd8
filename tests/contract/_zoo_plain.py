"""Hand-written models, as they stand in many projects, with what is awkward about each."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm

from tests.contract._zoo import Entry, images, reals


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def _mlp_norm() -> nn.Module:
    block = [nn.Linear(16, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.1)]
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), *block, nn.Linear(16, 3))


class _DenseBlock(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, growth, 3, padding=1, bias=False)
        self.drop_rate = 0.1

    def forward(self, x: Tensor) -> Tensor:
        new = functional.dropout(self.conv(functional.relu(self.norm(x))), self.drop_rate, self.training)
        return torch.cat([x, new], 1)


def _densenet() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, padding=1),
            dense=nn.Sequential(_DenseBlock(8, 4), _DenseBlock(12, 4), _DenseBlock(16, 4)),
            norm=nn.BatchNorm2d(20),
            squeeze=nn.Conv2d(20, 8, 1),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(8, 3),
        )
    )


class _WideBlock(nn.Module):
    """Normalization, activation, convolution, twice; a shortcut where the width changes."""

    def __init__(self, before: int, after: int, stride: int, p: float) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(p) if p else None
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.bn1(x), inplace=True)
        out = functional.relu(self.bn2(self.conv1(active)), inplace=True)
        if self.dropout is not None:
            out = self.dropout(out)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(out) + shortcut


def _wide(p: float, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        _WideBlock(8, width, 1, p),
        _WideBlock(width, width, 1, p),
        _WideBlock(width, 2 * width, 2, p),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 3),
    )


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
    )  # fmt: skip


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _double(1, 4), _double(4, 8), _double(8, 8)
        self.up2 = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.up1 = nn.Sequential(nn.ConvTranspose2d(8, 4, 2, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.merge2, self.merge1 = _double(16, 8), _double(8, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(functional.max_pool2d(one, 2))
        low = self.bottom(functional.max_pool2d(two, 2))
        two = self.merge2(torch.cat([self.up2(low), two], 1))
        return self.head(self.merge1(torch.cat([self.up1(two), one], 1)))


class _Siamese(nn.Module):
    """One encoder, and so each of its normalizations, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head((self.norm(self.encoder(left)) - self.norm(self.encoder(right))).abs())


class _Tied(nn.Module):
    """A language model whose last layer has the weight of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(functional.gelu(self.hidden(self.embedding(tokens))))


def _parametrized() -> nn.Module:
    first = parametrizations.weight_norm(nn.Linear(8, 16))
    second = parametrizations.orthogonal(nn.Linear(16, 16))
    third = parametrizations.spectral_norm(nn.Linear(16, 16))
    return nn.Sequential(first, nn.BatchNorm1d(16), nn.ReLU(), second, nn.Tanh(), third, nn.ReLU(), nn.Linear(16, 3))


def _old_weight_norm() -> nn.Module:
    return nn.Sequential(weight_norm(nn.Linear(8, 16)), nn.BatchNorm1d(16), nn.ReLU(), weight_norm(nn.Linear(16, 3)))


class _Choice(nn.Module):
    """Layers in a ModuleDict and a ModuleList; some are never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.acts = nn.ModuleDict({"relu": nn.ReLU(), "gelu": nn.GELU()})
        self.layers = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 16)])
        self.norms = nn.ModuleDict({"used": nn.BatchNorm1d(16), "unused": nn.BatchNorm1d(16)})
        self.heads = nn.ModuleDict({"a": nn.Linear(16, 3), "b": nn.Linear(16, 2)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.acts["relu"](self.norms["used"](self.layers[0](x)))
        x = self.acts["gelu"](self.layers[1](x))
        return {"a": self.heads["a"](x), "b": self.heads["b"](x)}


class _Functional(nn.Module):
    """All by functional calls."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(16, 8) / 3), nn.Parameter(torch.randn(16) / 3)
        self.w2, self.b2 = nn.Parameter(torch.randn(3, 16) / 4), nn.Parameter(torch.zeros(3))
        self.scale, self.shift = nn.Parameter(torch.rand(16) + 0.5), nn.Parameter(torch.randn(16) / 5)
        self.register_buffer("mean", torch.randn(16) / 3)
        self.register_buffer("var", torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.linear(x, self.w1, self.b1)
        x = functional.batch_norm(x, self.mean, self.var, self.scale, self.shift, self.training)
        x = functional.dropout(functional.relu(x), 0.3, self.training)
        return functional.linear(x, self.w2, self.b2)


def _lazy() -> nn.Module:
    model = nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))
    model(torch.randn(4, 8))
    return model


def _conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 8, 5, padding=2), nn.BatchNorm1d(8), nn.LeakyReLU(0.1), nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, padding=1, groups=2), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def _conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ELU(), nn.Dropout3d(0.1), nn.Conv3d(4, 4, 3),
        nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4**3, 3),
    )  # fmt: skip


class _TwoNames(nn.Module):
    """A layer that is registered under two names and called under both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.again = self.first
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.first(x)))


class _Highway(nn.Module):
    """Gates in place of additions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(16, 16) for _ in range(2)])
        self.gates = nn.ModuleList([nn.Linear(16, 16) for _ in range(2)])
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for inner, gate in zip(self.inner, self.gates, strict=True):
            share = torch.sigmoid(gate(x))
            x = share * functional.relu(inner(x)) + (1 - share) * x
        return self.head(x)


class _SelfMade(nn.Module):
    """A normalization and a dropout of the author's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.group = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.group(functional.relu(self.norm(self.conv(x)))).mean((2, 3))
        if self.training:
            x = x * (torch.rand_like(x) > 0.2)
        return self.head(x)


PLAIN = (
    Entry("mlp", _mlp, reals(8)),
    Entry("mlp-norm", _mlp_norm, reals(8)),
    Entry("densenet", _densenet, images(8)),
    Entry("wide-resnet", lambda: _wide(0.2, 16), images(8)),
    Entry("preact-resnet", lambda: _wide(0.0, 8), images(8)),
    Entry("unet", _UNet, images(16, 1)),
    Entry("siamese", _Siamese, lambda: (reals(8)(), reals(8)())),
    Entry("tied", _Tied, lambda: torch.randint(30, (6, 5))),
    Entry("parametrized", _parametrized, reals(8)),
    Entry("old-weight-norm", _old_weight_norm, reals(8), can_copy=False),
    Entry("module-dict", _Choice, reals(8)),
    Entry("functional", _Functional, reals(8)),
    Entry("lazy", _lazy, reals(8)),
    Entry("conv1d", _conv1d, reals(4, 16)),
    Entry("conv3d", _conv3d, reals(1, 6, 6, 6)),
    Entry("two-names", _TwoNames, reals(8)),
    Entry("highway", _Highway, reals(8)),
    Entry("self-made", _SelfMade, images(8)),
)
