"""Ensembles in one network: members share every weight but for two vectors a layer."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from poise._checks import Interval, check_integer, check_real, check_type
from poise._errors import ConfigError
from poise._random import Key
from poise.nn._linear import Linear
from poise.nn._stochastic import fresh_key


class RankOneLinear(nn.Module):
    """y_k = (W (r_k ∘ x_k)) ∘ s_k + b_k: K linear layers whose weights differ from each other by factors of rank one.

    Rows belong to members in turn: row n to member n mod K.

    Args:
        in_features: D, ≥ 1.
        out_features: C, ≥ 1.
        num_members: K, ≥ 1.
        bias: Whether there are b_k.
        spread: r and s begin as N(1, spread²), ≥ 0; 0 for members that begin alike.
        key: Names the initial weights; None takes one from torch's global generator.

    Shape:
        (N, ..., D) in, (N, ..., C) out, N a multiple of K. weight: (C, D). in_scale: (K, D). out_scale, bias: (K, C).

    Raises:
        ConfigError: If a setting is out of range.

    Example:
        >>> RankOneLinear(3, 2, num_members=4)(torch.zeros(20, 3)).shape
        torch.Size([20, 2])

    Reference: Wen et al., "BatchEnsemble: an alternative approach to efficient ensemble and lifelong learning", ICLR
    2020.
    """

    bias: nn.Parameter | None

    def __init__(
        self, in_features: int, out_features: int, num_members: int, *, bias: bool = True, spread: float = 0.5,
        key: Key | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_integer("num_members", num_members, Interval(1))
        check_real("spread", spread, Interval(0))
        key = key or fresh_key()
        shared = Linear(in_features, out_features, bias=bias, key=key)
        self.weight = shared.weight
        self.in_scale, self.out_scale = _scales(self.weight, (num_members, in_features, out_features), spread, key)
        self.register_parameter("bias", _repeated(shared.bias, num_members))

    def forward(self, x: Tensor) -> Tensor:
        """What each member makes of its rows."""
        y = nn.functional.linear(_by_member(x, self.in_scale, -1), self.weight)
        y = _by_member(y, self.out_scale, -1)
        return y if self.bias is None else _by_member(y, self.bias, -1, add=True)

    def extra_repr(self) -> str:
        """As torch prints it."""
        out, columns = self.weight.shape
        return f"in_features={columns}, out_features={out}, num_members={len(self.in_scale)}"


class RankOneConv2d(nn.Module):
    """y_k = (W ∗ (r_k ∘ x_k)) ∘ s_k + b_k, with a factor for each channel: `RankOneLinear` for images.

    Args:
        layer: A convolution; its settings and a copy of its weights are taken over.
        num_members: K, ≥ 1.
        spread: r and s begin as N(1, spread²), ≥ 0.
        key: Names r and s; None takes one from torch's global generator.

    Shape:
        (N, D, H, W) in, (N, C, H', W') out, N a multiple of K. in_scale: (K, D). out_scale, bias: (K, C).

    Example:
        >>> RankOneConv2d(nn.Conv2d(3, 8, 3), num_members=4)(torch.zeros(20, 3, 6, 6)).shape
        torch.Size([20, 8, 4, 4])

    Reference: Wen et al., "BatchEnsemble: an alternative approach to efficient ensemble and lifelong learning", ICLR
    2020.
    """

    bias: nn.Parameter | None

    def __init__(self, layer: nn.Conv2d, num_members: int, *, spread: float = 0.5, key: Key | None = None) -> None:
        super().__init__()
        check_type("layer", layer, nn.Conv2d)
        check_integer("num_members", num_members, Interval(1))
        check_real("spread", spread, Interval(0))
        self.shared = copy.deepcopy(layer)
        sizes = num_members, layer.in_channels, layer.out_channels
        self.in_scale, self.out_scale = _scales(layer.weight, sizes, spread, key or fresh_key())
        self.register_parameter("bias", _repeated(layer.bias, num_members))
        self.shared.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """What each member makes of its images."""
        y = _by_member(self.shared(_by_member(x, self.in_scale, 1)), self.out_scale, 1)
        return y if self.bias is None else _by_member(y, self.bias, 1, add=True)


class SharedMembers(nn.Module):
    """Runs a network once for all its members; `share_members` makes one.

    Args:
        network: On B · K rows, row n of member n mod K.
        num_members: K, ≥ 1.

    Shape:
        What `network` takes with B rows in; what it returns as (B, K, ...) out.

    Example:
        >>> SharedMembers(RankOneLinear(3, 2, 4), 4)(torch.zeros(5, 3)).shape
        torch.Size([5, 4, 2])
    """

    def __init__(self, network: nn.Module, num_members: int) -> None:
        super().__init__()
        self.network, self.num_members = network, num_members

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The outputs of all members."""

        def repeated(one: Any) -> Any:
            return one.repeat_interleave(self.num_members, dim=0) if _has_rows(one) else one

        def apart(one: Any) -> Any:
            return one.unflatten(0, (-1, self.num_members)) if _has_rows(one) else one

        return tree_map(apart, self.network(*tree_map(repeated, inputs), **tree_map(repeated, named)))


def share_members(model: nn.Module, num_members: int, *, spread: float = 0.5, key: Key | None = None) -> SharedMembers:
    """An ensemble of K networks like `model`, in one: Linear and Conv2d become layers of rank-one members.

    All else is shared. Train with the mean of the members' losses, never with the loss of their mean; predict with the
    mean of their probabilities. The model is left as it is; its weights are copied, those of the result are twice K
    vectors a layer more.

    Args:
        model: Any torch model whose inputs and outputs have the rows on their first axis.
        num_members: K, ≥ 1.
        spread: The vectors begin as N(1, spread²), ≥ 0; small where `model` has been trained.
        key: Names the vectors; None takes one from torch's global generator.

    Shape:
        What `model` takes with B rows in; what it returns as (B, K, ...) out.

    Raises:
        ConfigError: If a setting is out of range, or the model has no layer that could have members.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> members = share_members(model, 4)
        >>> x, y = torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)
        >>> outputs = members(x)
        >>> outputs.shape
        torch.Size([5, 4, 2])
        >>> loss = nn.functional.cross_entropy(outputs.flatten(0, 1), y.repeat_interleave(4))
        >>> members.eval()(x).softmax(-1).mean(1).shape
        torch.Size([5, 2])

    Reference: Wen et al., "BatchEnsemble: an alternative approach to efficient ensemble and lifelong learning", ICLR
    2020. Gorishniy et al., "TabM: advancing tabular deep learning with parameter-efficient ensembling", ICLR 2025.
    """
    check_type("model", model, nn.Module)
    check_integer("num_members", num_members, Interval(1))
    check_real("spread", spread, Interval(0))
    key = key or fresh_key()
    network = _with_members(copy.deepcopy(model), "", num_members, spread, key)
    if not any(isinstance(one, RankOneLinear | RankOneConv2d) for one in network.modules()):
        raise ConfigError(
            "The model has no Linear or Conv2d layer that could have members.",
            repair="Give a model that is built of torch.nn.Linear, poise.nn.Linear or torch.nn.Conv2d.",
        )
    return SharedMembers(network, num_members)


def _with_members(module: nn.Module, name: str, num_members: int, spread: float, key: Key) -> nn.Module:
    own = key.stream(name)
    if type(module) in (nn.Linear, Linear):
        return _of_linear(module, num_members, spread, own)
    if type(module) is nn.Conv2d:
        return RankOneConv2d(module, num_members, spread=spread, key=own)
    # Attention reads the weights of its layers by itself.
    for child, one in () if isinstance(module, nn.MultiheadAttention) else list(module.named_children()):
        setattr(module, child, _with_members(one, f"{name}.{child}", num_members, spread, key))
    return module


def _of_linear(layer: Any, num_members: int, spread: float, key: Key) -> RankOneLinear:
    made = RankOneLinear(
        layer.in_features, layer.out_features, num_members, bias=layer.bias is not None, spread=spread, key=key
    ).to(layer.weight)
    made.weight = nn.Parameter(layer.weight.detach().clone())
    made.bias = _repeated(layer.bias, num_members)
    return made.train(layer.training)


def _scales(weight: Tensor, sizes: tuple[int, int, int], spread: float, key: Key) -> tuple[nn.Parameter, nn.Parameter]:
    members, inputs, outputs = sizes
    drawn = (
        1 + spread * key.stream(name).normal(members, size, dtype=torch.float64)
        for name, size in (("in_scale", inputs), ("out_scale", outputs))
    )
    first, last = (nn.Parameter(one.to(weight)) for one in drawn)
    return first, last


def _repeated(bias: Tensor | None, num_members: int) -> nn.Parameter | None:
    return None if bias is None else nn.Parameter(bias.detach().repeat(num_members, 1))


def _by_member(x: Tensor, vectors: Tensor, dim: int, *, add: bool = False) -> Tensor:
    """x times, or plus, the vectors (K, D) of the members, along axis `dim` of x."""
    rows = x.reshape(-1, len(vectors), *x.shape[1:])
    shape = [1] * rows.ndim
    shape[1], shape[dim if dim < 0 else dim + 1] = vectors.shape
    spread = vectors.view(shape)
    out: Tensor = rows + spread if add else rows * spread
    return out.flatten(0, 1)


def _has_rows(one: Any) -> bool:
    return isinstance(one, Tensor) and one.ndim > 0
