import torch

from poise.integrations._normal import normal_quantile


def test_it_is_the_inverse_of_the_distribution():
    p = torch.logspace(-10, -0.31, 2000, dtype=torch.float64)
    p = torch.cat((p, torch.tensor([0.5, 0.075, 0.925], dtype=torch.float64), 1 - p))
    assert (normal_quantile(p) - torch.special.ndtri(p)).abs().max() < 1e-13
