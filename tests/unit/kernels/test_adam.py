"""Adam for many networks in one pass, beside plain torch and beside torch's own Adam."""

import pytest
import torch

from poise.kernels.adam import adam, reference

BETAS = (0.9, 0.95, 1e-8)


def matrices(variants, columns, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights, grad, exp_avg, squares = torch.randn(4, variants, columns, generator=generator, dtype=torch.float64).to(
        dtype
    )
    return [weights.clone(), grad.clone(), exp_avg.clone(), squares.square()]


def factors(variants, dtype):
    return torch.linspace(1e-3, 1e-2, variants, dtype=dtype), torch.linspace(0.2, 0.9, variants, dtype=dtype)


@pytest.mark.parametrize("with_factor", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 4096), (2, 4097), (5, 10_000)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_one_pass_equals_plain_torch(shape, dtype, tolerance, with_factor):
    factor = torch.linspace(0.5, 2, shape[1], dtype=dtype) if with_factor else None
    ours, plain = matrices(*shape, dtype), matrices(*shape, dtype)
    for _ in range(3):
        adam(*ours, *factors(shape[0], dtype), factor, *BETAS)
        reference(*plain, *factors(shape[0], dtype), factor, *BETAS)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_a_row_has_the_same_bits_alone_and_on_any_number_of_threads():
    rate, root = factors(4, torch.float32)
    together = matrices(4, 9000, torch.float32)
    alone = [one[2:3].clone() for one in together]
    others = [one.clone() for one in together]
    adam(*together, rate, root, None, *BETAS)
    adam(*alone, rate[2:3], root[2:3], None, *BETAS)
    assert all(torch.equal(one[2:3], other) for one, other in zip(together, alone, strict=True))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        adam(*others, rate, root, None, *BETAS)
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, together, others))


def test_matrices_that_do_not_lie_row_by_row_are_changed_too():
    ours, plain = matrices(3, 5, torch.float64), matrices(3, 5, torch.float64)
    apart = [one.t().contiguous().t() for one in ours]
    adam(*apart, *factors(3, torch.float64), None, *BETAS)
    reference(*plain, *factors(3, torch.float64), None, *BETAS)
    assert all(torch.allclose(one, other, atol=1e-13) for one, other in zip(apart, plain, strict=True))


def test_it_is_the_adam_of_torch():
    weights, grad, _, _ = matrices(2, 50, torch.float64)
    parameters = [torch.nn.Parameter(row.clone()) for row in weights]
    optimizers = [
        torch.optim.Adam([one], lr=lr, betas=BETAS[:2]) for one, lr in zip(parameters, (0.1, 0.01), strict=True)
    ]
    state = [weights, grad, torch.zeros_like(weights), torch.zeros_like(weights)]
    for step in range(1, 6):
        lr = torch.tensor([0.1, 0.01], dtype=torch.float64)
        adam(*state, lr / (1 - BETAS[0] ** step), (1 - torch.full_like(lr, BETAS[1]) ** step).sqrt(), None, *BETAS)
        for one, optimizer, row in zip(parameters, optimizers, grad, strict=True):
            one.grad = row.clone()
            optimizer.step()
    torch.testing.assert_close(weights, torch.stack([one.detach() for one in parameters]), rtol=1e-12, atol=1e-12)
