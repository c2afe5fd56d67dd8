"""Multilayer perceptrons, plain and residual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from poise._random import Key
from poise.nn._activation import ParametricActivation, make_activation
from poise.nn._batch_norm import BatchNorm
from poise.nn._feature_scale import FeatureScale
from poise.nn._linear import Linear
from poise.nn._members import MemberAdapter, MemberHeads
from poise.nn._stochastic import fresh_key

SiteKind = Literal["input", "norm", "hidden", "branch"]
Layers = Callable[[SiteKind, int, int], nn.Module | None]
"""Asked for the layer at (kind of site, num_features, block)."""


def no_layers(_kind: SiteKind, _num_features: int, _block: int) -> None:
    """Inserts nothing anywhere."""


@dataclass(frozen=True)
class Structure:
    """Shape of the hidden part of an MLP.

    Args:
        width: Features of a hidden layer, ≥ 1.
        depth: Hidden layers or residual blocks, ≥ 1.
        activation: Name of the nonlinearity.
        residual: Whether blocks add to a stream.
        parametric: Whether units learn how much they bend, see `ParametricActivation`.
        input_scale: Whether inputs have learned scales, see `FeatureScale`.
        num_members: Networks that share all but their view of the inputs and their outputs, ≥ 1.

    Example:
        >>> Structure(width=64, depth=2).depth
        2
    """

    width: int = 256
    depth: int = 3
    activation: str = "relu"
    residual: bool = False
    parametric: bool = False
    input_scale: bool = False
    num_members: int = 1

    def make_activation(self) -> nn.Module:
        """The nonlinearity of a hidden layer."""
        if self.parametric:
            return ParametricActivation(self.activation, self.width)
        return make_activation(self.activation)


class MLP(nn.Sequential):
    """A multilayer perceptron with room for regularizing layers.

    Plain: [Linear, norm, activation, hidden] times depth, Linear.
    Residual: Linear, [x + branch(Linear(hidden(activation(Linear(norm(x))))))] times depth, activation, Linear.
    Learned scales of the inputs come before the first Linear. A Linear that feeds a batch normalization has no bias,
    which the normalization would remove again.
    Of several members, the first layers are a `MemberAdapter` behind the scales, the last are `MemberHeads`.

    Args:
        in_features: D, ≥ 1.
        out_features: C, ≥ 1.
        structure: Width, depth, activation, residual or plain.
        layers: Supplies the regularizing layers.
        key: Names the initial weights; None takes one from torch's global generator.

    Shape:
        (B, D) in, (B, C) out; (B, K, C) for K > 1 members.

    Example:
        >>> import torch
        >>> MLP(4, 2, structure=Structure(width=8, depth=1))(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        structure: Structure | None = None,
        layers: Layers = no_layers,
        key: Key | None = None,
    ) -> None:
        super().__init__()
        structure, key = structure or Structure(), key or fresh_key()
        self._add("input", layers("input", in_features, 0))
        if structure.input_scale:
            self._add("scale", FeatureScale(in_features))
        if structure.num_members > 1:
            own = key.stream("members")
            self._add("members", MemberAdapter(in_features, num_members=structure.num_members, key=own))
        width = self._add_hidden(in_features, structure, layers, key)
        self._add("output", _head(width, out_features, structure.num_members, key.stream("output")))

    def _add_hidden(self, in_features: int, structure: Structure, layers: Layers, key: Key) -> int:
        width, depth = structure.width, structure.depth
        if structure.residual:
            self._add("stem", Linear(in_features, width, key=key.stream("stem")))
        for block in range(depth):
            name, own = f"block{block}", key.stream(f"block{block}")
            if structure.residual:
                self._add(name, ResidualBlock(structure, block, layers=layers, key=own))
            else:
                self._add(name, _plain_block(in_features if block == 0 else width, block, structure, layers, own))
        if structure.residual:
            self._add("activation", structure.make_activation())
        return width

    def _add(self, name: str, layer: nn.Module | None) -> None:
        if layer is not None:
            self.add_module(name, layer)


def _head(width: int, out_features: int, num_members: int, key: Key) -> nn.Module:
    if num_members > 1:
        return MemberHeads(width, out_features, num_members=num_members, key=key)
    return Linear(width, out_features, key=key)


def _plain_block(in_features: int, block: int, structure: Structure, layers: Layers, key: Key) -> nn.Sequential:
    width = structure.width
    norm, hidden = layers("norm", width, block), layers("hidden", width, block)
    linear = Linear(in_features, width, bias=not _starts_with_batch_norm(norm), key=key)
    found = {"linear": linear, "norm": norm, "activation": structure.make_activation(), "hidden": hidden}
    sequence = nn.Sequential()
    for name, layer in found.items():
        if layer is not None:
            sequence.add_module(name, layer)
    return sequence


def _starts_with_batch_norm(layer: nn.Module | None) -> bool:
    first = next(iter(layer)) if isinstance(layer, nn.Sequential) else layer
    return isinstance(first, BatchNorm)


class ResidualBlock(nn.Module):
    """x + branch(Linear(hidden(activation(Linear(norm(x)))))).

    Args:
        structure: Width of the stream, and the nonlinearity.
        block: Number of the block, from 0.
        layers: Supplies the regularizing layers.
        key: Names the initial weights.

    Shape:
        (B, width) in, the same out.

    Example:
        >>> import torch
        >>> ResidualBlock(Structure(width=4), 0, layers=no_layers, key=Key(0))(torch.zeros(2, 4)).shape
        torch.Size([2, 4])

    Reference: He et al., "Identity mappings in deep residual networks", ECCV 2016. Gorishniy et al., "Revisiting deep
    learning models for tabular data", NeurIPS 2021.
    """

    def __init__(self, structure: Structure, block: int, *, layers: Layers, key: Key) -> None:
        super().__init__()
        identity, width = nn.Identity, structure.width
        self.norm = layers("norm", width, block) or identity()
        self.linear1 = Linear(width, width, key=key.stream("linear1"))
        self.activation = structure.make_activation()
        self.hidden = layers("hidden", width, block) or identity()
        self.linear2 = Linear(width, width, key=key.stream("linear2"))
        self.branch = layers("branch", width, block) or identity()

    def forward(self, x: Tensor) -> Tensor:
        """The stream after the block."""
        inner = self.hidden(self.activation(self.linear1(self.norm(x))))
        out: Tensor = x + self.branch(self.linear2(inner))
        return out
