"""The model a user wrote, inside what it may be wrapped in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from poise._errors import ConfigError
from poise.surgery._edit import check_editable


def inner_model(model: nn.Module) -> nn.Module:
    """The model in a compiled one or in a wrapper for several devices, whose own work would move buffers."""
    while isinstance(model, nn.Module):
        if type(model).__module__.startswith("torch._dynamo"):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        else:
            break
    check_editable(model)
    for name, module in model.named_modules():
        where = f"module {name!r}"
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if nn.parameter.is_lazy(tensor):
                raise ConfigError("It has not seen a batch yet.", where=where, repair="Run the model once.")
            if tensor.device.type == "meta":
                raise ConfigError("It holds no values (device meta).", where=where, repair="Load its weights.")
    return model


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Parts that are compiled run as they are written, as compiled code does not see hooks that came later."""
    is_compiled = any(
        type(module).__module__.startswith("torch._dynamo") or module._compiled_call_impl is not None
        for module in model.modules()
    )
    with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
        yield
