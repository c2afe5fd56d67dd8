"""Normalization forward and backward against torch's autograd in float64, and where float32 cancels."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from poise.kernels.cpu import _columns, _norm

from ._called import called

affine_columns, affine_relu_columns, affine_relu_dropout_columns, column_moments = (
    called(one)
    for one in (
        _columns.affine_columns,
        _columns.affine_relu_columns,
        _columns.affine_relu_dropout_columns,
        _columns.column_moments,
    )
)
batch_norm_backward, batch_norm_relu_backward, batch_norm_relu_dropout_backward = (
    called(one)
    for one in (
        _columns.batch_norm_backward,
        _columns.batch_norm_relu_backward,
        _columns.batch_norm_relu_dropout_backward,
    )
)
add_rows, layer_norm, layer_norm_backward, rsqrt, scale_columns_backward, slope_and_shift = (
    called(one)
    for one in (
        _norm.add_rows,
        _norm.layer_norm,
        _norm.layer_norm_backward,
        _norm.rsqrt,
        _norm.scale_columns_backward,
        _norm.slope_and_shift,
    )
)

EPS = 1e-3
GUARD = -777.0
NO_MASK = np.zeros(0)
SHAPES = [(2, 1), (2, 8), (3, 7), (4, 9), (5, 16), (7, 17), (8, 33), (16, 64), (33, 65), (130, 70)]


def draw(rows, columns, dtype=np.float64):
    rng = np.random.default_rng(rows * 100 + columns)
    x, g = rng.normal(2, 3, (rows, columns)), rng.normal(size=(rows, columns))
    weight, bias = rng.normal(1, 0.3, columns), rng.normal(size=columns)
    return [one.astype(dtype) for one in (x, g, weight, bias)]


def autograd(function, x, g, weight, bias):
    """Value and gradients of x, weight and bias, in float64."""
    inputs = [torch.from_numpy(one.astype(np.float64)).requires_grad_() for one in (x, weight, bias)]
    y = function(*inputs)
    y.backward(torch.from_numpy(g.astype(np.float64)))
    return [y.detach().numpy(), *(one.grad.numpy() for one in inputs)]


def torch_batch_norm(x, weight, bias):
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)


def batch_norm(x, weight, bias, first=0, last=None, eps=EPS):
    """As the engine does it: moments, reciprocal root, map. Rows outside of first … last - 1 keep the guard."""
    last = len(x) if last is None else last
    columns = x.shape[1]
    mean, rstd = np.empty(columns, x.dtype), np.empty(columns, x.dtype)
    column_moments(x, first, last, mean, rstd)
    rsqrt(rstd, eps)
    y = np.full_like(x, GUARD)
    affine_columns(x, y, first, last, *affine(mean, rstd, weight, bias), NO_MASK)
    return y, mean, rstd


def affine(mean, rstd, weight, bias):
    """Slope and shift of the columns."""
    slope, shift = np.empty_like(mean), np.empty_like(mean)
    slope_and_shift(mean, rstd, weight, bias, slope, shift)
    return slope, shift


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_batch_normalization_is_that_of_torch(rows, columns):
    x, g, weight, bias = draw(rows, columns)
    expected = autograd(torch_batch_norm, x, g, weight, bias)
    y, mean, rstd = batch_norm(x, weight, bias)
    weight_grad, bias_grad, gx = np.ones(columns), np.full(columns, 2.0), g.copy()
    unused = affine(mean, rstd, weight, bias)
    batch_norm_backward(x, gx, 0, rows, mean, rstd, weight, weight_grad, bias_grad, *unused, NO_MASK)
    for found, wanted in zip((y, gx, weight_grad - 1, bias_grad - 2), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_one_pass_is_normalization_relu_and_dropout_one_after_the_other(rows, columns, drop):
    x, g, weight, bias = draw(rows, columns)
    mask = np.where(np.random.default_rng(1).random((rows, columns)) < 0.4, 0, 1 / 0.6) if drop else np.ones_like(x)
    _, mean, rstd = batch_norm(x, weight, bias)
    slope, shift = affine(mean, rstd, weight, bias)
    forward = affine_relu_dropout_columns if drop else affine_relu_columns
    backward = batch_norm_relu_dropout_backward if drop else batch_norm_relu_backward
    given = mask.reshape(-1) if drop else NO_MASK

    def slow(x, w, b):
        return torch_batch_norm(x, w, b).relu() * torch.from_numpy(mask)

    y, weight_grad, bias_grad, gx = np.empty_like(x), np.ones(columns), np.full(columns, 2.0), g.copy()
    forward(x, y, 0, rows, slope, shift, given)
    backward(x, gx, 0, rows, mean, rstd, weight, weight_grad, bias_grad, slope, shift, given)
    expected = autograd(slow, x, g, weight, bias)
    for found, wanted in zip((y, gx, weight_grad - 1, bias_grad - 2), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * max(1, np.abs(wanted).max()))


def test_one_pass_hides_no_number_that_is_none():
    x = np.array([[np.nan, 1.0], [2.0, -1.0]])
    y, g = np.empty_like(x), np.ones_like(x)
    affine_relu_columns(x, y, 0, 2, np.ones(2), np.zeros(2), NO_MASK)
    np.testing.assert_array_equal(y, [[np.nan, 1.0], [2.0, 0.0]])
    one, none = np.ones(2), np.zeros(2)
    batch_norm_relu_backward(x, g, 0, 2, none, one, one, np.zeros(2), np.zeros(2), one, none, NO_MASK)
    assert np.isnan(g[:, 0]).all()
    assert np.isfinite(g[:, 1]).all()


@pytest.mark.parametrize(("first", "last"), [(0, 2), (1, 8), (3, 20), (19, 21)])
def test_a_ghost_batch_is_a_batch_of_its_own_and_touches_no_other_row(first, last):
    x, g, weight, bias = draw(21, 19)
    expected = autograd(torch_batch_norm, x[first:last], g[first:last], weight, bias)
    y, mean, rstd = batch_norm(x, weight, bias, first, last)
    weight_grad, bias_grad, gx = np.zeros(19), np.zeros(19), g.copy()
    unused = affine(mean, rstd, weight, bias)
    batch_norm_backward(x, gx, first, last, mean, rstd, weight, weight_grad, bias_grad, *unused, NO_MASK)
    for found, wanted in zip((y[first:last], gx[first:last], weight_grad, bias_grad), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * max(1, np.abs(wanted).max()))
    outside = np.r_[0:first, last:21]
    assert (y[outside] == GUARD).all()
    np.testing.assert_array_equal(gx[outside], g[outside])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 17), *SHAPES])
def test_layer_normalization_is_that_of_torch(rows, columns):
    if columns == 1:
        return  # one number has no variance: test_a_constant_row_is_the_bias
    x, g, weight, bias = draw(rows, columns)
    expected = autograd(lambda x, w, b: F.layer_norm(x, (columns,), w, b, EPS), x, g, weight, bias)
    y, mean, rstd = np.empty_like(x), np.full(rows + 3, GUARD), np.full(rows + 3, GUARD)
    layer_norm(x, rows, mean, rstd, weight, bias, EPS, y)
    weight_grad, bias_grad, gx = np.ones(columns), np.full(columns, 2.0), g.copy()
    layer_norm_backward(x, gx, rows, mean, rstd, weight, weight_grad, bias_grad)
    for found, wanted in zip((y, gx, weight_grad - 1, bias_grad - 2), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * max(1, np.abs(wanted).max()))
    assert (mean[rows:] == GUARD).all()
    assert (rstd[rows:] == GUARD).all()


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_given_statistics_are_constants(rows, columns):
    x, g, weight, bias = draw(rows, columns)
    mean, var = x.mean(0) + 0.1, x.var(0) + 0.1

    def evaluate(x, w, b):
        return F.batch_norm(x, torch.from_numpy(mean), torch.from_numpy(var), w, b, training=False, eps=EPS)

    expected = autograd(evaluate, x, g, weight, bias)
    rstd, y = var.copy(), np.empty_like(x)
    rsqrt(rstd, EPS)
    affine_columns(x, y, 0, rows, *affine(mean, rstd, weight, bias), NO_MASK)
    weight_grad, bias_grad, gx = np.zeros(columns), np.zeros(columns), g.copy()
    scale_columns_backward(x, gx, mean, rstd, weight, weight_grad, bias_grad)
    for found, wanted in zip((y, gx, weight_grad, bias_grad), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * max(1, np.abs(wanted).max()))


def test_constant_columns_and_rows_are_the_bias():
    x, weight, bias = np.full((5, 7), 3.25), np.full(7, 1.5), np.arange(7.0)
    y, _, rstd = batch_norm(x, weight, bias)
    np.testing.assert_allclose(y, np.tile(bias, (5, 1)), atol=1e-12)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(EPS))
    layer_norm(x, 5, np.empty(5), np.empty(5), weight, bias, EPS, y)
    np.testing.assert_allclose(y, np.tile(bias, (5, 1)), atol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(64, 33), (250, 16), (1000, 40)])
def test_float32_does_not_cancel_where_the_mean_is_ten_thousand_deviations(rows, columns):
    """A rounding of x is 5e-4 there. E[x²] - E[x]² would be wrong by 8, and its root often no number."""
    rng = np.random.default_rng(0)
    x = rng.normal(1e4, 1, (rows, columns)).astype(np.float32)
    weight, bias = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    y, mean, rstd = batch_norm(x, weight, bias, eps=0.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(rstd, 1 / exact.std(0), rtol=2e-5)
    assert np.abs(y - (exact - exact.mean(0)) / exact.std(0)).max() < 1e-2
    center, scale = np.empty(rows, np.float32), np.empty(rows, np.float32)
    layer_norm(x, rows, center, scale, weight, bias, 0.0, y)
    expected = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    np.testing.assert_allclose(scale, 1 / exact.std(1), rtol=2e-5)
    assert np.abs(y - expected).max() < 5e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_sums_of_rows_and_maps_of_columns(rows, columns, dtype):
    x, _, slope, shift = draw(rows, columns, dtype)
    for first, last in ((0, rows), (1, rows), (rows - 1, rows)):
        total = np.full(columns + 20, 3.0, dtype)
        add_rows(x, first, last, total)
        np.testing.assert_allclose(total[:columns] - 3, x[first:last].sum(0), rtol=1e-5, atol=1e-5)
        assert (total[columns:] == 3).all()
        out = np.full_like(x, GUARD)
        affine_columns(x, out, first, last, slope, shift, np.zeros(0, dtype))
        np.testing.assert_allclose(out[first:last], x[first:last] * slope + shift, rtol=1e-5, atol=1e-5)
        assert (out[:first] == GUARD).all()
        mean, var = np.full(columns + 20, GUARD, dtype), np.full(columns + 20, GUARD, dtype)
        column_moments(x, first, last, mean, var)
        np.testing.assert_allclose(mean[:columns], x[first:last].mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(var[:columns], x[first:last].var(0), rtol=1e-5, atol=1e-5)
        assert (mean[columns:] == GUARD).all()
        assert (var[columns:] == GUARD).all()
