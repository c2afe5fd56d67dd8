"""First weights that suit the rows they will see."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from poise._random import Key
from poise.data import Inputs
from poise.nn import Linear, ResidualBlock, TabularNetwork
from poise.surgery import recalibrate_outputs

_CORNERS = 5
_LEAST_STD = 1e-3


@torch.no_grad()
def initialize_from_rows(network: TabularNetwork, inputs: Inputs, key: Key) -> None:
    """Rescale and shift the linear layers that feed nonlinearities, in place, to what `inputs` become there.

    Unit j of such a layer gets w_j ← w_j / std(w_j · x), so that what it hands on has variance 1 over the rows x, and
    b_j ← - w_j · Σ_k λ_jk x_i(j,k), so that it bends at a random point between five rows. The λ are uniform on their
    simplex. It goes from the first layer to the last; batch normalizations get the statistics of the rows, and dropout
    is off. A unit that hardly varies over the rows keeps its size.

    Args:
        network: Made afresh.
        inputs: Training rows, one or more.
        key: Names the points.

    Reference: Holzmüller et al., "Better by default", NeurIPS 2024. Steinwart, "A sober look at neural network
    initializations", 2019 (he+5).
    """
    handles = [
        layer.register_forward_pre_hook(partial(_fit, key.stream(index)))
        for index, layer in enumerate(_before_nonlinearities(network.mlp))
    ]
    try:
        recalibrate_outputs(network, [inputs])
    finally:
        for handle in handles:
            handle.remove()


def _before_nonlinearities(mlp: nn.Sequential) -> Iterator[Linear]:
    for block in mlp:
        if isinstance(block, ResidualBlock):
            yield block.linear1
        elif isinstance(block, nn.Sequential):
            yield from (layer for layer in block if isinstance(layer, Linear))


def _fit(key: Key, layer: Linear, args: tuple[Tensor, ...]) -> None:
    (x,) = args
    reached = x @ layer.weight.T
    std = reached.std(dim=0, correction=0)
    factor = torch.where(std > _LEAST_STD, 1 / std, 1.0)
    layer.weight.mul_(factor[:, None])
    if layer.bias is None:
        return
    rows = key.stream("rows").integers(len(x), _CORNERS, layer.out_features)
    # Exponential numbers over their sum are uniform on the simplex.
    drawn = key.stream("shares").uniform(_CORNERS, layer.out_features, dtype=torch.float64) + 2.0**-25
    shares = -drawn.log()
    corners = (reached * factor).gather(0, rows)
    layer.bias.copy_(-(corners * (shares / shares.sum(dim=0)).to(x.dtype)).sum(dim=0))
