"""From the layers of a network to the operations of a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from poise.fleet.compiled._program import (
    ACCUMULATE,
    ACTIVATION,
    ADD,
    ALPHA_DROPOUT,
    BATCH_NORM,
    BIAS,
    CHAIN,
    CODE,
    DROP,
    DROP_PATH,
    DROPOUT,
    EPS,
    FIRST,
    GHOST_SIZE,
    LAYER_NORM,
    LINEAR,
    MOMENTS,
    NO_DROP,
    NO_NORM,
    NOISE,
    NORM,
    NUM_COLUMNS,
    OTHER,
    RUNNING,
    SOURCE,
    SOURCE_GRAD,
    SOURCE_WIDTH,
    STREAM,
    STRENGTH,
    TARGET,
    TARGET_GRAD,
    WEIGHT,
    WIDTH,
)  # fmt: skip
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
    GaussianNoise,
    LayerNorm,
    Linear,
    PeriodicEmbedding,
    ResidualBlock,
    Stochastic,
    TabularNetwork,
)
from poise.train import BuiltNetwork

_NAMES = {kind: name for name, kind in ACTIVATIONS.items()}


@dataclass(frozen=True)
class _Value:
    """A matrix of the batch: where it lies, how wide it is, and its first column whose gradient is needed."""

    offset: int
    width: int
    first: int = 0


@dataclass(eq=False)
class LoweredNetwork:
    """The operations of a network, and what they need."""

    ops: NDArray[np.int64]
    eps: list[float]
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
    ops: list[list[int]] = field(default_factory=list)
    eps: list[float] = field(default_factory=list)
    total_width: int = 0
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
        self.rules: dict[type[nn.Module], Callable[..., _Value]] = {
            Linear: self._linear,
            BatchNorm: self._batch_norm,
            LayerNorm: self._layer_norm,
            Dropout: self._drop,
            AlphaDropout: self._drop,
            GaussianNoise: self._noise,
            DropPath: self._drop_path,
            ResidualBlock: self._residual,
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
        x = self._new(width, first=learned)
        out = self._layer(network.mlp, x)
        self._place_gradients()
        bins = 1 if network.numbers is None else network.numbers.start.shape[1]
        num_numeric = learned - network.num_continuous * (bins - 1)
        return LoweredNetwork(
            ops=np.array(self.ops, dtype=np.int64),
            eps=self.eps or [0.0],
            tables=self._tables(width - embedded),
            waves=self._waves(learned),
            num_numeric=num_numeric,
            in_width=width,
            in_grad=self.ops[0][SOURCE_GRAD],
            out_offset=out.offset,
            total_width=self.total_width,
            widest=max(max(op[WIDTH], op[SOURCE_WIDTH]) for op in self.ops),
            num_norms=self.num_norms,
            moments_size=self.moments_size,
            store_width=self.store_width,
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

    def _new(self, width: int, first: int = 0) -> _Value:
        value = _Value(self.total_width, width, first)
        self.total_width += width
        return value

    def _add(self, code: int, x: _Value, y: _Value) -> _Value:
        op = [-1] * NUM_COLUMNS
        op[CODE], op[SOURCE], op[TARGET], op[SOURCE_WIDTH], op[WIDTH] = code, x.offset, y.offset, x.width, y.width
        op[NORM], op[ACTIVATION], op[DROP] = NO_NORM, CODES["identity"], NO_DROP
        op[ACCUMULATE], op[FIRST], op[GHOST_SIZE], op[MOMENTS], op[EPS] = 0, x.first, 0, 0, 0
        op[STRENGTH], op[STREAM] = 0, 0
        op[SOURCE_GRAD], op[TARGET_GRAD] = x.offset, y.offset
        self.ops.append(op)
        return y

    def _layer(self, layer: nn.Module, x: _Value) -> _Value:
        if type(layer) in self.rules:
            return self.rules[type(layer)](layer, x)
        if type(layer) in _NAMES:
            return self._activation(layer, x)
        raise Unsupported(f"layer {type(layer).__name__}")

    def _sequence(self, layers: nn.Sequential, x: _Value) -> _Value:
        for layer in layers:
            x = self._layer(layer, x)
        return x

    def _residual(self, block: ResidualBlock, x: _Value) -> _Value:
        inner = x
        for layer in (block.norm, block.linear1, block.activation, block.hidden, block.linear2, block.branch):
            inner = self._layer(layer, inner)
        y = self._add(ADD, x, self._new(x.width))
        self.ops[-1][OTHER] = inner.offset
        return y

    def _linear(self, layer: Linear, x: _Value) -> _Value:
        y = self._add(LINEAR, x, self._new(layer.out_features))
        self.ops[-1][WEIGHT] = self.offsets[id(layer.weight)]
        self.ops[-1][BIAS] = -1 if layer.bias is None else self.offsets[id(layer.bias)]
        return y

    def _chain(self, x: _Value) -> _Value:
        return self._add(CHAIN, x, self._new(x.width, x.first))

    def _norm(self, layer: BatchNorm | LayerNorm, x: _Value, kind: int, moments: int) -> _Value:
        y, op = self._chain(x), self.ops[-1]
        op[NORM], op[MOMENTS], op[EPS] = kind, self.num_norms, len(self.eps)
        if layer.weight is not None and layer.bias is not None:
            op[WEIGHT], op[BIAS] = self.offsets[id(layer.weight)], self.offsets[id(layer.bias)]
        self.eps.append(layer.eps)
        self.num_norms += 1
        self.moments_size = max(self.moments_size, moments)
        return y

    def _batch_norm(self, layer: BatchNorm, x: _Value) -> _Value:
        # Running averages inside an epoch are not kept: nothing reads them, and at its end exact statistics follow.
        ghosts = max(1, self.capacity // layer.ghost_size) if layer.ghost_size else 1
        y = self._norm(layer, x, BATCH_NORM, ghosts * x.width)
        self.ops[-1][RUNNING], self.ops[-1][GHOST_SIZE] = self.statistics[id(layer)], layer.ghost_size
        self.store_width = max(self.store_width, x.width)
        return y

    def _layer_norm(self, layer: LayerNorm, x: _Value) -> _Value:
        return self._norm(layer, x, LAYER_NORM, self.capacity)

    def _open_chain(self, x: _Value) -> list[int] | None:
        """The last operation, if it is a chain that ends in x and has not dropped yet."""
        op = self.ops[-1] if self.ops else None
        return op if op and op[CODE] == CHAIN and op[TARGET] == x.offset and op[DROP] == NO_DROP else None

    def _activation(self, layer: nn.Module, x: _Value) -> _Value:
        if type(layer) is nn.Identity:
            return x
        op = self._open_chain(x)
        if op is None or op[ACTIVATION] != CODES["identity"]:
            x = self._chain(x)
        self.ops[-1][ACTIVATION] = CODES[_NAMES[type(layer)]]
        return x

    def _drop(self, layer: Dropout | AlphaDropout, x: _Value) -> _Value:
        y = x if self._open_chain(x) is not None else self._chain(x)
        self.ops[-1][DROP] = ALPHA_DROPOUT if type(layer) is AlphaDropout else DROPOUT
        self._name_draws(layer, "p")
        return y

    def _noise(self, layer: GaussianNoise, x: _Value) -> _Value:
        y = self._add(NOISE, x, self._new(x.width, x.first))
        self._name_draws(layer, "std")
        return y

    def _drop_path(self, layer: DropPath, x: _Value) -> _Value:
        y = self._add(DROP_PATH, x, self._new(x.width, x.first))
        self._name_draws(layer, "p")
        return y

    def _name_draws(self, layer: Stochastic, name: str) -> None:
        """Strength and stream of the last operation."""
        op = self.ops[-1]
        if id(layer) in self.scheduled:
            method, site = self.scheduled[id(layer)]
            op[STRENGTH] = self.strengths.add_function(lambda progress: method.at(progress).settings(site)[name])
        else:
            op[STRENGTH] = self.strengths.add(getattr(layer, name))
        op[STREAM] = len(self.streams)
        self.streams.append(0 if layer.key is None else layer.key.seed)

    def _place_gradients(self) -> None:
        """Backward runs from the end: the last reader of a value writes its gradient, those before it add to it.

        The only reader of a value, if it is a map of elements, works in place: its gradients are one matrix.
        """
        readers = Counter(op[SOURCE] for op in self.ops)
        places: dict[int, int] = {}
        read: set[int] = set()
        for op in reversed(self.ops):
            op[ACCUMULATE] = int(op[SOURCE] in read)
            read.add(op[SOURCE])
            op[TARGET_GRAD] = places.get(op[TARGET], op[TARGET])
            if readers[op[SOURCE]] == 1 and op[CODE] in (CHAIN, NOISE, DROP_PATH):
                places[op[SOURCE]] = op[TARGET_GRAD]
            op[SOURCE_GRAD] = places.get(op[SOURCE], op[SOURCE])
