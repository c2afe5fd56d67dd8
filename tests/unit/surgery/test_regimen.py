"""The regimen in a loop: each part equals what it stands for, written out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import poise
from poise import AdamW, ConfigError, DataError, PoiseWarning, Recipe
from poise.functional.schedule import Linear
from poise.methods import (
    EMA,
    L1,
    L2,
    SWA,
    BatchNorm,
    Dropout,
    EarlyStopping,
    FeatureMask,
    GradientClip,
    GroupLasso,
    LabelSmoothing,
    MaxNorm,
    Mixup,
    WeightDecay,
)

from .test_insert import mlp

X, Y = torch.linspace(-2, 2, 64).reshape(16, 4), torch.arange(16) % 2


def start(*methods, model=None, optimizer=None, lr=0.1, **settings):
    torch.manual_seed(0)
    model = model or mlp()
    recipe = Recipe(methods=methods, optimizer=optimizer or AdamW())
    regimen = poise.apply(recipe, model, example=X, **settings)
    return model, regimen, torch.optim.SGD(regimen.param_groups(lr=lr))


def backward(model, regimen):
    (functional.cross_entropy(model(X), Y) + regimen.penalty()).backward()


def test_groups_hold_every_trainable_parameter_once():
    model, regimen, _ = start(BatchNorm(), optimizer=AdamW(bias_lr=0.5))
    model[2].weight.requires_grad_(False)
    groups = regimen.param_groups(lr=0.2)
    held = [id(one) for group in groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in model.parameters() if one.requires_grad)
    assert {group["role"]: group["lr"] for group in groups} == {"kernel": 0.2, "bias": 0.1, "norm": 0.2}
    assert {group["weight_decay"] for group in groups} == {0.0}


def test_decay_is_that_of_torchs_adamw():
    model, regimen, _ = start(WeightDecay(weight_decay=0.3))
    twin = copy.deepcopy(model)
    ours = torch.optim.Adam(regimen.param_groups(lr=0.01))
    theirs = torch.optim.AdamW(poise.decay_groups(twin, 0.01, weight_decay=0.3))
    for _ in range(3):
        for network, step in ((model, lambda: regimen.step(ours)), (twin, theirs.step)):
            network.zero_grad()
            functional.cross_entropy(network(X), Y).backward()
            step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_each_group_decays_by_its_own_learning_rate():
    model, regimen, optimizer = start(
        WeightDecay(weight_decay=0.5, roles=("kernel", "bias")), optimizer=AdamW(bias_lr=0)
    )
    weight, bias = model[0].weight.clone(), model[0].bias.clone()
    for one in model.parameters():
        one.grad = torch.zeros_like(one)
    regimen.step(optimizer)
    torch.testing.assert_close(model[0].weight, weight * 0.95)
    assert model[0].bias.equal(bias)


def test_clipping_is_that_of_torch_over_all_groups():
    model, regimen, optimizer = start(GradientClip(max_norm=0.01), optimizer=AdamW(bias_lr=0.5))
    backward(model, regimen)
    expected = [one.grad.clone() for one in model.parameters()]
    norm = torch.stack([one.norm() for one in expected]).norm()
    regimen.before_step(optimizer)
    for one, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(one.grad, gradient * (0.01 / norm))


def test_projections_come_after_the_step():
    model, regimen, optimizer = start(MaxNorm(max_norm=0.5))
    backward(model, regimen)
    regimen.step(optimizer)
    assert all(one.weight.norm(dim=1).max() <= 0.5 + 1e-6 for one in model if isinstance(one, nn.Linear))


def test_transposed_kernels_are_bounded_by_their_output_units():
    model = nn.Sequential(nn.Unflatten(1, (4, 1)), nn.ConvTranspose1d(4, 3, 2), nn.Flatten(), nn.Linear(6, 2))
    model, regimen, optimizer = start(MaxNorm(max_norm=0.1), GroupLasso(strength=1e-9), model=model)
    backward(model, regimen)
    regimen.step(optimizer)
    norms = model[1].weight.transpose(0, 1).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((3,), 0.1))


def test_l1_makes_zeros():
    model, regimen, optimizer = start(L1(strength=3.0))
    backward(model, regimen)
    regimen.step(optimizer)
    assert (model[0].weight == 0).any()


def test_penalties_equal_their_formulas():
    model, regimen, _ = start(L2(strength=0.5))
    squares = sum(one.weight.square().sum() for one in model if isinstance(one, nn.Linear))
    torch.testing.assert_close(regimen.penalty(), 0.5 * squares)
    model, regimen, _ = start(LabelSmoothing(smoothing=0.2))
    outputs = model(X)
    loss = functional.cross_entropy(outputs, Y) + regimen.penalty(outputs, Y)
    torch.testing.assert_close(loss, functional.cross_entropy(outputs, Y, label_smoothing=0.2))
    maps, classes = torch.randn(2, 3, 4), torch.randint(3, (2, 4))
    smoothed = functional.cross_entropy(maps, classes) + regimen.penalty(maps, classes)
    torch.testing.assert_close(smoothed, functional.cross_entropy(maps, classes, label_smoothing=0.2))


def test_label_smoothing_needs_outputs():
    _, regimen, _ = start(LabelSmoothing())
    with pytest.raises(ConfigError, match=r"regimen.penalty\(outputs, targets\)"):
        regimen.penalty()
    with pytest.raises(ConfigError, match="do not fit outputs"):
        regimen.penalty(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64))


def test_accumulated_micro_batches_are_one_batch():
    gradients = []
    for parts in (1, 4):
        model, regimen, _ = start(L2(strength=0.1))
        for rows, classes in zip(X.chunk(parts), Y.chunk(parts), strict=True):
            ((functional.cross_entropy(model(rows), classes) + regimen.penalty()) / parts).backward()
        gradients.append([one.grad for one in model.parameters()])
    for whole, summed in zip(*gradients, strict=True):
        torch.testing.assert_close(summed, whole)


def test_mixing_makes_probabilities_and_repeats_with_its_seed():
    _, regimen, _ = start(Mixup(alpha=0.5))
    x, y = regimen.batch(X, Y)
    assert y.shape == (16, 2)
    torch.testing.assert_close(y.sum(1), torch.ones(16))
    assert not x.equal(X)
    _, again, _ = start(Mixup(alpha=0.5))
    assert again.batch(X, Y)[0].equal(x)
    assert not again.batch(X, Y)[0].equal(x)
    _, other, _ = start(Mixup(alpha=0.5), seed=1)
    assert not other.batch(X, Y)[0].equal(x)


def test_masking_leaves_the_targets():
    _, regimen, _ = start(FeatureMask(p=0.5))
    x, y = regimen.batch(X + 10, Y)
    assert y is Y
    assert 0.2 < (x == 0).float().mean() < 0.8
    images = torch.ones(4, 3, 5, 5)
    masked, nothing = regimen.batch(images)
    assert masked.shape == images.shape
    assert nothing is None


def test_batches_of_several_tensors_mix_with_one_pairing():
    _, regimen, _ = start(Mixup(alpha=0.5))
    rows = torch.arange(16.0)
    batch = {"a": rows.reshape(16, 1), "b": rows.reshape(16, 1, 1).expand(16, 2, 3).clone(), "on": Y.bool()}
    mixed, targets = regimen.batch(batch, rows)
    torch.testing.assert_close(mixed["b"][:, 0, 0], mixed["a"][:, 0])
    torch.testing.assert_close(targets, mixed["a"][:, 0])
    assert mixed["on"] is batch["on"]


def test_batches_that_cannot_be_mixed():
    _, regimen, _ = start(Mixup())
    with pytest.raises(DataError, match="rows on their first axis"):
        regimen.batch(X, Y[:3])
    with pytest.raises(DataError, match="no numbers"):
        regimen.batch({"on": Y.bool()}, Y)
    with pytest.raises(DataError, match=r"in \[0, 1\], but are in \[0, 2\]"):
        regimen.batch(X, torch.arange(16) % 3)
    model = mlp()
    unknown = poise.apply(Recipe(methods=(Mixup(),)), model)
    with pytest.raises(ConfigError, match="num_classes="):
        unknown.batch(X, Y)


def test_the_average_becomes_the_weights():
    model, regimen, optimizer = start(EMA(decay=0.5))
    average = {name: one.detach().clone() for name, one in model.named_parameters()}
    for step in range(1, 4):
        optimizer.zero_grad()
        backward(model, regimen)
        regimen.step(optimizer)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, one in model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * one.detach()
    assert regimen.finish() is model
    for name, one in model.named_parameters():
        torch.testing.assert_close(one.detach(), average[name])


def test_swa_is_the_mean_of_the_ends_of_epochs():
    model, regimen, optimizer = start(SWA(swa_start=0.5), num_steps=8, epoch_steps=2)
    ends = []
    for step in range(1, 9):
        optimizer.zero_grad()
        backward(model, regimen)
        regimen.step(optimizer)
        ends.extend([model[0].weight.detach().clone()] if step in (6, 8) else [])
    regimen.finish()
    torch.testing.assert_close(model[0].weight.detach(), torch.stack(ends).mean(0))


def test_finish_recalibrates_behind_the_average():
    model, regimen, optimizer = start(BatchNorm(), Dropout(p=0.3), EMA(decay=0.5))
    backward(model, regimen)
    regimen.step(optimizer)
    with pytest.warns(PoiseWarning, match="statistics are those of the last weights"):
        copy.deepcopy(regimen).finish()
    regimen.finish([(X, Y)])
    norm = model[0].poise_batch_norm
    torch.testing.assert_close(norm.running_mean, functional.linear(X, model[0].weight).mean(0))


def test_schedules_move_with_the_steps():
    model, regimen, optimizer = start(Dropout(p=Linear(0.1, end=0.3)), L2(strength=Linear(0.0, end=1.0)), num_steps=2)
    squares = sum(one.weight.square().sum() for one in model if isinstance(one, nn.Linear))
    assert regimen.penalty() == 0
    optimizer.param_groups[0]["lr"] = 0.0
    backward(model, regimen)
    regimen.step(optimizer)
    assert model[1].poise_dropout.p == pytest.approx(0.2)
    torch.testing.assert_close(regimen.penalty(), 0.5 * squares)


def test_a_step_that_the_scaler_skips_changes_nothing():
    model, regimen, optimizer = start(WeightDecay(weight_decay=0.5), MaxNorm(max_norm=0.1), EMA(decay=0.5))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = [one.detach().clone() for one in model.parameters()]
    scaler.scale(functional.cross_entropy(model(X), Y)).backward()
    model[0].weight.grad[0, 0] = math.inf
    regimen.step(optimizer, scaler=scaler)
    scaler.update()
    assert all(one.equal(other) for one, other in zip(model.parameters(), before, strict=True))
    assert regimen.num_steps_done == 0
    assert scaler.get_scale() == 2.0


def test_gradients_are_unscaled_before_they_are_clipped():
    outcomes = []
    for scale in (1.0, 1024.0):
        model, regimen, optimizer = start(GradientClip(max_norm=0.05))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(functional.cross_entropy(model(X), Y)).backward()
        regimen.step(optimizer, scaler=scaler)
        scaler.update()
        outcomes.append([one.detach() for one in model.parameters()])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other)
    scaler.scale(functional.cross_entropy(model(X), Y)).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(ConfigError, match="Leave unscaling"):
        regimen.step(optimizer, scaler=scaler)


def test_an_optimizer_that_does_not_fit_is_refused():
    model = mlp()
    old = torch.optim.SGD(model.parameters(), lr=0.1)
    _, regimen, _ = start(BatchNorm(), WeightDecay(), model=model)
    with pytest.raises(ConfigError, match=r"does not train parameter '0.poise_batch_norm.weight'"):
        regimen.step(old)
    with pytest.raises(ConfigError, match="decay twice"):
        regimen.step(torch.optim.AdamW(model.parameters()))


def test_stopping():
    _, regimen, _ = start(EarlyStopping(patience=2))
    assert not regimen.should_stop([1.0, 0.9])
    assert regimen.should_stop([1.0, 0.9, 0.95, 0.91])
    assert not start()[1].should_stop([1.0] * 50)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_loop_goes_on_as_if_nothing_had_been(stop):
    methods = (Dropout(p=Linear(0.5, end=0.1)), Mixup(alpha=0.4), EMA(decay=0.6), WeightDecay())

    def train(model, regimen, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            x, y = regimen.batch(X, Y)
            functional.cross_entropy(model(x), y).backward()
            regimen.step(optimizer)

    whole, regimen, optimizer = start(*methods, num_steps=5)
    train(whole, regimen, optimizer, 5)
    regimen.finish()
    first, regimen, optimizer = start(*methods, num_steps=5)
    train(first, regimen, optimizer, stop)
    saved = copy.deepcopy((first.state_dict(), regimen.state_dict(), optimizer.state_dict()))
    model, regimen, optimizer = start(*methods, num_steps=5)
    for part, state in zip((model, regimen, optimizer), saved, strict=True):
        part.load_state_dict(state)
    train(model, regimen, optimizer, 5 - stop)
    regimen.finish()
    assert all(one.equal(other) for one, other in zip(model.parameters(), whole.parameters(), strict=True))


def test_a_state_of_another_recipe_is_refused():
    state = start(Dropout())[1].state_dict()
    with pytest.raises(ConfigError, match="another recipe"):
        start(EMA())[1].load_state_dict(state)
    with pytest.raises(ConfigError, match="another recipe"):
        start()[1].load_state_dict(state)
    wide = start(EMA(decay=0.5), model=nn.Linear(4, 3))
    functional.cross_entropy(wide[0](X), Y).backward()
    wide[1].step(wide[2])
    with pytest.raises(ConfigError, match="another model"):
        start(EMA(decay=0.5), model=nn.Linear(4, 2))[1].load_state_dict(wide[1].state_dict())


def test_nothing_to_train():
    model = mlp().requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter that is trained"):
        poise.apply(Recipe(), model).param_groups(lr=0.1)


def test_rows_without_a_class_have_no_part_in_label_smoothing():
    model, regimen, _ = start(LabelSmoothing(smoothing=0.2))
    outputs = model(X)
    targets = Y.clone()
    targets[::3] = -100
    loss = functional.cross_entropy(outputs, targets) + regimen.penalty(outputs, targets)
    expected = functional.cross_entropy(outputs, targets, label_smoothing=0.2)
    assert torch.allclose(loss, expected)
    none = torch.full_like(Y, -100)
    assert float(regimen.penalty(outputs, none).detach()) == 0


def test_a_penalty_on_classes_can_be_mapped_over_models():
    _, regimen, _ = start(LabelSmoothing(smoothing=0.2))
    outputs = torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(0))
    mapped = torch.func.vmap(lambda one: regimen.penalty(one, Y))(outputs)
    assert torch.allclose(mapped, torch.stack([regimen.penalty(one, Y) for one in outputs]))


def test_a_step_that_was_made_elsewhere_counts():
    model, regimen, _ = start(Dropout(p=Linear(0.4, end=0.0)), num_steps=4)
    layer = next(one for one in model.modules() if isinstance(one, poise.nn.Dropout))
    regimen.count_step()
    assert regimen.num_steps_done == 1
    assert layer.p == pytest.approx(0.3)
