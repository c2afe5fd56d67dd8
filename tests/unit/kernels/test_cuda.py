"""The Triton kernels against plain torch: on a GPU where there is one, and in Triton's interpreter.

The interpreter must be chosen before Triton is imported, and whatever imports it first chooses. So these tests run in a
process of their own.
"""

import inspect
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from poise.kernels import _chain_reference as reference
from poise.kernels.reference import keep_mask

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
NEEDS_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
NORMS = ("batch", "layer", "none")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}

if INTERPRETED or DEVICE == "cuda":
    from poise.kernels import cuda


def in_a_process(*arguments, **settings):
    """Run Python in this folder, apart from what this process has imported and how its tests are run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_"))}
    done = subprocess.run(
        [sys.executable, *arguments], env=kept | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@NEEDS_TRITON
@pytest.mark.skipif(INTERPRETED, reason="it would start itself")
def test_in_the_interpreter():
    assert " passed" in in_a_process("-m", "pytest", "-q", f"{__file__}::TestKernels", TRITON_INTERPRET="1")


@NEEDS_TRITON
@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
def test_compiles_for_gpus(tmp_path):
    """The interpreter accepts more than the compiler; this needs no GPU."""
    made = in_a_process(__file__, TRITON_CACHE_DIR=str(tmp_path)).split()
    assert set(made) == {
        "_apply", "_column_moments", "_combine", "_combine_moments", "_dropout", "_row_moments", "_spread", "_sums",
        "write_mask",
    }  # fmt: skip


def settings_for(variants, p=0.3, on=True):
    """Keys with all 64 bits, steps beyond 32, and strengths that differ."""
    keys = [-(2**63) + 5, 0x123456789ABCDEF, -1, 7][:variants]
    steps = [2**40 + 3, 0, 17, 2**31][:variants]
    make = [torch.tensor(keys), torch.tensor(steps), p + 0.1 * torch.arange(variants, dtype=torch.float64)]
    return [one.to(DEVICE) for one in (*make, torch.tensor([on] * variants))]


def eps_for(variants):
    return torch.logspace(-5, -3, variants, dtype=torch.float64, device=DEVICE)


def randn(*shape, dtype=torch.float64, seed=0):
    drawn = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype).to(DEVICE)


def inputs(variants, rows, columns, dtype=torch.float64, affine=True):
    """x, g, weight, bias."""
    x, g = (1.5 * randn(variants, rows, columns, dtype=dtype, seed=seed) for seed in (1, 2))
    weight, bias = (randn(variants, columns, dtype=dtype, seed=seed) if affine else None for seed in (3, 4))
    return x, g, weight, bias


def run(x, g, weight, bias, settings, eps, norm, activation, given=(None, None)):
    """What the kernels make: y, mean, rstd, dx, dweight, dbias."""
    key, step, p, on = settings
    y, mean, rstd = cuda.chain_forward(x, weight, bias, *given, key, step, p, eps, on, norm, activation)
    known = given[0] is not None
    return (
        y, mean, rstd,
        *cuda.chain_backward(g, x, weight, bias, mean, rstd, key, step, p, on, norm, activation, known),
    )  # fmt: skip


def expect(x, g, weight, bias, settings, eps, norm, activation, given=(None, None)):
    """The same in plain torch and float64."""
    key, step, p, on = settings
    x, g = x.double().requires_grad_(), g.double()
    ones = torch.ones(x.shape[0], x.shape[2], dtype=torch.float64, device=DEVICE)
    weight = (ones if weight is None else weight.double()).requires_grad_()
    bias = (0 * ones if bias is None else bias.double()).requires_grad_()
    given = [one if one is None else one.double() for one in given]
    y, mean, rstd = reference.norm_act_dropout(x, weight, bias, *given, key, step, p, eps, on, norm, activation)
    return (y.detach(), mean, rstd, *torch.autograd.grad(y, (x, weight, bias), g))


def assert_near(found, expected, dtype):
    tolerance = TOLERANCE[dtype]
    for name, one, other in zip(("y", "mean", "rstd", "dx", "dweight", "dbias"), found, expected, strict=True):
        assert one.shape == other.shape, name
        assert one.dtype == (dtype if name in ("y", "dx") else computed(dtype)), name
        torch.testing.assert_close(
            one.double(), other, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def computed(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


class TestKernels:
    __test__ = INTERPRETED or DEVICE == "cuda"

    @pytest.mark.parametrize("num", [1, 7, 4095, 4096, 4097, 10000])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_masks_are_those_of_the_reference(self, num, dtype):
        settings = settings_for(2)
        found = cuda.dropout_forward(torch.ones(2, num, dtype=dtype, device=DEVICE), *settings)
        for v, (key, step, p, _) in enumerate(zip(*(one.tolist() for one in settings), strict=True)):
            assert torch.equal(found[v].cpu(), keep_mask(key, step, num, p).to(dtype))

    def test_strengths_are_rounded_as_in_the_reference(self):
        # Halves between two thresholds go to the even one, and something always survives.
        p = [0.0, 1 / 131072, 3 / 131072, 5 / 131072, 65535 / 131072, 65537 / 131072, 0.9999999, 0.5]
        p = torch.tensor(p, dtype=torch.float64, device=DEVICE)
        zero = torch.zeros(len(p), dtype=torch.int64, device=DEVICE)
        x = torch.ones(len(p), 50, dtype=torch.float64, device=DEVICE)
        settings = (zero, zero, p, zero == 0)
        assert torch.equal(cuda.dropout_forward(x, *settings), reference.dropout(x, *settings))

    def test_dropout_of_values_and_of_gradients_is_one_map(self):
        x, settings = randn(3, 9, 2, 7), settings_for(3)
        expected = reference.dropout(x, *settings)
        assert torch.equal(cuda.dropout_forward(x, *settings), expected)
        assert torch.equal(cuda.dropout_backward(x, *settings), expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_without_dropout_values_stay(self, dtype):
        x = randn(2, 3, 11, dtype=dtype)
        key, step, p, on = settings_for(2)
        assert torch.equal(cuda.dropout_forward(x, key, step, 0 * p, on), x)
        assert torch.equal(cuda.dropout_forward(x, key, step, p, on & False), x)

    @pytest.mark.parametrize("activation", reference.ACTIVATIONS)
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_chain_equals_plain_torch(self, norm, activation, dtype):
        given = (*inputs(1, 6, 5, dtype), settings_for(1), eps_for(1), norm, activation)
        assert_near(run(*given), expect(*given), dtype)

    @pytest.mark.parametrize("activation", ["relu", "gelu"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_statistics_that_are_given_are_constants(self, activation, dtype):
        statistics = (randn(2, 5, dtype=dtype, seed=5), 0.5 + randn(2, 5, dtype=dtype, seed=6).square())
        given = (*inputs(2, 6, 5, dtype), settings_for(2), eps_for(2), "batch", activation, statistics)
        expected = expect(*given)  # first, so that kernels that write to them are found out
        assert_near(run(*given), expected, dtype)

    # More than one tile, block of rows, block of columns, and group of blocks; one row, one column, one element.
    @pytest.mark.parametrize("shape", [(90, 70), (2100, 3), (2, 1100), (1, 5), (5, 1), (1, 1)])
    @pytest.mark.parametrize("norm", ["batch", "layer"])
    def test_shapes(self, shape, norm):
        given = (*inputs(1, *shape), settings_for(1), eps_for(1), norm, "silu")
        assert_near(run(*given), expect(*given), torch.float64)

    @pytest.mark.parametrize("norm", NORMS)
    def test_half_precision(self, norm):
        given = (*inputs(2, 6, 5, torch.bfloat16), settings_for(2), eps_for(2), norm, "gelu")
        assert_near(run(*given), expect(*given), torch.bfloat16)

    @pytest.mark.parametrize("norm", NORMS)
    def test_without_weight_and_bias(self, norm):
        given = (*inputs(2, 6, 5, affine=False), settings_for(2), eps_for(2), norm, "tanh")
        assert_near(run(*given), expect(*given), torch.float64)

    @pytest.mark.parametrize("norm", NORMS)
    def test_variants_at_once_equal_each_alone(self, norm):
        x, g, weight, bias = inputs(3, 9, 7, torch.float32)
        key, step, p, on = settings_for(3)
        on = torch.tensor([True, False, True], device=DEVICE)
        eps = eps_for(3)
        together = run(x, g, weight, bias, (key, step, p, on), eps, norm, "mish")
        for v in range(3):
            one = slice(v, v + 1)
            settings = (key[one], step[one], p[one], on[one])
            alone = run(x[one], g[one], weight[one], bias[one], settings, eps[one], norm, "mish")
            assert all(torch.equal(a, b[one]) for a, b in zip(alone, together, strict=True))
        assert bool((together[0][0] == 0).any())
        assert not bool((together[0][1] == 0).any())

    def test_any_strides(self):
        x, g, weight, bias = inputs(2, 6, 5)
        wide = x.transpose(0, 2).contiguous().transpose(0, 2)
        settings = [torch.stack((one, one), 1)[:, 0] for one in settings_for(2)]
        assert not wide.is_contiguous()
        assert not settings[0].is_contiguous()
        given = (settings_for(2), eps_for(2), "batch", "relu")
        found = run(wide, g.mT.contiguous().mT, weight, bias, settings, *given[1:])
        assert all(torch.equal(a, b) for a, b in zip(found, run(x, g, weight, bias, *given), strict=True))

    def test_addresses_are_aligned(self):
        from poise.kernels.cuda._jit import dense

        x = randn(9, dtype=torch.float32)
        assert all(dense(x[start:]).data_ptr() % 16 == 0 for start in range(5))
        assert torch.equal(dense(x[1:]), x[1:])
        assert dense(x[4:]).data_ptr() == x[4:].data_ptr()

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("shape", [(2, 0, 5), (2, 3, 0), (0, 3, 5)])
    def test_nothing(self, shape, norm):
        y, mean, rstd, dx, dweight, dbias = run(
            *inputs(*shape), settings_for(shape[0]), eps_for(shape[0]), norm, "relu"
        )
        variants, rows, columns = shape
        size = {"batch": columns, "layer": rows, "none": 0}[norm]
        assert y.shape == dx.shape == shape
        assert mean.shape == rstd.shape == (variants, size)
        assert torch.equal(dweight, torch.zeros(variants, columns, dtype=torch.float64, device=DEVICE))
        assert torch.equal(dbias, dweight)
        assert cuda.dropout_forward(y, *settings_for(variants)).shape == shape

    @pytest.mark.parametrize(("norm", "shape"), [("batch", (200, 3)), ("layer", (3, 1500))])
    def test_squares_do_not_cancel(self, norm, shape):
        x = (1e4 + randn(1, *shape)).float()
        _, mean, rstd = cuda.chain_forward(
            x, None, None, None, None, *settings_for(1)[:3], eps_for(1), settings_for(1)[3], norm, "identity"
        )
        center, scale = reference.moments(x.double(), eps_for(1), 1 if norm == "batch" else 2)
        torch.testing.assert_close(mean.double(), center, rtol=6e-8, atol=0)
        torch.testing.assert_close(rstd.double(), scale, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("activation", reference.ACTIVATIONS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_activations_at_their_edges(self, activation, dtype):
        small = 1e-9 if dtype == torch.float64 else 1e-5
        points = [0.0, small, -small, 0.3, -0.3, 19.9, 20.1, -20.1, 80.0, -80.0, torch.nan]
        x = torch.tensor(points, dtype=dtype, device=DEVICE)[None, None]
        settings = settings_for(1, on=False)
        y, _, _, dx, *_ = run(x, torch.ones_like(x), None, None, settings, eps_for(1), "none", activation)
        expected = expect(x, torch.ones_like(x), None, None, settings, eps_for(1), "none", activation)
        rtol = 1e-12 if dtype == torch.float64 else 2e-6
        # Far from 0, gelu and mish cancel in torch, too.
        torch.testing.assert_close(y.double(), expected[0], rtol=rtol, atol=rtol * small, equal_nan=True)
        torch.testing.assert_close(dx.double()[..., :-1], expected[3][..., :-1], rtol=rtol, atol=rtol)

    @pytest.mark.parametrize("name", ["dropout_forward", "dropout_backward", "chain_forward", "chain_backward"])
    def test_signatures_are_those_of_the_twin(self, name):
        from poise.kernels.cpu import _chain as cpu

        assert inspect.signature(getattr(cuda, name)) == inspect.signature(getattr(cpu, name))
        assert cuda.DTYPES == cpu.DTYPES


def compile_only():
    """Print the names of kernels as they are compiled, to the end, for a GPU that is not there."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Absent:
        get_current_device = get_current_stream = staticmethod(lambda *_: 0)
        get_current_target = staticmethod(lambda: GPUTarget("cuda", 80, 32))

    def compiled(function, *arguments, grid, warmup, **options):
        made = start(function, *arguments, grid=grid, warmup=True, **options)
        assert made.asm["cubin"]
        print(function.fn.__name__)

    driver.set_active(Absent())
    start, JITFunction.run = JITFunction.run, compiled
    from poise.kernels import cuda as kernels

    # Triton makes constants of arguments that are 1, which its functions must bear.
    for shape, dtype, norm, weight in (
        ((2, 100, 10), torch.bfloat16, "batch", True),
        ((1, 1, 1), torch.float32, "layer", False),
    ):
        x = torch.zeros(shape, dtype=dtype)
        zero = torch.zeros(len(x), dtype=torch.int64)
        small = x[:, 0] if weight else None
        draws = (zero, zero, zero.double())
        kernels.dropout_forward(x, *draws, zero == 0)
        _, mean, rstd = kernels.chain_forward(
            x, small, small, None, None, *draws, zero.double(), zero == 0, norm, "tanh"
        )
        kernels.chain_backward(x, x, small, small, mean, rstd, *draws, zero == 0, norm, "tanh", False)


if __name__ == "__main__":
    compile_only()
