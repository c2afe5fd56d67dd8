"""One table of pinned outputs, each number worked out on paper or by a formula in numpy, not by the code under test."""

import numpy as np
import pytest
import torch
from torch import nn

from poise._random import Key
from poise.data import Inputs
from poise.functional.losses import cross_entropy
from poise.methods import (
    EMA,
    L1,
    L2,
    METHODS,
    SWA,
    AlphaDropout,
    Batch,
    BatchNorm,
    Clock,
    Dropout,
    DropPath,
    EarlyStopping,
    FeatureMask,
    Forward,
    GaussianNoise,
    GradientClip,
    GroupLasso,
    LabelSmoothing,
    LayerNorm,
    MaxNorm,
    Mixup,
    Site,
    Weight,
    WeightDecay,
)

X = [[1.0, -2.0], [3.0, 4.0]]
KERNEL = [[3.0, 0.1], [4.0, -0.2]]
KEY = Key(3)
# The random numbers that the stochastic layers use at step 0, as plain arrays: what is tested is the formula on top.
KEPT = (KEY.keep_mask(2, 2, p=0.5) > 0).double().numpy()
ROWS_KEPT = (KEY.keep_mask(2, p=0.5) > 0).double().numpy()
NORMAL = KEY.normal(2, 2, dtype=torch.float64).numpy()


def layer(method, site):
    """Output of the method's layer on X in training."""
    found = method.layer(site).double().train()
    found.key = KEY
    return found(torch.tensor(X, dtype=torch.float64))


def update(method, lr=0.5):
    """The kernel after an update; its gradient is the kernel itself."""
    kernel = nn.Parameter(torch.tensor(KERNEL, dtype=torch.float64))
    kernel.grad = torch.tensor(KERNEL, dtype=torch.float64)
    bias = nn.Parameter(torch.ones(1, dtype=torch.float64))
    method.update({"kernel": Weight(kernel, "kernel"), "bias": Weight(bias, "bias")}, lr)
    assert bias.item() == 1.0
    return kernel.grad if isinstance(method, GradientClip) else kernel


def penalty(method):
    outputs = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    targets, weight = torch.eye(2, dtype=torch.float64), torch.tensor([0.5, 1.5], dtype=torch.float64)
    weights = {
        "kernel": Weight(torch.tensor(KERNEL, dtype=torch.float64), "kernel"),
        "bias": Weight(torch.full((9,), 1e3, dtype=torch.float64), "bias"),
    }
    return method.penalty(Forward(outputs, targets, weight, cross_entropy, 0.5, weights))


def transform(method):
    inputs = Inputs(torch.tensor(X, dtype=torch.float64), torch.tensor([[2], [3]]))
    batch = Batch(inputs, torch.eye(2, dtype=torch.float64), torch.tensor([0.5, 1.5], dtype=torch.float64))
    changed = method.transform(batch, KEY)
    assert torch.equal(batch.inputs.numeric, torch.tensor(X, dtype=torch.float64))
    return torch.cat((*changed.inputs, changed.targets, changed.weight[:, None]), dim=1)


def mixed(alpha):
    """Each row λ of its own and 1 - λ of its partner, λ the quantile of Beta at the stream's first number."""
    from scipy.stats import beta

    word = int(KEY.stream("lam").integers(2**31, 1))
    lam = beta(alpha, alpha).ppf((word + 0.5) / 2**31)
    partner = KEY.stream("partner").permutation(2).numpy()
    own = KEY.stream("cell").uniform(2, 1).numpy() < lam
    numeric, codes = np.array(X), np.array([[2], [3]])
    rest = np.array([[1, 0, 0.5], [0, 1, 1.5]])
    return np.hstack(
        [
            lam * numeric + (1 - lam) * numeric[partner],
            np.where(own, codes, codes[partner]),
            lam * rest + (1 - lam) * rest[partner],
        ]
    )


def hidden_cells(p):
    seen = (KEY.stream("numeric").keep_mask(2, 2, p=p) > 0).numpy()
    known = (KEY.stream("categorical").keep_mask(2, 1, p=p) > 0).numpy()
    return np.hstack([np.array(X) * seen, np.array([[2], [3]]) * known, [[1, 0, 0.5], [0, 1, 1.5]]])


def swa_rates(swa_start, steps):
    return [SWA(swa_start=swa_start).rate(Clock(step, epoch_steps=10, num_steps=100)) for step in steps]


HIDDEN, BRANCH, NORM = Site("hidden", 2), Site("branch", 2, depth=0.5), Site("norm", 2)
LAM, ALPHA = 1.0507009873554805, 1.6732632423543772
FLOOR = -LAM * ALPHA
A = (0.5 + FLOOR**2 * 0.25) ** -0.5
ROOT2 = 2**0.5
LOSS = np.log(1 + np.exp(-2))  # of logits (2, 0) against the first class; against the second it is 2 more

VALUES = [
    # Columns have mean 2 and 1, variance 1 and 9; rows have mean -0.5 and 3.5, variance 2.25 and 0.25.
    ("BatchNorm", lambda: layer(BatchNorm(eps=3.0), NORM), [[-1 / 2, -3 / 12**0.5], [1 / 2, 3 / 12**0.5]]),
    ("BatchNorm", lambda: layer(BatchNorm(eps=1e-12, affine=False), NORM), [[-1, -1], [1, 1]]),
    ("LayerNorm", lambda: layer(LayerNorm(eps=1.75), NORM), [[1.5 / 2, -1.5 / 2], [-0.5 / ROOT2, 0.5 / ROOT2]]),
    ("Dropout", lambda: layer(Dropout(p=0.5), HIDDEN), np.array(X) * KEPT * 2),
    ("Dropout", lambda: layer(Dropout(p=0.9, input_p=0.5), Site("input", 2)), np.array(X) * KEPT * 2),
    (
        "AlphaDropout",
        lambda: layer(AlphaDropout(p=0.5), HIDDEN),
        A * np.where(KEPT, X, FLOOR) - A * FLOOR * 0.5,
    ),
    ("DropPath", lambda: layer(DropPath(p=0.999), Site("branch", 2, depth=0.0)), X),
    ("DropPath", lambda: layer(DropPath(p=0.5), Site("branch", 2, depth=1.0)), np.array(X) * ROWS_KEPT[:, None] * 2),
    ("GaussianNoise", lambda: layer(GaussianNoise(std=0.3), Site("input", 2)), np.array(X) + 0.3 * NORMAL),
    ("L2", lambda: penalty(L2(strength=0.1)), 0.1 * (9 + 0.01 + 16 + 0.04)),
    # Row 1: logits equal, so both targets cost log 2. Row 2: the true class is the second, whose loss is LOSS + 2;
    # against (1/2, 1/2) it is LOSS + 1. So 0.2 · mean(0.5 · 0, 1.5 · (-1)).
    ("LabelSmoothing", lambda: penalty(LabelSmoothing(smoothing=0.2)), -0.15),
    ("Mixup", lambda: transform(Mixup(alpha=0.4)), mixed(0.4)),
    ("FeatureMask", lambda: transform(FeatureMask(p=0.5)), hidden_cells(0.5)),
    ("L1", lambda: update(L1(strength=0.3)), [[2.85, 0.0], [3.85, -0.05]]),
    # Inputs: norms 5 and sqrt(0.05) = 0.2236; the threshold is 0.5 · 1 · sqrt 2 = 0.7071.
    ("GroupLasso", lambda: update(GroupLasso(strength=1.0)), [[3 - 0.3 * ROOT2, 0], [4 - 0.4 * ROOT2, 0]]),
    ("WeightDecay", lambda: update(WeightDecay(weight_decay=0.2)), [[2.7, 0.09], [3.6, -0.18]]),
    (
        "MaxNorm",
        lambda: update(MaxNorm(max_norm=3.5)),
        [[3.0, 0.1], [4 * 3.5 / 16.04**0.5, -0.2 * 3.5 / 16.04**0.5]],
    ),
    ("GradientClip", lambda: update(GradientClip(max_norm=1.0)), np.array(KERNEL) / 25.05**0.5),
    ("GradientClip", lambda: update(GradientClip(max_norm=6.0)), KERNEL),
    ("EMA", lambda: EMA(decay=0.9).rate(Clock(2, 10, 100)), 1 - 3 / 12),
    ("EMA", lambda: EMA(decay=0.9).rate(Clock(500, 10, 1000)), 0.1),
    ("SWA", lambda: swa_rates(0.5, (50, 55, 60, 70, 80)), [0, 0, 1, 1 / 2, 1 / 3]),
    ("SWA", lambda: swa_rates(0.75, (70, 80, 90, 100)), [0, 1, 1 / 2, 1 / 3]),
    ("SWA", lambda: SWA(swa_start=0.57).rate(Clock(399, epoch_steps=7, num_steps=700)), 0),
    ("SWA", lambda: SWA(swa_start=0.57).rate(Clock(406, epoch_steps=7, num_steps=700)), 1),
    (
        "EarlyStopping",
        lambda: [EarlyStopping(patience=2).should_stop([3.0, 1.0, 2.0, 1.0, 0.5][:epoch]) for epoch in range(6)],
        [0, 0, 0, 0, 1, 0],
    ),
    ("EarlyStopping", lambda: EarlyStopping(patience=1, min_delta=0.1).should_stop([1.0, 0.95]), 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "compute", "expected"), VALUES, ids=[name for name, *_ in VALUES])
def test_pinned_values(name, compute, expected):
    found = torch.as_tensor(compute(), dtype=torch.float64).detach()
    torch.testing.assert_close(found, torch.as_tensor(np.asarray(expected, dtype=np.float64)), rtol=1e-6, atol=1e-7)


def test_the_table_is_complete():
    assert {name for name, *_ in VALUES} == set(METHODS)
    assert BRANCH.depth * 0.4 == DropPath(p=0.4).layer(BRANCH).p
    assert 0 < KEPT.sum() < 4
    assert KEY.stream("partner").permutation(2).tolist() == [1, 0]
    assert ROWS_KEPT.sum() == 1
