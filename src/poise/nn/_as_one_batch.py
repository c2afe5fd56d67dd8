"""Micro-batches with the statistics and the gradient of one big batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise._errors import ConfigError, DataError
from poise.functional.moments import Moments, merge, moments_of, rows_of
from poise.functional.normalize import by_position
from poise.nn._batch_norm import BatchNorm
from poise.nn._repeated import is_repeated
from poise.nn._stochastic import Stochastic

Loss = Callable[[nn.Module, Any], Tensor]


def backward_as_one_batch(
    model: nn.Module, batches: Sequence[Any], loss: Loss, *, through_statistics: bool = True
) -> Tensor:
    """Add to `.grad` what one pass over all rows at once would: d/dw Σ_i loss(model, batch_i), in the memory of one.

    Every BatchNorm normalizes by mean and variance over the rows of all batches, which are gathered layer by layer:
    each is measured on inputs that the layers before it have normalized by final statistics. So outputs, losses and
    the statistics that are kept are those of the big batch. With `through_statistics` the gradient is, too: from the
    last layer to the first, Σ g and Σ g x̂ over all rows are gathered, g the gradient of the normalized x̂, and then
    dx = (g - Σ g / n - x̂ Σ g x̂ / n) / sqrt(var + eps). Without, statistics are constants to the gradient: dx =
    g / sqrt(var + eps), which lacks these two terms.

    It costs, for D calls of a BatchNorm in a pass, about D / 2 + 1 forward passes without gradients and one pass with
    them over each batch, and D forward and D / 2 backward passes more with `through_statistics`. Random layers draw the
    same numbers in every pass. Running statistics move once, whatever `accumulate` is; other layers that change
    themselves in a forward pass, such as spectral normalization, do so in each.

    Args:
        model: In training mode. Its batch normalizations are `poise.nn.BatchNorm` without ghosts, domains, renorm or
            ranks; frozen ones and those in eval mode may be any.
        batches: The micro-batches of an optimizer step; sizes may differ.
        loss: Returns the scalar of a micro-batch, loss(model, batch). The big loss is their sum: for a mean over n
            rows, divide sums over rows by n.
        through_statistics: Whether the gradient goes through mean and variance.

    Returns:
        Σ_i loss(model, batch_i), without gradient.

    Raises:
        ConfigError: If a batch normalization is of another kind.
        DataError: If there are no batches, or they take different ways through the network, or not always the same.

    Example:
        >>> torch.manual_seed(0) and None
        >>> model, x = nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(32, 3)
        >>> def loss(model, rows):
        ...     return model(rows).square().sum() / 32
        >>> big, = torch.autograd.grad(loss(model, x), model[0].weight)
        >>> _ = backward_as_one_batch(model, x.split(8), loss)
        >>> torch.allclose(model[0].weight.grad, big, atol=1e-6)
        True

    Reference: Ioffe and Szegedy, "Batch normalization", ICML 2015, section 3, the gradient.
    """
    if not batches:
        raise DataError("`batches` must hold at least one micro-batch, but it is empty.")
    replay = _Replay(model, batches, loss)
    with _substituted(_checked_layers(model), replay.call):
        replay.begin()
        for index in range(len(replay.calls)):
            replay.gather(index)
        for index in reversed(range(len(replay.calls))) if through_statistics else ():
            replay.gather_gradient(index)
        total = replay.backward()
    for call in replay.calls:
        call.layer.move_by(call.moments)
    return total


class _Reached(BaseException):
    """The pass has reached the call whose input is wanted: not an Exception, so that no loss catches it."""


@dataclass
class _Call:
    """One call of a layer: moments of its input over all rows, and sums of the gradient of its output, (1, C)."""

    layer: BatchNorm
    moments: Moments
    sums: tuple[Tensor, Tensor]


class _Replay:
    """Runs the same passes again and again, up to or from a call of a layer."""

    def __init__(self, model: nn.Module, batches: Sequence[Any], loss: Loss) -> None:
        self.model, self.batches, self.loss = model, batches, loss
        self.calls: list[_Call] = []
        self.next = 0
        self.act: Callable[[BatchNorm, Tensor], Tensor] = self._count
        self.wanted = -1
        self.probe: Tensor | None = None
        self.random = [layer for layer in model.modules() if isinstance(layer, Stochastic)]
        self.draws: list[_Draws] = []

    def call(self, layer: BatchNorm, x: Tensor) -> Tensor:
        """What `layer` makes of x."""
        if is_repeated():
            raise ConfigError("Gradient checkpointing does not go with passes that are repeated already.")
        if self.act != self._count and (self.next >= len(self.calls) or self.calls[self.next].layer is not layer):
            raise DataError("A batch does not take the same way through the network each time.")
        y = self.act(layer, x)
        self.next += 1
        return y

    @torch.no_grad()
    def begin(self) -> None:
        """Find the calls of a pass, and what is drawn in each."""
        orders = []
        for batch in self.batches:
            self.calls = []
            self.next = 0
            self.draws.append(_Draws.of(self.random))
            self.loss(self.model, batch)
            orders.append([call.layer for call in self.calls])
        if any(order != orders[0] for order in orders):
            raise DataError("The batches take different ways through the network, so they cannot be one batch.")

    @torch.no_grad()
    def gather(self, index: int) -> None:
        """Moments of the input of a call."""
        self.act, self.wanted = self._measure, index
        call = self.calls[index]
        call.moments = Moments(*(torch.zeros_like(part) for part in call.moments))
        for number in range(len(self.batches)):
            try:
                self._run(number)
            except _Reached:
                continue

    def gather_gradient(self, index: int) -> None:
        """Sums of the gradient of the output of a call."""
        self.act, self.wanted = self._watch, index
        for number in range(len(self.batches)):
            with torch.enable_grad():
                value = self._run(number)
            if self.probe is None or not value.requires_grad:
                continue
            (grad,) = torch.autograd.grad(value, self.probe, allow_unused=True)
            if grad is not None:
                call = self.calls[index]
                parts = grad.sum((0, 2)).unsqueeze(0), (grad * self.probe.detach()).sum((0, 2)).unsqueeze(0)
                call.sums = call.sums[0] + parts[0], call.sums[1] + parts[1]
            self.probe = None

    def backward(self) -> Tensor:
        """The sum of the losses, whose gradients are added."""
        self.act = self._normalize
        losses = []
        for number in range(len(self.batches)):
            with torch.enable_grad():
                value = self._run(number)
            value.backward()  # type: ignore[no-untyped-call]
            losses.append(value.detach())
        return torch.stack(losses).sum()

    def _run(self, number: int) -> Tensor:
        self.next = 0
        self.draws[number].put_back(self.random)
        return self.loss(self.model, self.batches[number])

    def _count(self, layer: BatchNorm, x: Tensor) -> Tensor:
        zeros = torch.zeros(1, layer.num_features, dtype=torch.float64, device=x.device)
        self.calls.append(_Call(layer, moments_of(by_position(x)), (zeros, zeros)))
        return self._normalize(layer, x)

    def _measure(self, layer: BatchNorm, x: Tensor) -> Tensor:
        if self.next < self.wanted:
            return self._normalize(layer, x)
        call = self.calls[self.next]
        call.moments = merge(call.moments, moments_of(by_position(x)))
        raise _Reached

    def _watch(self, layer: BatchNorm, x: Tensor) -> Tensor:
        if self.next != self.wanted:
            return self._normalize(layer, x)
        mean, factor = _factors(self.calls[self.next], x)
        self.probe = ((by_position(x.detach()) - mean) * factor).requires_grad_()
        return _scaled(layer, self.probe, x)

    def _normalize(self, layer: BatchNorm, x: Tensor) -> Tensor:
        call = self.calls[self.next]
        values = by_position(x)
        mean, factor = _factors(call, x)
        number = call.moments.number.clamp(min=1)
        sums = [rows_of((one / number).to(values.dtype), None) for one in call.sums]
        normalized: Tensor = _Normalize.apply(values, mean, factor, *sums)  # type: ignore[no-untyped-call]
        return _scaled(layer, normalized, x)


def _factors(call: _Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """mean and 1 / sqrt(var + eps), (1, C, 1)."""
    layer, (number, mean, var) = call.layer, call.moments
    is_few = number < 2
    mean = torch.where(is_few, layer.running_mean, mean)
    var = torch.where(is_few, layer.running_var, var)
    dtype = by_position(x[:0]).dtype
    return rows_of(mean.to(dtype), None), rows_of((var + layer.eps).rsqrt().to(dtype), None)


def _scaled(layer: BatchNorm, normalized: Tensor, x: Tensor) -> Tensor:
    y = normalized if layer.weight is None else normalized * layer.weight.view(1, -1, 1)
    y = y if layer.bias is None else y + layer.bias.view(1, -1, 1)
    return y.reshape(x.shape).to(x.dtype)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, factor: Tensor, first: Tensor, second: Tensor) -> Tensor:
        normalized = (x - mean) * factor
        ctx.save_for_backward(normalized, factor, first, second)
        return normalized

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        normalized, factor, first, second = ctx.saved_tensors
        return factor * (grad - first - normalized * second), None, None, None, None


@dataclass
class _Draws:
    """Where torch's generators and the layers of `poise.nn` stand."""

    cpu: Tensor
    cuda: list[Tensor]
    steps: list[int]

    @classmethod
    def of(cls, layers: Sequence[Stochastic]) -> _Draws:
        """At present."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        return cls(torch.get_rng_state(), cuda, [layer.step for layer in layers])

    def put_back(self, layers: Sequence[Stochastic]) -> None:
        """Let the next pass draw as the one that began here."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        for layer, step in zip(layers, self.steps, strict=True):
            layer.step = step


def _checked_layers(model: nn.Module) -> list[BatchNorm]:
    layers = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
            raise ConfigError(
                f"{type(layer).__name__} cannot take the statistics of several batches.", where=f"module {name!r}",
                repair="Convert it by poise.convert_batch_norm.",
            )  # fmt: skip
        if isinstance(layer, BatchNorm) and layer.training and not layer.frozen:
            if layer.ghost_size or layer.num_domains or layer.renorm or layer.synchronized:
                raise ConfigError(
                    "A BatchNorm with ghosts, domains, renorm or ranks cannot take the statistics of several batches.",
                    where=f"module {name!r}", repair="Leave that setting out.",
                )  # fmt: skip
            layers.append(layer)
    return layers


@contextmanager
def _substituted(layers: Sequence[BatchNorm], call: Callable[[BatchNorm, Tensor], Tensor]) -> Iterator[None]:
    try:
        for layer in layers:
            layer.substitute = call
        yield
    finally:
        for layer in layers:
            layer.substitute = None
