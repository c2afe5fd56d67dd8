"""Dropout in eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from poise._errors import ConfigError
from poise.ensemble._flag_probe import drawing_by_flag
from poise.ensemble._sources import LOOKED_FOR, draws, flag_readers, in_mc_mode, is_source
from poise.nn import Stochastic
from poise.nn._stochastic import fresh_key
from poise.surgery._edit import check_editable
from poise.surgery._modes import modes


@contextmanager
def mc_dropout(model: nn.Module) -> Iterator[dict[str, str]]:
    """Within it, what drops in training drops, and all else is in eval mode: ŷ_s = f(x, m_s), m_s ~ the masks' law.

    f is the network with masks m_s in its s-th pass; batch normalization uses running statistics and moves nothing.
    What draws: torch's dropout layers (also alpha and feature dropout), `nn.MultiheadAttention` and `nn.LSTM`, `nn.GRU`
    and `nn.RNN` with dropout, Poise's stochastic layers, `F.dropout` and its relatives called in a forward,
    `F.scaled_dot_product_attention` with `dropout_p`, and modules of any origin that draw random numbers if their own
    `training` is on, such as DropPath and StochasticDepth. The last are found at the first call, which runs the network
    up to three more times. Afterwards every module has its own flag again, hooks are gone, and Poise's layers draw on
    as if nothing had been drawn in between.

    Args:
        model: Stays where and what it is. Call it within the context.

    Yields:
        The paths of the modules that draw, each with its type; those found at the first call appear then.

    Raises:
        ConfigError: If nothing in the network draws, at once or at the first call; if the model is compiled, scripted
            or wrapped; if a module's flag turns on both random numbers and statistics.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 64), nn.BatchNorm1d(64), nn.Dropout(0.5)).train()
        >>> x = torch.ones(4, 2)
        >>> with mc_dropout(model) as found:
        ...     bool((model(x) == model(x)).all()), found
        (False, {'2': 'Dropout'})
        >>> model.training, model[1].num_batches_tracked.item()
        (True, 0)

    Reference: Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016.
    """
    check_samplable(model)
    sources = {name: module for name, module in model.named_modules() if is_source(module)}
    readers = flag_readers(model)
    found = {name: type(module).__name__ for name, module in sources.items()}
    watch = _Watch(model, readers, found)
    with ExitStack() as stack:
        stack.enter_context(modes(model, training=False))
        stack.enter_context(_drawing(model, sources))
        handles = watch.hooks()
        stack.callback(lambda: [handle.remove() for handle in handles])
        stack.enter_context(watch)
        yield found


_KNOWN = ("torch.nn.modules.", "poise.nn.")


@contextmanager
def _drawing(model: nn.Module, sources: dict[str, nn.Module]) -> Iterator[None]:
    """Flags of layers that are known by type; `modes` takes torch's back."""
    ours = [module for module in sources.values() if isinstance(module, Stochastic)]
    before = [(layer, layer.key, layer.step, layer.sampling) for layer in ours]
    for module in sources.values():
        module.training = not isinstance(module, Stochastic)
    if sources:
        # In eval mode these skip their own parts for a fused kernel that knows no dropout.
        for module in model.modules():
            if isinstance(module, nn.TransformerEncoderLayer):
                module.training = True
    try:
        for layer in ours:
            layer.key, layer.step, layer.sampling = fresh_key(), 0, True
        yield
    finally:
        for layer, key, step, sampling in before:
            layer.key, layer.step, layer.sampling = key, step, sampling


class _Watch(TorchFunctionMode):
    """Turns functional dropout on while the model runs, and looks at its first run for what draws by its own flag."""

    def __init__(self, model: nn.Module, readers: dict[str, nn.Module], found: dict[str, str]) -> None:
        super().__init__()
        self._model, self._readers, self._found = model, readers, found
        self._inside = self._looking = self._drew = False
        self._is_new = True

    def hooks(self) -> list[Any]:
        """Follow the model's calls; the handles end that."""
        return [
            self._model.register_forward_pre_hook(self._enter, with_kwargs=True),
            self._model.register_forward_hook(self._check),
            self._model.register_forward_hook(self._leave, always_call=True),
        ]

    def _enter(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        if self._looking:
            return
        if self._is_new and self._readers:
            self._look(args, kwargs)
        self._is_new, self._inside = False, True

    def _look(self, args: Any, kwargs: Any) -> None:
        self._looking = True
        try:
            names = drawing_by_flag(self._model, self._readers, lambda: self._model(*args, **kwargs))
        finally:
            self._looking = False
        for name in names:
            self._readers[name].training = True
            self._found[name] = type(self._readers[name]).__name__

    def _check(self, *_: Any) -> None:
        if not (self._looking or self._found or self._drew):
            raise _nothing_draws(self._model)

    def _leave(self, *_: Any) -> None:
        if not self._looking:
            self._inside = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._inside:
            return func(*args, **kwargs)
        self._drew = self._drew or draws(func, args, kwargs)
        args, kwargs = in_mc_mode(func, args, kwargs)
        return func(*args, **kwargs)


def _nothing_draws(model: nn.Module) -> ConfigError:
    return ConfigError(
        f"Nothing in this {type(model).__name__} draws random numbers, so every pass would be the same. "
        f"Looked for {LOOKED_FOR}.",
        repair="Give the network dropout before it is trained, or use several networks.",
    )


def check_samplable(model: nn.Module) -> None:
    """Raise unless `model` may be run with dropout in eval mode.

    Args:
        model: Any.

    Raises:
        ConfigError: If it is no module, compiled, scripted or wrapped, or if no layer of it could draw.
    """
    check_editable(model)
    for name, module in model.named_modules():
        if type(module).__module__.startswith("torch._dynamo") or module._compiled_call_impl is not None:
            raise ConfigError(
                "A compiled module keeps to the eval mode that it was compiled for.",
                where=f"module {name!r}",
                repair="Give the model as it was before torch.compile.",
            )
    if not any(is_source(module) or not type(module).__module__.startswith(_KNOWN) for module in model.modules()):
        raise _nothing_draws(model)
