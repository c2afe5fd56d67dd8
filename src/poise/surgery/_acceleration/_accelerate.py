"""Faster kernels in the places of layers of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from poise._errors import DataError, SurgeryError
from poise.nn import Dropout, NormActDropout
from poise.surgery._acceleration._chains import plan_edits
from poise.surgery._acceleration._swap import FastDropout, Leave
from poise.surgery._edit import Edit, Edits, apply_edits, check_editable
from poise.surgery._graph._call import call_model, tensors_of
from poise.surgery._graph._trace import graph_of
from poise.surgery._ready import check_example, check_materialized, copy_of, doubled, example_fails

_ATTENTION: Any = functional.scaled_dot_product_attention
_TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def accelerate(model: nn.Module, *, example: Any = None) -> Edits:
    """Put faster kernels in the place of dropout, and of normalization + nonlinearity + dropout, for training on a CPU.

    `nn.Dropout` becomes `poise.nn.Dropout`, whose masks come from vectorized Philox; a batch or layer normalization
    followed by ReLU, LeakyReLU, GELU, SiLU, SELU, Tanh or Mish and `nn.Dropout`, each the only user of the one before,
    becomes `poise.nn.NormActDropout`, which keeps nothing but its input for the backward pass;
    `torch.nn.functional.dropout` is sent to the same masks while the module that calls it trains. The distribution of
    what is computed stays. The state_dict stays, too: parameters and buffers are the same objects under the same names.
    Masks differ from those that torch would draw, and follow `torch.manual_seed`. A new `p` must be set on the new
    layers, and `isinstance(layer, nn.Dropout)` no longer finds them.

    With an example, kernels are put only where they are faster for its sizes: give a batch as large as in training.
    What stays is in the diff with the reason.

    Args:
        model: Changed in place, or not at all.
        example: A batch, as for `poise.recalibrate`. With it, outputs in eval mode must agree with those before to
            1e-12 of their largest magnitude in float64 and 1e-5 in float32; and in training without dropout, on copies
            in float64, outputs, running statistics and gradients to 1e-9, or to 1e-3 in the model's own precision
            where it cannot run in float64. Without it nothing is compared, and layer normalization is left, as its
            axes are not known.

    Returns:
        What was done: `diff()` prints it, `undo()` takes it back, with what was learned since.

    Raises:
        ConfigError: If the model is on the meta device, lazy, compiled, scripted or wrapped, or has no example and its
            source cannot be followed.
        DataError: If the example is empty, or the model fails on it in eval mode or in training.
        SurgeryError: If the results would differ.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        >>> edits = accelerate(model)
        >>> model[1]
        NormActDropout(8, p=0.2, activation='relu', norm='batch', eps=1e-05, momentum=0.1)
        >>> edits.undo()
        >>> [type(layer).__name__ for layer in model]
        ['Linear', 'BatchNorm1d', 'ReLU', 'Dropout']

    Reference: Salmon et al., "Parallel random numbers", SC 2011 (Philox).
    """
    check_editable(model)
    check_materialized(model)
    if example is not None:
        check_example(example)
    edits = _plan(model, example)
    if example is None or all(isinstance(edit, Leave) for edit in edits):
        return apply_edits(model, edits)
    _check_training(model, example)
    return apply_edits(model, edits, example=example)


def _plan(model: nn.Module, example: Any) -> list[Edit]:
    tensors = [*model.parameters(), *model.buffers()]
    devices = {one.device.type for one in tensors} - {"cpu"}
    if devices:
        return [Leave("", f"on {devices.pop()} torch's own kernels are as fast", 0.0)]
    try:
        graph = graph_of(model, example)
    except Exception as error:
        if example is None:
            raise  # a ConfigError that says what to do
        raise example_fails(model, error) from error
    return plan_edits(model, graph, max((_TOLERANCES.get(one.dtype, 0.0) for one in tensors), default=1e-5))


def _check_training(model: nn.Module, example: Any) -> None:
    """Raise unless a step without dropout gives the same, in float64 where the model can run in it."""
    plain, batch, bound = copy_of(model).double(), doubled(example), 1e-9
    fast = copy_of(plain)
    try:
        before = _step(plain, batch)
    except Exception:  # a model that makes float32 tensors of its own; what else is wrong shows again
        plain, fast, batch, bound = copy_of(model), copy_of(model), example, 1e-3
        try:
            before = _step(plain, batch)
        except Exception as error:  # whatever a foreign model raises
            raise DataError(
                f"{type(model).__name__} fails on the example in training: {type(error).__name__}: {error}",
                repair="Give a batch of at least two rows that the model can be trained with.",
            ) from error
    apply_edits(fast, _plan(fast, batch))
    after = _step(fast, batch)
    for kind, old in before.items():
        scale = max((float(one.abs().max()) for one in old.values() if one.numel()), default=0.0)
        for name, value in old.items():
            difference = float((value - after[kind][name]).abs().max()) if value.numel() else 0.0
            if not difference <= bound * scale:
                raise SurgeryError(
                    f"{kind} would change by {difference:.3g} in training without dropout. Nothing was changed.",
                    where=f"{name!r}",
                    repair="This is an error of Poise, or the network draws random numbers of its own.",
                )


def _step(model: nn.Module, batch: Any) -> dict[str, dict[str, Tensor]]:
    """Outputs, gradients and buffers after a pass in training mode with nothing dropped; others' draws repeat."""
    _silence(model.train())
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), _Undropped():
        outputs = [one for one in tensors_of(call_model(model, batch)) if one.is_floating_point()]
        loss = sum((one * torch.arange(one.numel()).view(one.shape).sin().to(one.dtype)).sum() for one in outputs)
        if isinstance(loss, Tensor) and loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    buffers = {name: one for name, one in model.named_buffers() if one.is_floating_point()}
    return {
        "An output": {str(i): one.detach() for i, one in enumerate(outputs)},
        "A gradient": gradients,
        "A buffer": buffers,
    }


class _Undropped(TorchFunctionMode):
    """Within it torch's dropout drops nothing; layers of Poise are silenced one by one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout:
            return args[0] if args else kwargs["input"]
        if func is _ATTENTION:
            # Its p is often that of a layer which is itself never called.
            if len(args) > 4:
                return func(*args[:4], 0.0, *args[5:], **kwargs)
            return func(*args, **kwargs | {"dropout_p": 0.0})
        return func(*args, **kwargs)


def _silence(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, Dropout | NormActDropout):
            module.p = 0.0
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), FastDropout)]:
                del hooks[key]
