"""The operators under autograd, vmap, compile, export and checkpointing: one kernel, always the same numbers."""

import itertools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from poise._errors import ConfigError
from poise._random import Key
from poise.kernels import _autograd, _chain_reference, _dispatch, ops

NORMS = [("batch", False), ("batch", True), ("layer", False), ("none", False)]
V, N, C = 3, 6, 4


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draws(variants=V):
    """key, step, p, eps, on: another of each for every variant."""
    key, step = torch.arange(variants) * 7 - 3, torch.arange(variants) * 2**33
    p, eps = torch.linspace(0, 0.7, variants, dtype=torch.float64), torch.linspace(1e-3, 0.1, variants).double()
    return key, step, p, eps, torch.arange(variants) != 1


def rows(given=False):
    statistics = (randn(V, C, seed=3), randn(V, C, seed=4).abs() + 0.5) if given else (None, None)
    return [randn(V, N, C, seed=5), randn(V, C, seed=1), randn(V, C, seed=2), *statistics]


def differentiable(norm, given, activation, door=ops.norm_act_dropout):
    """y as a function of x, weight and bias, and values for them."""
    x, weight, bias, *statistics = rows(given)

    def function(*inputs):
        return door(*inputs, *statistics, *draws(), norm, activation)[0]

    return function, [one.requires_grad_() for one in (x, weight, bias)]


@pytest.mark.parametrize("door", [ops.norm_act_dropout, _autograd.chain_op], ids=["function", "operator"])
@pytest.mark.parametrize(("norm", "given"), NORMS)
def test_gradients_and_theirs(norm, given, door):
    for activation in ("gelu", "tanh"):
        function, inputs = differentiable(norm, given, activation, door)
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("activation", _chain_reference.ACTIVATIONS)
def test_gradients_are_those_of_the_plain_version(activation):
    for norm, given in NORMS:
        function, inputs = differentiable(norm, given, activation)
        plain, _ = differentiable(norm, given, activation, _chain_reference.norm_act_dropout)
        for one in (function, plain):
            first = torch.autograd.grad(one(*inputs).sin().sum(), inputs, create_graph=True)
            second = torch.autograd.grad(sum(grad.square().sum() for grad in first), inputs)
            found = (first, second) if one is function else found  # noqa: F821
        for mine, exact in zip((*found[0], *found[1]), (*first, *second), strict=True):
            torch.testing.assert_close(mine, exact, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(dtype):
    x, weight, bias, *_ = (one if one is None else one.to(dtype).requires_grad_() for one in rows())
    y, mean, _ = ops.norm_act_dropout(x, weight, bias, None, None, *draws(), "batch", "relu")
    grads = torch.autograd.grad(y.sum(), (x, weight, bias))
    assert {one.dtype for one in (y, *grads)} == {dtype}
    assert not mean.requires_grad
    exact = [one.detach().double() for one in (x, weight, bias)]
    wanted = _chain_reference.norm_act_dropout(*exact, None, None, *draws(), "batch", "relu")[0]
    torch.testing.assert_close(y.double(), wanted, rtol=2e-2, atol=2e-2)


def test_nobody_asks_for_some_gradients():
    function, (x, weight, bias) = differentiable("batch", False, "relu")
    whole = torch.autograd.grad(function(x, weight, bias).sin().sum(), (x, weight, bias))
    part = torch.autograd.grad(function(x.detach(), weight, bias.detach()).sin().sum(), weight)
    assert torch.equal(part[0], whole[1])
    without = ops.norm_act_dropout(x, None, None, None, None, *draws(), "layer", "relu")[0]
    assert torch.autograd.grad(without.sum(), x)[0].shape == x.shape


def one_variant(x, weight, bias, key, step, p, eps, on, norm="batch", activation="silu"):
    """The operator as a network of one variant calls it."""
    small = [one if one is None else one[None] for one in (weight, bias)]
    settings = [one[None] for one in (key, step, p, eps, on)]
    return ops.norm_act_dropout(x[None], *small, None, None, *settings, norm, activation)


@pytest.mark.parametrize("norm", ops.NORMS)
def test_vmap_is_a_loop(norm):
    x, weight, bias, *_ = rows()
    found = torch.func.vmap(lambda *inputs: one_variant(*inputs, norm=norm))(x, weight, bias, *draws())
    for v, inputs in enumerate(zip(x, weight, bias, *draws(), strict=True)):
        for mine, alone in zip(found, one_variant(*inputs, norm=norm), strict=True):
            assert torch.equal(mine[v], alone)


def test_vmap_of_what_is_shared_and_what_is_not():
    x, weight, bias, *_ = rows()
    settings = draws()
    dims = (None, 1, None, 0, None, 0, None, None)
    shared = [one[0] for one in settings]
    inputs = (x[0], weight.T.contiguous(), bias[0], settings[0], shared[1], settings[2], shared[3], shared[4])
    found, _, _ = torch.func.vmap(one_variant, in_dims=dims)(*inputs)
    for v in range(V):
        alone, _, _ = one_variant(
            x[0], weight[v], bias[0], settings[0][v], shared[1], settings[2][v], shared[3], shared[4]
        )
        assert torch.equal(found[v], alone)
    assert not torch.equal(found[1], found[2])


def test_gradients_under_vmap_are_those_of_a_loop():
    def loss(*inputs):
        return one_variant(*inputs)[0].sin().sum()

    x, weight, bias, *_ = rows()
    found = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(x, weight, bias, *draws())
    twice = torch.func.vmap(torch.func.grad(lambda *inputs: torch.func.grad(loss)(*inputs).square().sum()))
    second = twice(x, weight, bias, *draws())
    for v, (*inputs, key, step, p, eps, on) in enumerate(zip(x, weight, bias, *draws(), strict=True)):
        leaves = [one.clone().requires_grad_() for one in inputs]
        first = torch.autograd.grad(loss(*leaves, key, step, p, eps, on), leaves, create_graph=True)
        assert all(torch.equal(mine[v], alone) for mine, alone in zip(found, first, strict=True))
        alone = torch.autograd.grad(first[0].square().sum(), leaves[0])[0]
        torch.testing.assert_close(second[v], alone, rtol=1e-9, atol=1e-12)


def test_one_call_serves_all_variants(monkeypatch):
    calls = []
    kernel = _dispatch.cpu.chain_forward
    monkeypatch.setattr(_dispatch.cpu, "chain_forward", lambda x, *rest: calls.append(x.shape) or kernel(x, *rest))
    x, weight, bias, *_ = rows()
    torch.func.vmap(one_variant)(x, weight, bias, *draws())
    assert calls == [(V, N, C)]


def test_dropout_under_vmap_and_gradients():
    key, step, p, _, on = draws()
    x = randn(V, 50).requires_grad_()
    y = ops.dropout(x, key, step, p, on)
    found = torch.func.vmap(lambda *inputs: ops.dropout(*(one[None] for one in inputs))[0])(x, key, step, p, on)
    assert torch.equal(found, y)
    pairs = [torch.stack((one, one.flip(0))) for one in (x, key, step, p, on)]  # (2, V, ...), mapped over V
    for door in (ops.dropout, _autograd.dropout_op):
        both = torch.func.vmap(door, in_dims=1, out_dims=1)(*pairs)
        assert torch.equal(both, torch.stack((y, y.flip(0))))
    (g,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(g, ops.dropout(torch.ones_like(x), key, step, p, on))
    assert torch.equal(g[1], torch.ones(50, dtype=torch.float64))
    assert torch.autograd.gradgradcheck(lambda x: ops.dropout(x, key, step, p, on).sin(), x)


def test_compile_gives_the_same_numbers():
    function, inputs = differentiable("batch", False, "gelu")
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(*inputs), function(*inputs))
    for mine, eager in zip(
        torch.autograd.grad(compiled(*inputs).sin().sum(), inputs),
        torch.autograd.grad(function(*inputs).sin().sum(), inputs),
        strict=True,
    ):
        assert torch.equal(mine, eager)


def test_export_keeps_the_operators():
    class Both(torch.nn.Module):
        def forward(self, x, weight, bias):
            y, mean, _ = ops.norm_act_dropout(x, weight, bias, None, None, *settings, "batch", "relu")
            return ops.dropout(y, key, step, p, on), mean

    settings = draws()
    key, step, p, _, on = settings
    inputs = tuple(one for one in rows() if one is not None)
    program = torch.export.export(Both(), inputs)
    names = {str(node.target) for node in program.graph.nodes}
    assert {"poise.dropout.default", "poise.norm_act_dropout.default"} <= names
    assert all(torch.equal(mine, eager) for mine, eager in zip(program.module()(*inputs), Both()(*inputs), strict=True))


def test_the_operators_keep_what_they_declare():
    for norm, given in NORMS:
        function, inputs = rows(given), (*draws(), norm, "tanh")
        torch.library.opcheck(torch.ops.poise.norm_act_dropout.default, (*function, *inputs))
    key, step, p, _, on = draws()
    torch.library.opcheck(torch.ops.poise.dropout.default, (randn(V, 7).requires_grad_(), key, step, p, on))


def test_checkpointing_draws_the_same_masks():
    function, inputs = differentiable("batch", False, "relu")
    plain = torch.autograd.grad(function(*inputs).sin().sum(), inputs)
    again = torch.autograd.grad(checkpoint(function, *inputs, use_reentrant=False).sin().sum(), inputs)
    assert all(torch.equal(mine, other) for mine, other in zip(plain, again, strict=True))


def test_little_is_kept_for_the_way_back():
    kept = []
    x, weight, bias, *_ = (one if one is None else one.float() for one in rows())
    x = x[:1].repeat(1, 100, 1).requires_grad_()
    settings = [one[:1] for one in draws()]
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.nbytes) or one, lambda one: one):
        ops.norm_act_dropout(x, weight[:1], bias[:1], None, None, *settings, "batch", "gelu")
    assert sum(kept) <= x.nbytes + 200


def test_settings_name_the_masks_of_a_key():
    for seed, step in ((5, 3), (2**64 - 1, 2**63), (2**63, 2**64 - 1)):
        key, count, p, eps, on = ops.settings(seed, step, 0.25, 1e-3, torch.device("cpu"))
        x = randn(9, 5)
        y = ops.dropout(x.unsqueeze(0), key, count, p, on).squeeze(0)
        assert torch.equal(y, x * Key(seed, step).keep_mask(9, 5, p=0.25, dtype=torch.float64))
        assert float(eps) == 1e-3
    assert not ops.settings(1, 1, 0.0, 1e-3, torch.device("cpu"))[4]


def test_what_does_not_fit_is_refused_before_it_reaches_memory():
    x, weight, bias, *_ = rows()
    key, step, p, _, on = draws()
    call = ops.norm_act_dropout
    for one, message in (
        (lambda: call(x[0], None, None, None, None, *draws(), "batch", "relu"), r"\(V, N, C\)"),
        (lambda: call(x, weight[:, :2], None, None, None, *draws(), "batch", "relu"), r"shape \(3, 4\)"),
        (lambda: call(x, weight, bias[:2], None, None, *draws(), "batch", "relu"), r"shape \(3, 4\)"),
        (lambda: call(x, None, None, weight, None, *draws(), "batch", "relu"), "both"),
        (lambda: call(x, None, None, weight, weight, *draws(), "layer", "relu"), "both"),
        (lambda: call(x, None, None, None, None, *draws(2), "batch", "relu"), r"shape \(3,\)"),
        (lambda: call(x, None, None, None, None, *draws(), "group", "relu"), "`norm` must be one of"),
        (lambda: call(x, None, None, None, None, *draws(), "batch", "swish"), "`activation` must be one of"),
        (lambda: ops.dropout(x, key[:1], step, p, on), r"shape \(3,\)"),
        (lambda: torch.ops.poise.dropout(x, key, step, p, on[:1]), r"shape \(3,\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            one()


def test_without_machine_code_the_plain_version_runs(monkeypatch):
    function, inputs = differentiable("batch", False, "gelu")
    fast = [function(*inputs), *torch.autograd.grad(function(*inputs).sin().sum(), inputs)]
    monkeypatch.setattr(_dispatch, "_MODULES", {})
    plain = [function(*inputs), *torch.autograd.grad(function(*inputs).sin().sum(), inputs)]
    for one, other in itertools.zip_longest(fast, plain):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
