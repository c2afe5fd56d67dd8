"""Where torch has the same layer or step, ours gives the same numbers, in float64."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poise._random import Key
from poise.functional.losses import binary_cross_entropy, cross_entropy
from poise.methods import Forward, GradientClip, LabelSmoothing, MaxNorm, Weight, WeightDecay
from poise.nn import AlphaDropout, BatchNorm, CategoricalEmbedding, Dropout, LayerNorm, Linear
from poise.recipe import AdamW
from poise.train import adam_step

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scatter_(layer):
    """Random parameters, so that no scale or shift is trivial."""
    for index, parameter in enumerate(layer.parameters()):
        parameter.data = randn(*parameter.shape, seed=100 + index)
    return layer


def gradients(layer, x):
    """Output, gradient of the input and of the parameters, for a fixed cotangent."""
    x = x.clone().requires_grad_()
    out = layer(x)
    found = torch.autograd.grad((out * randn(*out.shape, seed=9)).sum(), [x, *layer.parameters()])
    return [out, *found]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_batch_norm(affine, momentum):
    ours = scatter_(BatchNorm(5, eps=1e-3, momentum=momentum, affine=affine).double())
    theirs = nn.BatchNorm1d(5, eps=1e-3, momentum=momentum, affine=affine).double()
    theirs.load_state_dict(ours.state_dict())
    for seed, rows in enumerate((8, 2, 31)):
        x = 3 * randn(rows, 5, seed=seed) + 10
        assert_same(gradients(ours, x), gradients(theirs, x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert_same(ours.state_dict().values(), theirs.state_dict().values())
    assert ours.num_batches_tracked == 3
    x = randn(7, 5, seed=8)
    assert_same(gradients(ours.eval(), x), gradients(theirs.eval(), x))
    BatchNorm(5, affine=affine).load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(affine):
    ours = scatter_(LayerNorm(5, eps=1e-3, affine=affine).double())
    theirs = nn.LayerNorm(5, eps=1e-3, elementwise_affine=affine).double()
    theirs.load_state_dict(ours.state_dict())
    for x in (randn(8, 5), randn(1, 5), randn(2, 3, 5) + 1e3):
        assert_same(gradients(ours, x), gradients(theirs, x))


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias):
    ours, theirs = Linear(4, 3, bias=bias, key=Key(1)).double(), nn.Linear(4, 3, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    assert_same(gradients(ours, randn(6, 4)), gradients(theirs, randn(6, 4)))
    ours.load_state_dict(nn.Linear(4, 3, bias=bias).state_dict())


def test_initial_weights_of_linear_have_the_law_of_torch():
    torch.manual_seed(0)
    ours, theirs = Linear(64, 1000, key=Key(2)), nn.Linear(64, 1000)
    for name in ("weight", "bias"):
        one, other = getattr(ours, name).detach(), getattr(theirs, name).detach()
        assert one.abs().max() <= 1 / 8
        assert one.std() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)
        assert one.std() == pytest.approx(float(other.std()), rel=0.1)


def test_embedding_tables():
    ours = CategoricalEmbedding((4, 9), max_dim=3, key=Key(0)).double()
    codes = torch.tensor([[0, 8], [3, 1], [3, 8]])
    tables = [ours.tables[0].weight, ours.tables[1].weight]
    expected = torch.cat([F.embedding(codes[:, index], table) for index, table in enumerate(tables)], dim=1)
    assert [tuple(table.shape) for table in tables] == [(4, 2), (9, 3)]
    torch.testing.assert_close(ours(codes), expected, rtol=0, atol=0)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.95)])
def test_adam_and_decay_are_adamw(betas):
    ours, theirs = randn(30, seed=1).reshape(5, 6), nn.Parameter(randn(30, seed=1).reshape(5, 6))
    config = AdamW(beta1=betas[0], beta2=betas[1], eps=1e-6)
    decay = WeightDecay(weight_decay=0.3)
    adam = torch.optim.AdamW([theirs], lr=0.05, betas=betas, eps=1e-6, weight_decay=0.3)
    exp_avg, exp_avg_sq = torch.zeros(30, dtype=torch.float64), torch.zeros(30, dtype=torch.float64)
    by_vector, moments = ours.flatten().clone(), (exp_avg.clone(), exp_avg_sq.clone())
    rates = torch.full((30,), 0.05, dtype=torch.float64)
    for step in range(1, 21):
        grad = randn(30, seed=50 + step) * 10.0 ** (step % 5 - 3)
        theirs.grad = grad.reshape(5, 6).clone()
        adam.step()
        decay.update({"w": Weight(ours, "kernel")}, lr=0.05)
        adam_step(ours.view(-1), grad, exp_avg, exp_avg_sq, step=step, lr=0.05, config=config)
        decay.update({"w": Weight(by_vector, "kernel")}, lr=0.05)
        adam_step(by_vector, grad, *moments, step=step, lr=rates, config=config)
        assert_same([ours, by_vector.view(5, 6)], [theirs.detach()] * 2)


@pytest.mark.parametrize("bound", [0.1, 2.0, 1e4])
def test_gradient_clip_is_clip_grad_norm(bound):
    ours, theirs = ([nn.Parameter(randn(3, 4)), nn.Parameter(randn(5)), nn.Parameter(randn(2))] for _ in range(2))
    for group in (ours, theirs):
        group[0].grad, group[1].grad = randn(3, 4, seed=1), randn(5, seed=2)
    GradientClip(max_norm=bound).update({str(at): Weight(one, "kernel") for at, one in enumerate(ours)}, lr=0.1)
    torch.nn.utils.clip_grad_norm_(theirs, bound)
    assert ours[2].grad is None
    for one, other in zip(ours[:2], theirs[:2], strict=True):  # torch adds 1e-6 to the norm
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=0)


def test_max_norm_is_renorm():
    kernels = [randn(6, 4, seed=1), randn(3, 2, 5, seed=2), randn(1, 1, seed=3)]
    for kernel in kernels:
        expected = torch.renorm(kernel, p=2, dim=0, maxnorm=1.2)
        MaxNorm(max_norm=1.2).update({"w": Weight(kernel, "kernel")}, lr=0.1)
        torch.testing.assert_close(kernel, expected, rtol=1e-6, atol=0)  # torch adds 1e-7 to the norm


def test_losses_and_label_smoothing():
    logits, codes = 3 * randn(20, 4), torch.arange(20) % 4
    targets = F.one_hot(codes, 4).double()
    expected = F.cross_entropy(logits, codes, label_smoothing=0.3)
    forward = Forward(logits, targets, torch.ones(20).double(), cross_entropy, 1 / 4, {})
    smoothed = cross_entropy(logits, targets).mean() + LabelSmoothing(smoothing=0.3).penalty(forward)
    one, soft = logits[:, :1], torch.sigmoid(randn(20, 1, seed=4))
    two_sided = F.binary_cross_entropy_with_logits(one, soft, reduction="none").squeeze(-1)
    assert_same([smoothed, binary_cross_entropy(one, soft)], [expected, two_sided])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_has_the_variance_of_theory(p):
    num = 400_000
    out = Dropout(p, key=Key(3)).train()(torch.ones(num, dtype=torch.float64))
    sigma = math.sqrt(p / (1 - p))
    assert float(out.mean()) == pytest.approx(1, abs=4 * sigma / math.sqrt(num))
    assert float(out.var()) == pytest.approx(p / (1 - p), rel=0.03)
    assert sorted(out.unique().tolist()) == pytest.approx([0, 1 / (1 - p)], rel=1e-4)


@pytest.mark.parametrize("p", [0.05, 0.3])
def test_alpha_dropout_keeps_mean_and_variance(p):
    num = 400_000
    torch.manual_seed(0)
    out = AlphaDropout(p, key=Key(4)).train()(randn(num))
    assert float(out.mean()) == pytest.approx(0, abs=5 / math.sqrt(num))
    assert float(out.var()) == pytest.approx(1, abs=0.02)
    dropped = nn.functional.alpha_dropout(torch.full((1000,), 7.0, dtype=torch.float64), p, training=True).min()
    assert float(AlphaDropout(p, key=Key(4))(torch.full((1000,), 7.0).double()).min()) == pytest.approx(
        float(dropped), abs=1e-4
    )
