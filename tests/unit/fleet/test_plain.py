"""The plain engine: exact resume, the same as a loop written by hand, honest scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from poise.data import Encoder
from poise.fleet import PlainEngine
from poise.methods import (
    EMA,
    L1,
    L2,
    SWA,
    BatchNorm,
    Dropout,
    EarlyStopping,
    FeatureMask,
    GaussianNoise,
    GradientClip,
    LabelSmoothing,
    MaxNorm,
    Mixup,
    WeightDecay,
)
from poise.recipe import AdamW, Budget, Constant, CosLog, FlatCosine, Network, Recipe
from poise.train import Predictor, State, batch_bounds, build_network

from ._tables import TASKS, make_dataset, make_plan

ENGINE = PlainEngine()
NETWORK = Network(width=16, depth=2, num_bins=4)
BUDGET = Budget(max_epochs=6, batch_size=16)
EVERYTHING = (
    BatchNorm(),
    Dropout(p=FlatCosine(0.3), input_p=0.1),
    GaussianNoise(std=0.05),
    L2(strength=1e-4),
    Mixup(alpha=0.3),
    FeatureMask(p=0.1),
    WeightDecay(weight_decay=FlatCosine(0.02)),
    MaxNorm(max_norm=2.0),
    GradientClip(max_norm=1.0),
    EMA(decay=0.9),
    EarlyStopping(patience=5),
)


def train(plan, data, until_epoch=10**6):
    states = ENGINE.start([plan], data)
    ENGINE.advance([plan], states, data, until_epochs=[until_epoch], on_epoch=lambda *_: True)
    return states[0]


@pytest.mark.parametrize("kind", TASKS)
def test_resumed_training_is_bit_equal(kind, tmp_path):
    from poise.train import load_state, save_state

    data = make_dataset(kind)
    recipe = Recipe(methods=EVERYTHING, optimizer=AdamW(lr=CosLog(3e-3), bias_lr=0.3), budget=BUDGET, network=NETWORK)
    plan = make_plan(recipe, data, kind)
    straight = train(plan, data)
    halfway = train(plan, data, until_epoch=2)
    save_state(halfway, tmp_path, "plan-0")
    resumed = load_state(tmp_path, "plan-0")
    ENGINE.advance([plan], [resumed], data, until_epochs=[10**6], on_epoch=lambda *_: True)
    assert straight.tensors.keys() == resumed.tensors.keys()
    for name, tensor in straight.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    untimed = [replace(record, seconds=0) for record in straight.history]
    assert untimed == [replace(record, seconds=0) for record in resumed.history]


def test_training_does_not_depend_on_global_random_numbers():
    data = make_dataset()
    plan = make_plan(Recipe(methods=EVERYTHING, budget=BUDGET, network=NETWORK), data)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = train(plan, data)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first.tensors["served"], train(plan, data).tensors["served"])
    assert not torch.equal(first.tensors["served"], train(replace(plan, seed=4), data).tensors["served"])


def test_equals_a_loop_written_by_hand():
    """Decay, smoothing and L2 against torch.optim.AdamW and F.cross_entropy in float64."""
    data = make_dataset("multiclass")
    methods = (WeightDecay(weight_decay=0.1), LabelSmoothing(smoothing=0.2), L2(strength=1e-3))
    optimizer = AdamW(lr=Constant(1e-2), beta2=0.95)
    recipe = Recipe(methods=methods, optimizer=optimizer, budget=BUDGET, network=NETWORK)
    plan = make_plan(recipe, data, "multiclass", dtype=torch.float64)
    state = train(plan, data)

    encoder = Encoder.from_state(*ENGINE.start([plan], data)[0].encoder_state())
    network = build_network(recipe, encoder, plan.task, key=plan.key, dtype=torch.float64).network
    inputs = encoder.transform(data.table[plan.train_rows], dtype=torch.float64)
    target = torch.from_numpy(data.target[plan.train_rows]).long()
    kernels = [one.weight for one in network.modules() if isinstance(one, torch.nn.Module) and _is_linear(one)]
    rest = [one for one in network.parameters() if all(one is not kernel for kernel in kernels)]
    groups = [{"params": kernels, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    for epoch in range(BUDGET.max_epochs):
        order = plan.key.stream("order").at(epoch).permutation(len(target))
        for start, end in batch_bounds(len(target), BUDGET.batch_size):
            rows = order[start:end]
            loss = F.cross_entropy(network(inputs.take(rows)), target[rows], label_smoothing=0.2)
            loss = loss + 1e-3 * sum(kernel.square().sum() for kernel in kernels)
            adam.zero_grad()
            loss.backward()
            adam.step()
    by_hand = torch.cat([one.detach().flatten() for one in network.parameters()])
    torch.testing.assert_close(state.tensors["weights"], by_hand, rtol=1e-9, atol=1e-12)


def _is_linear(module):
    return getattr(module, "weight", None) is not None and module.weight.ndim == 2 and hasattr(module, "in_features")


def test_scores_are_those_of_the_network_that_predicts():
    data = make_dataset("regression")
    plan = make_plan(Recipe(methods=EVERYTHING, budget=BUDGET, network=NETWORK), data, "regression")
    state = train(plan, data)
    for rows, recorded in ((plan.train_rows, state.best.train_loss), (plan.val_rows, state.best.val_loss)):
        predicted = Predictor(plan.recipe, plan.task, state).predict(data.table[rows]).numpy()
        loss = np.mean((predicted - data.target[rows]) ** 2) / state.target_scale**2
        assert recorded == pytest.approx(loss, rel=1e-4)


def test_statistics_that_predict_are_those_of_the_population():
    data = make_dataset(num_rows=67)
    plan = make_plan(Recipe(methods=(BatchNorm(), SWA()), budget=BUDGET, network=NETWORK), data)
    network = Predictor(plan.recipe, plan.task, train(plan, data)).network
    seen = {}
    for name, module in network.named_modules():
        if hasattr(module, "running_mean"):
            module.register_forward_pre_hook(lambda layer, args, name=name: seen.update({name: (layer, args[0])}))
    encoder = Encoder.from_state(*ENGINE.start([plan], data)[0].encoder_state())
    network(encoder.transform(data.table[plan.train_rows], dtype=torch.float64))
    assert len(seen) == NETWORK.depth
    for layer, x in seen.values():
        torch.testing.assert_close(layer.running_mean, x.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.running_var, x.var(0, correction=0), rtol=1e-5, atol=1e-5)


def test_best_epoch_predicts_only_if_the_recipe_stops_early():
    data = make_dataset()
    overfit = Recipe(optimizer=AdamW(lr=Constant(0.03)), budget=Budget(max_epochs=25, batch_size=16), network=NETWORK)
    assert train(make_plan(overfit, data), data).best_epoch == 25
    state = train(make_plan(replace(overfit, methods=(EarlyStopping(patience=3),)), data), data)
    assert state.stopped == "early"
    assert state.best_epoch == 1 + int(np.argmin([record.val_loss for record in state.history]))


def test_non_finite_training_is_stopped_and_leaves_others_alone():
    data = make_dataset("regression")
    good = make_plan(Recipe(budget=BUDGET, network=NETWORK), data, "regression")
    wild = Recipe(optimizer=AdamW(lr=Constant(100.0)), methods=(L2(strength=1e38),), budget=BUDGET)
    bad = make_plan(replace(wild, network=NETWORK), data, "regression")
    states = ENGINE.start([bad, good], data)
    ENGINE.advance([bad, good], states, data, until_epochs=[6, 6], on_epoch=lambda *_: True)
    assert states[0].stopped == "non-finite"
    assert torch.equal(states[1].tensors["served"], train(good, data).tensors["served"])


def test_l1_gives_exact_zeros():
    data = make_dataset()
    recipe = Recipe(methods=(L1(strength=0.5),), optimizer=AdamW(lr=Constant(1e-2)), budget=BUDGET, network=NETWORK)
    assert float((train(make_plan(recipe, data), data).tensors["weights"] == 0).float().mean()) > 0.1


def test_a_single_leftover_row_and_a_single_training_row_train():
    data = make_dataset(num_rows=33)
    for rows in (np.arange(17), np.arange(1)):
        recipe = Recipe(methods=(BatchNorm(),), budget=Budget(max_epochs=2, batch_size=16), network=NETWORK)
        state = train(replace(make_plan(recipe, data), train_rows=rows), data)
        assert isinstance(state, State)
        assert np.isfinite(state.val_loss)
