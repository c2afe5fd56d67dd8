"""How the chain operators are differentiated, once by their kernels and twice by the plain version.

Importing it registers the custom operators `poise::dropout`, `poise::norm_act_dropout` and the latter's way back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from poise.kernels import _chain_reference as reference
from poise.kernels._dispatch import (
    lead,
    run_chain,
    run_chain_backward,
    run_dropout,
    run_layer,
    run_layer_backward,
)

_SETTINGS = "Tensor key, Tensor step, Tensor p"
_ROWS = "Tensor? weight, Tensor? bias"

dropout_op: Any = torch.library.custom_op(
    "poise::dropout", run_dropout, mutates_args=(), schema=f"(Tensor x, {_SETTINGS}, Tensor on) -> Tensor"
)
chain_op: Any = torch.library.custom_op(
    "poise::norm_act_dropout",
    run_chain,
    mutates_args=(),
    schema=f"(Tensor x, {_ROWS}, Tensor? mean, Tensor? rstd, {_SETTINGS}, Tensor eps, Tensor on, str norm, "
    "str activation) -> (Tensor, Tensor, Tensor)",
)
chain_backward_op: Any = torch.library.custom_op(
    "poise::norm_act_dropout_backward",
    run_chain_backward,
    mutates_args=(),
    schema=f"(Tensor g, Tensor x, {_ROWS}, Tensor mean, Tensor rstd, {_SETTINGS}, Tensor eps, Tensor on, str norm, "
    "str activation, bool given) -> (Tensor, Tensor, Tensor)",
)


class Dropout(Function):
    """`run_dropout` with its gradient, which is `run_dropout` again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *settings: Tensor) -> Tensor:
        """x times its masks."""
        ctx.save_for_backward(*settings)
        return run_dropout(x, *settings)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """g times the same masks."""
        return call_dropout(g, *ctx.saved_tensors), None, None, None, None


class Chain(Function):
    """`run_chain` with its gradient."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """y, mean, rstd."""
        made = run_chain(*inputs)
        _remember(ctx, inputs, made)
        return made

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        return _pull(ctx, g, call_chain_backward)


class ChainBackward(Function):
    """`run_chain_backward` with its gradient."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias."""
        _remember_backward(ctx, inputs)
        return run_chain_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of g, x, weight and bias."""
        return _pull_twice(ctx, *cotangents)


class Layer(Function):
    """`Chain` for one variant that has no axis: x (..., C), and weight, bias and given statistics (C,).

    Autograd does not see the axis and keeps no book of it.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """y, mean, rstd."""
        made = run_layer(*inputs)
        _remember(ctx, inputs, made)
        return made

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        x, weight, bias, *saved = ctx.saved_tensors
        if torch.is_grad_enabled() or is_transformed():
            shape = 1, -1, x.shape[-1]
            rows = g.reshape(shape), x.reshape(shape), lead(weight), lead(bias)
            dx, dweight, dbias = call_chain_backward(*rows, *saved, *ctx.names)
        else:
            dx, dweight, dbias = run_layer_backward(g, x, weight, bias, *saved, *ctx.names)
        small = (None if one is None else _like(grad[0], one) for grad, one in ((dweight, weight), (dbias, bias)))
        return dx.view(x.shape), *small, *(None,) * 9


def _like(grad: Tensor, one: Tensor) -> Tensor:
    return grad if grad.dtype is one.dtype else grad.to(one.dtype)


def _mappable(plain: Any, run: Callable[..., Any], remember: Callable[..., None]) -> Any:
    """`plain` for the transforms of `torch.func`, which want the context apart and a rule; this form calls slower."""

    class Mappable(Function):
        generate_vmap_rule = False
        forward = staticmethod(run)
        setup_context = staticmethod(remember)
        backward = staticmethod(plain.backward)

        @staticmethod
        def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
            return _map(Mappable.apply, info, dims, inputs)

    return Mappable


is_transformed: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Whether a transform of `torch.func` is at work, and tensors may stand for many."""


def _caller(plain: Any, run: Callable[..., Any], remember: Callable[..., None]) -> Callable[..., Any]:
    """A function that runs the kernel as it is, unless somebody differentiates or maps what it does."""
    mappable = _mappable(plain, run, remember)

    def call(*inputs: Any) -> Any:
        if is_transformed():
            return mappable.apply(*inputs)
        if torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in inputs):
            return plain.apply(*inputs)
        return run(*inputs)

    return call


def _remember_settings(ctx: Any, inputs: Sequence[Tensor], *_: Any) -> None:
    ctx.save_for_backward(*inputs[1:])


def _remember(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    x, weight, bias, mean, _, *settings, norm, activation = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:], *settings)
    ctx.names = norm, activation, mean is not None
    ctx.mark_non_differentiable(*output[1:])


def _pull(ctx: Any, g: Tensor, backward: Callable[..., Any]) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: a checkpoint computes them anew for each look
    dx, dweight, dbias = backward(g, *saved, *ctx.names)
    _, weight, bias, *_ = saved
    small = (None if one is None else _like(grad, one) for grad, one in ((dweight, weight), (dbias, bias)))
    return dx, *small, *(None,) * 9


def _remember_backward(ctx: Any, inputs: Sequence[Any], *_: Any) -> None:
    *tensors, norm, activation, given = inputs
    ctx.save_for_backward(*tensors)
    ctx.names = norm, activation, given


def _pull_twice(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient of a gradient, by differentiating the plain version twice."""
    g, x, weight, bias, mean, rstd, key, step, p, eps, on = ctx.saved_tensors
    norm, activation, given = ctx.names
    # The masks as a constant: their settings cannot be read where torch traces or maps.
    draw = call_dropout if is_transformed() else dropout_op
    mask = draw(torch.ones_like(x), key, step, p, on)
    ones = x.new_ones(x.shape[0], x.shape[2])
    scale, shift = ones if weight is None else weight, torch.zeros_like(ones) if bias is None else bias
    statistics: tuple[Tensor | None, Tensor | None] = (mean, rstd) if given else (None, None)

    def plain(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y, _, _ = reference.norm_act(x, scale, shift, *statistics, eps, norm, activation)
        masked: Tensor = y * mask
        return masked

    def first(g: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        grads: tuple[Tensor, ...] = torch.func.vjp(plain, *inputs)[1](g)
        return grads

    made, pull, *_ = torch.func.vjp(first, g, x, scale, shift)
    dg, dx, dscale, dshift = pull(tuple(one.to(like) for one, like in zip(cotangents, made, strict=True)))
    small = (None if weight is None else dscale, None if bias is None else dshift)
    return dg, dx, *small, *(None,) * 10


def _map(op: Callable[..., Any], info: Any, dims: Sequence[int | None], inputs: Sequence[Any]) -> Any:
    """The rule of `torch.func.vmap`: the mapped axis goes into that of variants, so that one call serves all."""

    def lead(one: Any, dim: int | None) -> Any:
        if not isinstance(one, Tensor):
            return one
        return (one.expand(info.batch_size, *one.shape) if dim is None else one.movedim(dim, 0)).flatten(0, 1)

    def split(one: Tensor) -> Tensor:
        return one.reshape(info.batch_size, len(one) // info.batch_size, *one.shape[1:])

    made = op(*(lead(one, dim) for one, dim in zip(inputs, dims, strict=True)))
    return (split(made), 0) if isinstance(made, Tensor) else (tuple(map(split, made)), (0,) * len(made))


def _register() -> None:
    dropout_op.register_fake(lambda x, *_: torch.empty(x.shape, dtype=x.dtype, device=x.device))
    dropout_op.register_autograd(
        lambda ctx, g: (dropout_op(g, *ctx.saved_tensors), None, None, None, None),
        setup_context=lambda ctx, inputs, **_: _remember_settings(ctx, inputs),
    )
    chain_op.register_fake(_fake_chain)
    chain_op.register_autograd(lambda ctx, g, *_: _pull(ctx, g, chain_backward_op), setup_context=_remember)
    chain_backward_op.register_fake(_fake_backward)
    chain_backward_op.register_autograd(
        _pull_twice, setup_context=lambda ctx, inputs, **_: _remember_backward(ctx, inputs)
    )
    for op in (dropout_op, chain_op, chain_backward_op):
        op.register_vmap(lambda info, dims, *inputs, op=op: _map(op, info, dims, inputs))


def _computed(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _fake_chain(x: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    variants, rows, columns = x.shape
    size = {"batch": columns, "layer": rows, "none": 0}[inputs[-2]]
    y, small = torch.empty(x.shape, dtype=x.dtype, device=x.device), x.new_empty((variants, size), dtype=_computed(x))
    return y, small, torch.empty_like(small)


def _fake_backward(_g: Tensor, x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    dx, small = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        x.new_empty((x.shape[0], x.shape[2]), dtype=_computed(x)),
    )
    return dx, small, torch.empty_like(small)


call_dropout = _caller(Dropout, run_dropout, _remember_settings)
call_chain = _caller(Chain, run_chain, _remember)
call_chain_backward = _caller(ChainBackward, run_chain_backward, _remember_backward)
_register()
