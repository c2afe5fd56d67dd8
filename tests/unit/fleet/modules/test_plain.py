"""The plain loop is an ordinary loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from poise import ConfigError, TrainingError, apply, recalibrate
from poise.fleet.modules import ModuleState, PlainLoop
from poise.methods import EMA, L2, BatchNorm, Dropout, EarlyStopping, LabelSmoothing, MaxNorm, Mixup, WeightDecay

from ._models import conv, cross_entropy, difference, job, mlp, recipe, rows, trained_alone


def by_hand(work, one, epochs):
    """What a user would write: `poise.apply`, Adam, a loop."""
    model = work.make()
    x, y = work.train.x, work.train.y
    bounds = [(at, min(at + 16, len(y))) for at in range(0, len(y), 16)]
    total = len(bounds) * work.max_epochs
    regimen = apply(one, model, example=x[:8], num_steps=total, epoch_steps=len(bounds), seed=work.seed)
    optimizer = torch.optim.Adam(regimen.param_groups(lr=1.0))
    for epoch in range(epochs):
        order = work.key.stream("order").at(epoch).permutation(len(y))
        for start, end in bounds:
            for group in optimizer.param_groups:
                group["lr"] = one.optimizer.lr.at(regimen.num_steps_done / total)
            batch, targets = regimen.batch(x[order[start:end]], y[order[start:end]])
            outputs = model(batch)
            (cross_entropy(outputs, targets) + regimen.penalty(outputs, targets)).backward()
            regimen.step(optimizer)
            optimizer.zero_grad()
    return model, regimen


@torch.no_grad()
def score(model, part):
    return float(cross_entropy(model(part.x), part.y))


def bare():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2)).double()


METHODS = [
    (), (Dropout(p=0.2), WeightDecay(weight_decay=0.1)), (L2(strength=0.01), LabelSmoothing(smoothing=0.1)),
    (Mixup(alpha=0.3), MaxNorm(max_norm=1.0)), (BatchNorm(), EMA(decay=0.8)),
]  # fmt: skip


@pytest.mark.parametrize(
    "methods", METHODS, ids=lambda methods: "-".join(type(one).__name__ for one in methods) or "none"
)
def test_it_is_the_loop_of_a_user(methods):
    work, one = job(bare), recipe(*methods)
    state = trained_alone(work, one)
    model, regimen = by_hand(work, one, 3)
    for name, parameter in model.named_parameters():
        assert torch.allclose(state.tensors[f"weights/{name}"], parameter, rtol=1e-9, atol=1e-12)
    regimen.finish([work.train.x])  # averages become the weights, statistics those of all rows
    assert state.val_losses[-1] == pytest.approx(score(model.eval(), work.val), rel=1e-10)


def test_statistics_are_those_of_all_training_rows():
    work, one = job(conv, max_epochs=1), recipe()
    state = trained_alone(work, one)
    loop = PlainLoop(work, one, ModuleState())
    loop.built.load(state.tensors, "best.")
    found = loop.model[2].running_mean.clone()
    recalibrate(loop.model, [work.train.x])
    assert torch.allclose(found, loop.model[2].running_mean, rtol=1e-12)


def test_scores_leave_the_training_as_it_was():
    work, one = job(conv, max_epochs=2), recipe(EMA(decay=0.5))
    loop = PlainLoop(work, one, ModuleState())
    loop.run_epoch()
    kept = {name: tensor.clone() for name, tensor in loop.built.tensors().items()}
    assert kept.keys() <= loop.state.tensors.keys()
    assert all(torch.equal(kept[name], loop.state.tensors[name]) for name in kept)
    assert not torch.equal(kept["weights/1.weight"], loop.state.tensors["best.weights/1.weight"])
    assert all(module.training for module in loop.model.modules())


@pytest.mark.parametrize(
    "methods", [(), (Dropout(p=0.2), EMA(decay=0.9)), (BatchNorm(), Mixup())], ids=["bare", "ema", "bn"]
)
def test_it_goes_on_bit_for_bit(methods):
    work, one = job(max_epochs=4), recipe(*methods)
    state = trained_alone(work, one, until=2)
    resumed = PlainLoop(work, one, state)
    while not state.stopped:
        resumed.run_epoch()
    straight = trained_alone(work, one)
    assert straight.val_losses == state.val_losses
    assert difference(straight.tensors, state.tensors) == 0
    assert straight.counters == state.counters


def test_same_seed_same_result_and_another_seed_another():
    one = recipe(Dropout(p=0.3))
    first, again, other = (trained_alone(job(seed=seed), one).val_losses for seed in (1, 1, 2))
    assert first == again != other


def test_what_the_model_draws_itself_is_repeated():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 2)

        def forward(self, x):
            return self.linear(x + torch.randn_like(x) if self.training else x)

    losses = []
    for waste in (0, 3):
        torch.rand(waste)
        losses.append(trained_alone(job(lambda: Noisy().double()), recipe()).val_losses)
    assert losses[0] == losses[1]


def test_augmentations_are_repeated_also_where_a_training_goes_on():
    class Jittered(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, row):
            x, y = rows(40, 0)
            return x[row] + 0.1 * torch.randn(6, dtype=x.dtype), y[row]

    sources = (Jittered(), DataLoader(Jittered(), 16, shuffle=True))
    for source in sources:
        work = job(train=source, max_epochs=3)
        straight = trained_alone(work, recipe(BatchNorm()))
        half = trained_alone(work, recipe(BatchNorm()), until=1)
        loop = PlainLoop(work, recipe(BatchNorm()), half)
        torch.rand(5)
        while not half.stopped:
            loop.run_epoch()
        assert half.val_losses == straight.val_losses


def test_the_global_generator_stays_as_it_was():
    torch.rand(1)
    before = torch.get_rng_state()
    trained_alone(job(), recipe(Dropout(p=0.1)))
    assert torch.equal(before, torch.get_rng_state())


def test_numbers_that_are_not_finite_end_it():
    bad = job(
        loss=lambda outputs, y: (
            cross_entropy(outputs, y) * torch.where(outputs.detach().abs().max() > 1e-9, float("nan"), 1)
        )
    )
    state = trained_alone(bad, recipe())
    assert (state.stopped, state.val_losses, state.best_epoch) == ("non-finite", [], 0)


def test_the_best_epoch_predicts():
    work = job(max_epochs=5)
    state = trained_alone(work, recipe(EarlyStopping(patience=2), lr=0.5))
    assert state.best_epoch == 1 + state.val_losses.index(min(state.val_losses))
    loop = PlainLoop(work, recipe(lr=0.5), ModuleState())
    loop.built.load(state.tensors, "best.")
    loop.model.eval()
    assert score(loop.model, work.val) == pytest.approx(min(state.val_losses), rel=1e-12)


def test_validation_is_a_mean_over_rows_whatever_the_batches():
    work = job(val=rows(257, 1), max_epochs=1)  # a batch of 256 and one row
    state = trained_alone(work, recipe())
    loop = PlainLoop(work, recipe(), ModuleState())
    loop.built.load(state.tensors, "best.")
    loop.model.eval()
    assert len(state.best_parts) == 2
    assert state.val_losses[0] == pytest.approx(score(loop.model, work.val), rel=1e-12)


def test_errors_of_the_model_are_told():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 2).double()

        def forward(self, x):
            if self.training:
                raise ValueError("as it happens")
            return self.linear(x)

    with pytest.raises(TrainingError, match=r"failed in a training: ValueError: as it happens.*Try one batch by hand"):
        trained_alone(job(Fails), recipe())


def test_weights_that_are_shared_between_trials_are_refused():
    model = mlp()
    work = job(lambda: model)
    work.make()
    with pytest.raises(ConfigError, match="weights that it has returned before"):
        work.make()


def test_a_factory_that_makes_no_module_is_refused():
    with pytest.raises(ConfigError, match=r"`factory` must return a torch\.nn\.Module, but returned int"):
        job(lambda: 3).make()


def test_a_model_in_eval_mode_trains():
    assert job(lambda: mlp().eval()).make().training
