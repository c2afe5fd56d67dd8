"""Modules of one structure, side by side: their tensors get a leading axis of variants, and one pass serves all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from poise.fleet.stacked._fuse import Chain, chains_of, fuse
from poise.fleet.stacked._noise import Draws, Supply, draw, drawn_layers, draws_of, shapes_seen, supplied
from poise.fleet.stacked._rows import taken
from poise.fleet.stacked._structure import check_stackable
from poise.nn._stochastic import Drawn

Function = Callable[..., Any]
"""Called for each variant as function(network, parameters, *its part of what is mapped)."""


class _Host(nn.Module):
    """Lets any function of a module be called with other tensors in the module's place."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Function, parameters: Mapping[str, Tensor], *mapped: Any) -> Any:
        return function(self.module, parameters, *mapped)


class Stack:
    """V modules as one: y_v = f(x_v; w_v), each with weights, buffers, strengths and random numbers of its own.

    Any torch module will do whose operations `torch.vmap` knows. What a module draws in training must have a name, so
    random layers are those of `poise.nn`; the numbers are those that each module would draw by itself. Buffers that a
    training pass moves, such as running statistics, are replaced by new ones. Weights and buffers are copied; random
    layers stay the modules' own, where their strengths can be set anew and their steps go on.

    Args:
        modules: Of one structure: layers, settings and shapes agree; strengths may differ.
        device: Where the stack lies; None for where the first module does.

    Raises:
        ConfigError: If there are no modules, they do not have one structure and one dtype, or hold a layer whose random
            numbers have no name.

    Example:
        >>> stack = Stack([nn.Linear(3, 2) for _ in range(5)])
        >>> stack.outputs(torch.zeros(5, 7, 3)).shape
        torch.Size([5, 7, 2])
        >>> losses, gradients = stack.gradients(lambda network, _, x: network(x).square().mean(), torch.ones(5, 7, 3))
        >>> losses.shape, gradients.shape
        (torch.Size([5]), torch.Size([5, 8]))

    Reference: `torch.func`, formerly functorch, model ensembling.
    """

    def __init__(self, modules: Sequence[nn.Module], *, device: torch.device | str | None = None) -> None:
        check_stackable(modules)
        with torch.no_grad():
            parameters = list(modules[0].parameters())
            self.device = torch.device(device or (parameters[0].device if parameters else "cpu"))
            self.template = copy.deepcopy(modules[0]).requires_grad_(requires_grad=False).to(self.device)
            self._host = _Host(self.template)
            self.shapes = {name: parameter.shape for name, parameter in self.template.named_parameters()}
            self.weights = torch.stack([_flat(module) for module in modules]).to(self.device)
            buffers = [dict(module.named_buffers()) for module in modules]
            self.buffers = {name: torch.stack([one[name] for one in buffers]).to(self.device) for name in buffers[0]}
        self.drawn = drawn_layers(self.template)
        self._takers: list[Drawn | Chain] = list(self.drawn)
        self.moving = list(self.buffers)
        self.layers = [drawn_layers(module) for module in modules]
        self._passes: dict[Any, Any] = {}

    @property
    def num_variants(self) -> int:
        """V."""
        return len(self.weights)

    @property
    def named(self) -> list[bool]:
        """Of each layer that draws, whether it takes what names its numbers instead of the numbers."""
        return [isinstance(taker, Chain) for taker in self._takers]

    def fuse(self) -> None:
        """Run chains of normalization, nonlinearity and dropout in one kernel, for batches of more than one row.

        Training then moves no running statistics of these normalizations.
        """
        self.template = self._host.module = fuse(self.template)
        chains = chains_of(self.template)
        by_drop = {chain.drop: chain for chain in chains if chain.drop is not None}
        self._takers = [by_drop.get(layer, layer) for layer in self.drawn]
        norms = {id(buffer) for chain in chains if chain.norm is not None for buffer in chain.norm.buffers()}
        self.moving = [name for name, buffer in self.template.named_buffers() if id(buffer) not in norms]

    def load(self, variant: int, module: nn.Module) -> None:
        """Put `module` in the place of a variant.

        Args:
            variant: In [0, V).
            module: Of the same structure.
        """
        with torch.no_grad():
            self.weights[variant] = _flat(module)
            for name, buffer in module.named_buffers():
                self.buffers[name][variant] = buffer
        self.layers[variant] = drawn_layers(module)

    def take(self, variants: Sequence[int]) -> None:
        """Go on with other variants: number i is what number variants[i] was.

        Args:
            variants: Each in [0, V); one may occur more than once.
        """
        self.weights = taken(self.weights, variants)
        self.buffers = {name: taken(buffer, variants) for name, buffer in self.buffers.items()}
        self.layers = [self.layers[variant] for variant in variants]

    @torch.no_grad()
    def store(self, variant: int, module: nn.Module) -> None:
        """Give `module` the weights and buffers of a variant.

        Args:
            variant: In [0, V).
            module: Of the same structure.
        """
        own = self.split(self.weights[variant])
        for name, parameter in module.named_parameters():
            parameter.copy_(own[name])
        for name, buffer in module.named_buffers():
            buffer.copy_(self.buffers[name][variant])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The parts of a flat vector of one variant (or of its gradient) by parameter, as views."""
        parts = torch.split(vector, [shape.numel() for shape in self.shapes.values()]) if self.shapes else ()
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def train(self, mode: bool = True) -> Stack:
        """Set training mode, or eval mode, for all variants."""
        self.template.train(mode)
        return self

    def eval(self) -> Stack:
        """Set eval mode for all variants."""
        return self.train(False)

    def outputs(self, inputs: Any) -> Any:
        """What each module makes of its inputs, without gradients.

        Args:
            inputs: A tensor (V, ...), or a tuple or dict of such, that becomes the only argument of each module.

        Returns:
            (V, ...).
        """
        with torch.no_grad():
            made, moved = self.call(_output_of_one, (inputs,), self.weights, *self._changing(inputs, None))
        self.buffers |= moved
        return made

    def gradients(
        self, loss: Function, inputs: Any, *others: Any, draws: Sequence[Draws] | None = None, shared: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The loss of each variant and its gradient.

        Args:
            loss: Called for each variant as loss(network, parameters, inputs, *others) with the variant's own; returns
                a scalar. `parameters` are its tensors by name.
            inputs: What networks read: a tensor (V, ...), or a tuple or dict of such.
            others: More of that kind.
            draws: What names the random numbers of each layer that draws; None for what the layers would draw next.
            shared: How many of `inputs` and `others`, from the first on, are the same for all variants and have no axis
                of them.

        Returns:
            Losses (V,) and gradients (V, P), in the order of `weights`; `split` takes a row apart.
        """
        changing = self._changing(inputs, draws, shared)
        losses, gradients, moved = self.differentiate(loss, shared, self.weights, *changing, (inputs, *others))
        self.buffers |= moved
        return losses, gradients

    def differentiate(
        self, loss: Function, shared: int, weights: Tensor, buffers: dict[str, Tensor], supplies: Sequence[Supply],
        mapped: tuple[Any, ...],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
        """`gradients` of given weights, with given random numbers: losses, gradients, and the buffers that it leaves.

        Args:
            loss: As in `gradients`.
            shared: As in `gradients`.
            weights: (V, P).
            buffers: `moving` ones by name; changed in place.
            supplies: As in `call`.
            mapped: Inputs and others.
        """
        weights = weights.detach().requires_grad_()
        with torch.enable_grad():
            losses, moved = self.call(loss, mapped, weights, buffers, supplies, shared=shared)
            # The loss of a variant depends on no other one's weights, so the sum has the gradients of all.
            (gradients,) = torch.autograd.grad(losses.sum(), weights)
        return losses.detach(), gradients, moved

    def _changing(
        self, inputs: Any, draws: Sequence[Draws] | None, shared: int = 0
    ) -> tuple[dict[str, Tensor], list[Supply]]:
        """Copies of the buffers that a pass moves, and the random numbers that it takes."""
        if not self.template.training:
            return dict(self.buffers), []
        supplies = self.supplies(inputs, draws, shared)
        return {name: self.buffers[name].clone() for name in self.moving}, supplies

    def supplies(self, inputs: Any, draws: Sequence[Draws] | None = None, shared: int = 0) -> list[Supply]:
        """The random numbers of a training pass, layer by layer.

        Args:
            inputs: As in `gradients`.
            draws: As in `gradients`.
            shared: As in `gradients`.
        """
        passes = self.passes(inputs if shared else tree_map(lambda tensor: tensor[0], inputs))
        draws = self._own_draws(passes) if draws is None else draws
        return [
            draw(layer, own, expected, self.device, named=named)
            for layer, own, expected, named in zip(self.drawn, draws, passes, self.named, strict=True)
        ]

    def _own_draws(self, passes: Sequence[Sequence[Any]]) -> list[Draws]:
        """What the layers would draw next; their steps go on."""
        draws = []
        for layers, expected in zip(zip(*self.layers, strict=True), passes, strict=True):
            draws.append(draws_of(layers))
            for layer in layers:
                # A pass without noise does not count, as in a layer by itself.
                layer.step += len(expected) if layer.is_active() else 0
        return draws

    def call(
        self,
        function: Function,
        mapped: tuple[Any, ...],
        weights: Tensor,
        buffers: dict[str, Tensor],
        supplies: Sequence[Supply] = (),
        *,
        shared: int = 0,
    ) -> tuple[Any, dict[str, Tensor]]:
        """`function` for each row of `weights`: its results, and the buffers that it leaves.

        Args:
            function: As in `gradients`, of any result.
            mapped: Further arguments, with an axis of variants but for the first `shared` of them.
            weights: (V, P), or some rows of it.
            buffers: By name, of the same variants; changed in place.
            supplies: Random numbers of the layers that draw.
            shared: As in `gradients`.
        """

        def of_one(own_weights: Tensor, own_buffers: dict[str, Tensor], supplies: Any, mapped: Any) -> Any:
            parameters = self.split(own_weights)
            tensors = {f"module.{name}": tensor for name, tensor in (parameters | own_buffers).items()}
            with supplied(self._takers if supplies else (), supplies):
                result = functional_call(self._host, tensors, (function, parameters, *mapped))
            return result, {name: tensors[f"module.{name}"].detach() for name in own_buffers}

        axes = (0, 0, 0, tuple(None if place < shared else 0 for place in range(len(mapped))))
        made: tuple[Any, dict[str, Tensor]] = vmap(of_one, in_dims=axes)(weights, buffers, list(supplies), mapped)
        return made

    def passes(self, inputs: Any) -> Any:
        """Shape and dtype of each input that each layer that draws gets; found once for each shape.

        Args:
            inputs: Of one variant.
        """
        if not self.drawn:
            return []
        name = repr(tree_map(lambda tensor: (tensor.shape, tensor.dtype), inputs))
        if name not in self._passes:
            self._passes[name] = shapes_seen(self.template, self.drawn, inputs)
        return self._passes[name]


def _output_of_one(network: nn.Module, _: Any, own: Any) -> Any:
    return network(own)


def _flat(module: nn.Module) -> Tensor:
    parameters = list(module.parameters())
    return torch.cat([one.detach().reshape(-1) for one in parameters]) if parameters else torch.empty(0)
