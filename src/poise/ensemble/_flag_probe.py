"""Which modules draw random numbers only if their own `training` is on: found by running the network twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from poise._errors import ConfigError
from poise.ensemble._sources import cuda_devices, draws, in_mc_mode


def drawing_by_flag(model: nn.Module, readers: Mapping[str, nn.Module], run: Callable[[], object]) -> list[str]:
    """The paths of those `readers` that draw more with their own flag on; buffers and random state stay as they were.

    A flag such as `dropout_p=self.p if self.training else 0.0` cannot be seen in the call, so the flags are tried.

    Args:
        model: The network, in eval mode.
        readers: Modules whose code reads `training`, by path.
        run: Passes a batch through the network.

    Raises:
        ConfigError: If such a flag also changes statistics.
    """
    found = []
    with torch.no_grad(), torch.random.fork_rng(devices=cuda_devices(model)):
        before = _draws_of(model, run)
        groups = [list(readers)] if _runs(model, readers, run) else [[name] for name in readers]
        for names in groups:
            chosen = {name: readers[name] for name in names}
            if len(groups) == 1 or _runs(model, chosen, run):
                found += _more(model, chosen, run, before)
    return found


def _runs(model: nn.Module, readers: Mapping[str, nn.Module], run: Callable[[], object]) -> bool:
    """Whether the network runs with these flags on; some want targets then."""
    try:
        with _flags_on(model, readers):
            run()
    except Exception:  # whatever the network's own code raises; then the flags are tried one by one
        return False
    return True


def _more(
    model: nn.Module, readers: Mapping[str, nn.Module], run: Callable[[], object], before: Counter[int]
) -> list[str]:
    with _flags_on(model, readers) as changed:
        after = _draws_of(model, run)
        found = [name for name, module in readers.items() if after[id(module)] > before[id(module)]]
        moved = changed()
    for name in found:
        hit = [buffer for buffer in moved if buffer.rpartition(".")[0] == name]
        if hit:
            raise ConfigError(
                f"Its `training` flag turns random numbers on and also changes the buffer {hit[0]!r}.",
                where=f"module {name!r}, a {type(readers[name]).__name__}",
                repair="Let dropout there be a layer of its own, or a call of torch.nn.functional.dropout.",
            )
    return found


@contextmanager
def _flags_on(model: nn.Module, readers: Mapping[str, nn.Module]) -> Iterator[Callable[[], list[str]]]:
    """Own flags on; afterwards off, and all buffers as they were. What it yields says which buffers changed."""
    buffers = dict(model.named_buffers())
    kept = {name: buffer.detach().clone() for name, buffer in buffers.items()}

    def changed() -> list[str]:
        return [
            name for name, buffer in buffers.items() if not torch.equal(buffer.nan_to_num(), kept[name].nan_to_num())
        ]

    try:
        for module in readers.values():
            module.training = True
        yield changed
    finally:
        for module in readers.values():
            module.training = False
        with torch.no_grad():
            for name in changed():
                buffers[name].copy_(kept[name])


def _draws_of(model: nn.Module, run: Callable[[], object]) -> Counter[int]:
    """How often each module's own code calls what draws, by id."""
    counter = _Counter()
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(counter.enter))
        handles.append(module.register_forward_hook(counter.leave, always_call=True))
    try:
        with counter:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return counter.calls


class _Counter(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[int] = Counter()
        self._inside: list[int] = []

    def enter(self, module: nn.Module, *_: Any) -> None:
        self._inside.append(id(module))

    def leave(self, *_: Any) -> None:
        self._inside.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside and draws(func, args, kwargs):
            self.calls[self._inside[-1]] += 1
        args, kwargs = in_mc_mode(func, args, kwargs)
        return func(*args, **kwargs)
