"""The chain on the CPU against the plain version in every norm, nonlinearity and dtype; its masks as random numbers."""

import itertools

import pytest
import torch

from poise._random import Key
from poise.kernels import _chain_reference as reference
from poise.kernels.cpu import _chain as cpu
from poise.kernels.cpu import _dropout, _pool

NORMS = [("batch", False), ("batch", True), ("layer", False), ("none", False)]
SHAPES = [(3, 7, 5), (2, 2, 1), (2, 1, 6), (1, 4095, 1), (1, 1, 4096), (2, 17, 241), (1, 300, 300), (1, 2, 9001)]
# Largest error over largest value: of the outputs, and of the statistics and sums, which keep the digits of computing.
BOUNDS = {torch.float64: (1e-12, 1e-12), torch.float32: (5e-6, 5e-6), torch.bfloat16: (1e-2, 5e-6)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def draws(variants):
    """key, step, p, eps, on; every second variant's dropout is on, the first one's too."""
    source = generator(1)
    key = torch.randint(-(2**63), 2**63 - 1, (variants,), generator=source)
    step = torch.randint(0, 2**40, (variants,), generator=source)
    p, eps = torch.rand(2, variants, dtype=torch.float64, generator=source).mul(0.9)
    return key, step, p, eps + 1e-5, torch.arange(variants) % 2 == 0


def inputs(shape, dtype, *, affine=True, given=False):
    variants, _, columns = shape
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    rows = [randn(variants, columns, seed=seed).to(computed) for seed in range(1, 5)]
    rows[3] = rows[3].abs() + 0.5
    x = (randn(*shape) * 2 + 1).to(dtype)
    return [x, *(rows[:2] if affine else (None, None)), *(rows[2:] if given else (None, None)), *draws(variants)]


def both(shape, dtype, norm, activation, *, affine=True, given=False, change=lambda x: x):
    """y, mean, rstd, dx, dweight, dbias of the kernel, and the same of the plain version in float64."""
    made = inputs(shape, dtype, affine=affine, given=given)
    made[0] = change(made[0])
    g = randn(*shape, seed=9).to(dtype)
    y, mean, rstd = cpu.chain_forward(*made, norm, activation)
    key, step, p, _, on = made[5:]
    grads = cpu.chain_backward(g, *made[:3], mean, rstd, key, step, p, on, norm, activation, given)
    exact = [one if one is None else one.double().requires_grad_(place < 3) for place, one in enumerate(made[:5])]
    plain = reference.norm_act_dropout(*exact, *made[5:], norm, activation)
    wanted = torch.autograd.grad(plain[0], [one for one in exact[:3] if one is not None], g.double())
    return [y, mean, rstd, *grads[: len(wanted)]], [plain[0].detach(), *plain[1:], *wanted]


def check(found, wanted, dtype):
    for place, (one, exact) in enumerate(zip(found, wanted, strict=True)):
        assert one.shape == exact.shape
        bound = BOUNDS[dtype][place not in (0, 3)]
        # A gradient that cancels, as over one column, keeps the digits of what it cancels from: about 1.
        size = float(exact.abs().max() if exact.numel() else 0) + (1.0 if place >= 3 else 1e-30)
        assert float((one.double() - exact).abs().max() if one.numel() else 0) <= bound * size, place


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_equals_the_plain_version_in_every_shape(shape, dtype):
    for (norm, given), affine in itertools.product(NORMS, (True, False)):
        found, wanted = both(shape, dtype, norm, "tanh", affine=affine, given=given)
        assert found[0].dtype == found[3].dtype == dtype
        check(found, wanted, dtype)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_equals_the_plain_version_in_every_nonlinearity(activation, dtype):
    for norm, given in NORMS:
        check(*both((2, 40, 33), dtype, norm, activation, given=given), dtype)


def test_the_plain_nonlinearities_are_those_of_the_layers():
    from poise.nn import ACTIVATIONS

    x = torch.linspace(-30, 30, 1001, dtype=torch.float64)
    assert set(ACTIVATIONS) == set(reference.ACTIVATIONS)
    for name, layer in ACTIVATIONS.items():
        assert torch.equal(reference.ACTIVATIONS[name](x), layer()(x))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(
    "shape", [(3, 5, 7), (1, 4095), (1, 4096), (1, 4097), (2, 8191, 1), (1, 40000), (2, 0, 3), (0, 4)]
)
def test_dropout_equals_the_plain_version(shape, dtype):
    x, (key, step, p, _, on) = randn(*shape).to(dtype), draws(shape[0])
    y = cpu.dropout_forward(x, key, step, p, on)
    assert (y.shape, y.dtype) == (shape, dtype)
    wanted = reference.dropout(x.double(), key, step, p, on)
    assert torch.equal(y, wanted.to(dtype)) or dtype == torch.float32
    torch.testing.assert_close(y.double(), wanted.to(dtype).double(), rtol=2e-7, atol=0)


def test_the_masks_are_those_of_a_key():
    x = randn(300, 41)
    settings = (torch.tensor([5]), torch.tensor([3]), torch.tensor([0.3]), torch.tensor([True]))
    for dtype in (torch.float32, torch.float64):
        y = cpu.dropout_forward(x[None].to(dtype), *settings)
        assert torch.equal(y[0], x.to(dtype) * Key(5, 3).keep_mask(300, 41, p=float(settings[2]), dtype=dtype))


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_and_one_row(rows):
    for norm, given in NORMS:
        found, wanted = both((2, rows, 3), torch.float64, norm, "gelu", given=given)
        if rows:
            check(found, wanted, torch.float64)
        assert found[0].shape == found[3].shape == (2, rows, 3)
        assert all(torch.isfinite(one).all() for one in found[3:])


@pytest.mark.parametrize("change", [lambda x: x.mT.contiguous().mT, lambda x: x.repeat_interleave(2, 2)[..., ::2]])
def test_strides_do_not_matter(change):
    assert not change(randn(2, 9, 6)).is_contiguous()
    for norm, given in NORMS:
        plain, _ = both((2, 9, 6), torch.float32, norm, "silu", given=given)
        strided, _ = both((2, 9, 6), torch.float32, norm, "silu", given=given, change=change)
        assert all(torch.equal(one, other) for one, other in zip(plain, strided, strict=True))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("norm", "given"), NORMS)
def test_threads_do_not_matter(dtype, norm, given):
    torch.set_num_threads(1)
    alone, _ = both((2, 301, 257), dtype, norm, "relu", given=given)
    try:
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert cpu.threads_for(2 * 301 * 257)[1] == (threads if _pool.team()[0] else 1)
            several, _ = both((2, 301, 257), dtype, norm, "relu", given=given)
            assert all(torch.equal(one, other) for one, other in zip(alone, several, strict=True))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("shape", [(1, 2100, 1000), (2, 1101, 1001)])
def test_large_outputs_are_the_same(shape):
    """They are written past the cache, where their addresses allow it: those of the second variant do not."""
    assert 4 * shape[0] * shape[1] * shape[2] > _dropout._STREAMED
    for norm in ("batch", "layer"):
        check(*both(shape, torch.float32, norm, "relu"), torch.float32)
    x, (key, step, p, _, on) = randn(*shape).float(), draws(shape[0])
    wanted = reference.dropout(x.double(), key, step, p, on)
    torch.testing.assert_close(cpu.dropout_forward(x, key, step, p, on).double(), wanted, rtol=2e-7, atol=0)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("norm", "given"), NORMS)
def test_a_variant_equals_itself_alone(dtype, norm, given):
    made = inputs((3, 150, 130), dtype, given=given)
    together = cpu.chain_forward(*made, norm, "mish")
    key, step, p, _, on = made[5:]
    g = randn(3, 150, 130, seed=9).to(dtype)
    grads = cpu.chain_backward(g, *made[:3], *together[1:], key, step, p, on, norm, "mish", given)
    for v in range(3):
        one = [part if part is None else part[v : v + 1] for part in made]
        alone = cpu.chain_forward(*one, norm, "mish")
        key, step, p, _, on = one[5:]
        back = cpu.chain_backward(g[v : v + 1], *one[:3], *alone[1:], key, step, p, on, norm, "mish", given)
        for whole, part in zip((*together, *grads), (*alone, *back), strict=True):
            assert torch.equal(whole[v : v + 1], part)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("columns", [30, 300])
def test_a_mean_of_ten_thousand_deviations_does_not_cancel(norm, columns):
    made = inputs((1, 5000, columns), torch.float32, affine=False)
    made[0] = randn(1, 5000, columns).add(1e4).float()
    made[6:10] = torch.zeros(1, dtype=torch.int64), torch.zeros(1), torch.full((1,), 1e-5), torch.tensor([False])
    y, _, rstd = cpu.chain_forward(*made, norm, "identity")
    exact = reference.norm_act_dropout(made[0].double(), *made[1:], norm, "identity")
    # What is left is the rounding of the mean to float32, 1e4 · 2^-24 deviations.
    torch.testing.assert_close(rstd.double(), exact[2], rtol=2e-5, atol=0)
    torch.testing.assert_close(y.double(), exact[0], rtol=2e-3, atol=1e-3)


def test_a_sample_that_is_far_off_does_not_spoil_the_variance():
    x = randn(1, 4096, 64).float()
    x[0, ::1024] = 1e3  # the rows by which squares are shifted
    made = inputs((1, 4096, 64), torch.float32, affine=False)
    made[0] = x
    _, mean, rstd = cpu.chain_forward(*made, "batch", "identity")
    exact = reference.norm_act_dropout(x.double(), *made[1:], "batch", "identity")
    torch.testing.assert_close(rstd.double(), exact[2], rtol=1e-4, atol=0)
    torch.testing.assert_close(mean.double(), exact[1], rtol=1e-4, atol=1e-4)


def test_not_a_number_is_not_hidden():
    made = inputs((1, 64, 8), torch.bfloat16, affine=False)
    made[0][0, 3, 2] = float("nan")
    made[9] = torch.tensor([False])
    y, _, _ = cpu.chain_forward(*made, "batch", "gelu")
    assert y[0, :, 2].isnan().all()
    assert torch.isfinite(y[0, :, [0, 1, 3]]).all()
    infinite = torch.full((1, 8), torch.inf, dtype=torch.bfloat16)
    settings = (torch.tensor([0]), torch.tensor([0]), torch.tensor([0.0]), torch.tensor([True]))
    assert cpu.dropout_forward(infinite, *settings).isinf().all()


def test_no_library_of_threads_means_one_thread(monkeypatch):
    monkeypatch.setattr(_pool, "_gomp_parallel", lambda: 0)
    torch.set_num_threads(2)
    try:
        assert _pool.team() == (0, 1)
        check(*both((1, 300, 300), torch.float64, "batch", "relu"), torch.float64)
    finally:
        torch.set_num_threads(1)


NUM = 1 << 22


def masks(seed, step, p=0.5, num=NUM):
    """Kept or not, ±1, of `num` elements."""
    settings = (torch.tensor([seed]), torch.tensor([step]), torch.tensor([p], dtype=torch.float64), torch.ones(1) > 0)
    return torch.where(cpu.dropout_forward(torch.ones(1, num), *settings)[0] > 0, 1.0, -1.0)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_kept_fraction_over_a_hundred_million_draws(p):
    settings = (torch.tensor([11]), torch.tensor([p], dtype=torch.float64), torch.ones(1) > 0)
    ones = torch.ones(1, NUM)
    kept, num = 0, 24 * NUM
    for step in range(24):
        kept += int(cpu.dropout_forward(ones, settings[0], torch.tensor([step]), *settings[1:]).count_nonzero())
    rate = 1 - round(p * 2**16) / 2**16
    assert num > 1e8
    assert abs(kept / num - rate) < 4 * (rate * (1 - rate) / num) ** 0.5  # a bias of 2.4e-4 would fail surely


def test_no_correlation_of_neighbours_steps_and_keys():
    """Four standard errors of 2^22 pairs are 0.002: a correlation of 0.003 fails with probability 0.98."""
    first = masks(7, 0)
    others = [first.roll(lag) for lag in (1, 2, 3, 8, 64, 511, 512, 513, 1024, 2048, 4096, 8192)]
    others += [masks(7, step) for step in (1, 2, 3, 2**32)]
    others += [masks(seed, 0) for seed in (6, 8, 7 + 2**32, -7, 7 << 32)]
    for other in others:
        assert abs(float((first * other).mean())) < 4 / NUM**0.5
