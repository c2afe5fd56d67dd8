"""From the layers of a network to the operations of a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from poise.fleet.compiled._operations import Operations, Value
from poise.fleet.compiled._program import (
    ACTIVATION,
    ADAPT,
    ADD,
    ALPHA,
    ALPHA_DROPOUT,
    BATCH_NORM,
    BIAS,
    CHAIN,
    DROP,
    DROP_PATH,
    DROPOUT,
    EPS,
    GHOST_SIZE,
    HEADS,
    LAYER_NORM,
    LINEAR,
    MOMENTS,
    NOISE,
    NORM,
    OTHER,
    PIECES,
    RATE,
    RUNNING,
    SCALE,
    SOURCE_GRAD,
    SOURCE_WIDTH,
    STEM,
    STREAM,
    STRENGTH,
    WEIGHT,
    WIDTH,
)
from poise.fleet.compiled._strengths import StrengthTable
from poise.fleet.compiled._unsupported import Unsupported
from poise.kernels.cpu._activation import CODES
from poise.nn import (
    ACTIVATIONS,
    MLP,
    AlphaDropout,
    BatchNorm,
    Dropout,
    DropPath,
    FeatureScale,
    GaussianNoise,
    LayerNorm,
    Linear,
    MemberAdapter,
    MemberHeads,
    ParametricActivation,
    PeriodicEmbedding,
    ResidualBlock,
    Stochastic,
    TabularNetwork,
)
from poise.train import BuiltNetwork

_NAMES = {kind: name for name, kind in ACTIVATIONS.items()}


@dataclass(eq=False)
class LoweredNetwork:
    """The operations of a network, and what they need."""

    ops: NDArray[np.int64]
    constants: list[float]
    tables: list[tuple[int, ...]]
    waves: list[tuple[int, ...]]
    num_numeric: int
    in_width: int
    in_grad: int
    out_offset: int
    total_width: int
    widest: int
    num_norms: int
    moments_size: int
    store_width: int
    num_pieces: int


def _is_read_by_linear(mlp: MLP) -> bool:
    """Whether a linear layer is the first that reads the inputs, or scales of the inputs that are part of it."""
    layers = (one for one in mlp.modules() if type(one) not in (MLP, nn.Sequential, FeatureScale))
    return type(next(layers)) is Linear


def lower_network(built: BuiltNetwork, strengths: StrengthTable, streams: list[int], capacity: int) -> LoweredNetwork:
    """The operations of a TabularNetwork; strengths and streams of its layers are added to those given.

    Raises:
        Unsupported: If a layer has no machine code.
    """
    return _Lowering(built, strengths, streams, capacity).run()


@dataclass(eq=False)
class _Lowering:
    built: BuiltNetwork
    strengths: StrengthTable
    streams: list[int]
    capacity: int
    code: Operations = field(default_factory=Operations)
    num_norms: int = 0
    moments_size: int = 0
    store_width: int = 0

    def __post_init__(self) -> None:
        network = self.built.network
        self.offsets: dict[int, int] = {}
        offset = 0
        for parameter in network.parameters():
            self.offsets[id(parameter)] = offset
            offset += parameter.numel()
        self.statistics: dict[int, int] = {}
        offset = 0
        for module in network.modules():
            if isinstance(module, BatchNorm):
                self.statistics[id(module)] = offset
                offset += 2 * module.num_features
        self.scheduled = {id(layer): (method, site) for method, site, layer in self.built.scheduled}
        self.rules: dict[type[nn.Module], Callable[..., Value]] = {
            Linear: self._linear,
            BatchNorm: self._batch_norm,
            LayerNorm: self._layer_norm,
            Dropout: self._drop,
            AlphaDropout: self._drop,
            GaussianNoise: self._noise,
            DropPath: self._drop_path,
            ResidualBlock: self._residual,
            FeatureScale: self._scale,
            MemberAdapter: self._adapt,
            MemberHeads: self._heads,
            ParametricActivation: self._parametric,
            MLP: self._sequence,
            nn.Sequential: self._sequence,
        }

    def run(self) -> LoweredNetwork:
        network = self.built.network
        if type(network) is not TabularNetwork:
            raise Unsupported(f"network {type(network).__name__}")
        first_linear = next(one for one in network.mlp.modules() if isinstance(one, Linear))
        width = first_linear.in_features
        embedded, waving = (0 if part is None else part.out_features for part in (network.categories, network.periodic))
        learned = width - embedded - waving  # the first column whose gradient is needed
        bins = 1 if network.numbers is None else network.numbers.start.shape[1]
        num_pieces = bins * network.num_continuous if network.numbers and _is_read_by_linear(network.mlp) else 0
        x = self.code.new(width - num_pieces, first=learned - num_pieces)
        out = self._layer(network.mlp, x)
        self.code.place_gradients()
        num_numeric = learned - network.num_continuous * (bins - 1)
        return LoweredNetwork(
            ops=np.array(self.code.ops, dtype=np.int64),
            constants=self.code.constants or [0.0],
            tables=self._tables(x.width - embedded),
            waves=self._waves(x.first),
            num_numeric=num_numeric,
            in_width=x.width,
            in_grad=self.code.ops[0][SOURCE_GRAD],
            out_offset=out.offset,
            total_width=self.code.total_width,
            widest=max(max(op[WIDTH], op[SOURCE_WIDTH]) for op in self.code.ops),
            num_norms=self.num_norms,
            moments_size=self.moments_size,
            store_width=self.store_width,
            num_pieces=num_pieces,
        )

    def _tables(self, column: int) -> list[tuple[int, ...]]:
        rows: list[tuple[int, ...]] = []
        for layer in self.built.network.modules():
            if not isinstance(layer, nn.Embedding):
                continue
            size, width = layer.weight.shape
            rows.append((self.offsets[id(layer.weight)], size, width, column))
            column += width
        return rows

    def _waves(self, column: int) -> list[tuple[int, ...]]:
        layer = self.built.network.periodic
        if not isinstance(layer, PeriodicEmbedding):
            return []
        features, width, waves = layer.weight.shape
        places = (self.offsets[id(one)] for one in (layer.frequencies, layer.weight, layer.bias))
        return [(features, waves // 2, width, *places, column)]

    def _layer(self, layer: nn.Module, x: Value) -> Value:
        if type(layer) in self.rules:
            return self.rules[type(layer)](layer, x)
        if type(layer) in _NAMES:
            return self._activation(layer, x)
        raise Unsupported(f"layer {type(layer).__name__}")

    def _sequence(self, layers: nn.Sequential, x: Value) -> Value:
        for layer in layers:
            x = self._layer(layer, x)
        return x

    def _residual(self, block: ResidualBlock, x: Value) -> Value:
        inner = x
        for layer in (block.norm, block.linear1, block.activation, block.hidden, block.linear2, block.branch):
            inner = self._layer(layer, inner)
        y = self.code.add(ADD, x, self.code.new(x.width))
        self.code.ops[-1][OTHER] = inner.offset
        return y

    def _linear(self, layer: Linear, x: Value) -> Value:
        scale, x = self.code.take_scale(x)
        pieces = layer.in_features - x.width
        code = STEM if pieces > 0 or scale is not None else LINEAR
        y, op = self.code.add(code, x, self.code.new(layer.out_features)), self.code.ops[-1]
        op[PIECES] = pieces
        if scale is not None:
            op[ALPHA], op[RATE] = scale[ALPHA], scale[RATE]
        op[WEIGHT] = self.offsets[id(layer.weight)]
        op[BIAS] = -1 if layer.bias is None else self.offsets[id(layer.bias)]
        return y

    def _chain(self, x: Value) -> Value:
        return self.code.add(CHAIN, x, self.code.new(x.width, x.first))

    def _norm(self, layer: BatchNorm | LayerNorm, x: Value, kind: int, moments: int) -> Value:
        y, op = self._chain(x), self.code.ops[-1]
        op[NORM], op[MOMENTS], op[EPS] = kind, self.num_norms, self.code.constant(layer.eps)
        if layer.weight is not None and layer.bias is not None:
            op[WEIGHT], op[BIAS] = self.offsets[id(layer.weight)], self.offsets[id(layer.bias)]
        self.num_norms += 1
        self.moments_size = max(self.moments_size, moments)
        return y

    def _batch_norm(self, layer: BatchNorm, x: Value) -> Value:
        # Running averages inside an epoch are not kept: nothing reads them, and at its end exact statistics follow.
        ghosts = max(1, self.capacity // layer.ghost_size) if layer.ghost_size else 1
        y = self._norm(layer, x, BATCH_NORM, ghosts * x.width)
        self.code.ops[-1][RUNNING], self.code.ops[-1][GHOST_SIZE] = self.statistics[id(layer)], layer.ghost_size
        self.store_width = max(self.store_width, x.width)
        return y

    def _layer_norm(self, layer: LayerNorm, x: Value) -> Value:
        return self._norm(layer, x, LAYER_NORM, self.capacity)

    def _activation(self, layer: nn.Module, x: Value) -> Value:
        return x if type(layer) is nn.Identity else self._bend(_NAMES[type(layer)], x)

    def _parametric(self, layer: ParametricActivation, x: Value) -> Value:
        y, op = self._bend(layer.name, x), self.code.ops[-1]
        op[ALPHA], op[RATE] = self.offsets[id(layer.weight)], self.code.constant(layer.rate)
        return y

    def _bend(self, name: str, x: Value) -> Value:
        op = self.code.open_chain(x)
        if op is None or op[ACTIVATION] != CODES["identity"]:
            x = self._chain(x)
        self.code.ops[-1][ACTIVATION] = CODES[name]
        return x

    def _scale(self, layer: FeatureScale, x: Value) -> Value:
        y, op = self.code.add(SCALE, x, self.code.new(x.width)), self.code.ops[-1]
        op[ALPHA], op[RATE] = self.offsets[id(layer.weight)], self.code.constant(layer.rate)
        return y

    def _adapt(self, layer: MemberAdapter, x: Value) -> Value:
        self.code.copies = len(layer.weight)
        y = self.code.add(ADAPT, x, self.code.new(x.width))
        self.code.ops[-1][WEIGHT] = self.offsets[id(layer.weight)]
        return y

    def _heads(self, layer: MemberHeads, x: Value) -> Value:
        y, op = self.code.add(HEADS, x, self.code.new(len(layer.bias) // layer.num_members)), self.code.ops[-1]
        op[WEIGHT], op[BIAS] = self.offsets[id(layer.weight)], self.offsets[id(layer.bias)]
        return y

    def _drop(self, layer: Dropout | AlphaDropout, x: Value) -> Value:
        y = x if self.code.open_chain(x) is not None else self._chain(x)
        self.code.ops[-1][DROP] = ALPHA_DROPOUT if type(layer) is AlphaDropout else DROPOUT
        self._name_draws(layer, "p")
        return y

    def _noise(self, layer: GaussianNoise, x: Value) -> Value:
        y = self.code.add(NOISE, x, self.code.new(x.width, x.first))
        self._name_draws(layer, "std")
        return y

    def _drop_path(self, layer: DropPath, x: Value) -> Value:
        y = self.code.add(DROP_PATH, x, self.code.new(x.width, x.first))
        self._name_draws(layer, "p")
        return y

    def _name_draws(self, layer: Stochastic, name: str) -> None:
        """Strength and stream of the last operation."""
        op = self.code.ops[-1]
        if id(layer) in self.scheduled:
            method, site = self.scheduled[id(layer)]
            op[STRENGTH] = self.strengths.add_function(lambda progress: method.at(progress).settings(site)[name])
        else:
            op[STRENGTH] = self.strengths.add(getattr(layer, name))
        op[STREAM] = len(self.streams)
        self.streams.append(0 if layer.key is None else layer.key.seed)
