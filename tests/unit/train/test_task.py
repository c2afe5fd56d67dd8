"""Tasks: losses, predictions and scores against scikit-learn and torch."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, r2_score
from torch.nn import functional as F

from poise.train import Binary, Multiclass, Regression, rows_of_members

TASKS = [Binary(), Multiclass(2), Multiclass(4), Regression()]


def make(task, rows=200):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(rows, task.num_outputs, dtype=torch.float64, generator=generator)
    values = torch.randn(rows, dtype=torch.float64, generator=generator) + outputs[:, 0]
    if task.kind != "regression":
        values = torch.arange(rows).remainder(2 if task.kind == "binary" else task.num_outputs).double()
    weight = torch.rand(rows, dtype=torch.float64, generator=generator) * (torch.arange(rows) % 5 > 0)
    return outputs, values, weight


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_scores_are_those_of_scikit_learn(task):
    outputs, values, weight = make(task)
    found = task.score(outputs, task.targets(values), weight)
    predicted = task.predict(outputs).numpy()
    if task.kind == "regression":
        expected = r2_score(values, predicted, sample_weight=weight)
    else:
        expected = accuracy_score(values, predicted.argmax(1), sample_weight=weight)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("task", TASKS[:3], ids=repr)
def test_losses_are_the_log_loss_of_the_predictions(task):
    outputs, values, weight = make(task)
    losses = task.row_losses(outputs, task.targets(values))
    predicted = task.predict(outputs)
    assert losses.shape == (200,)
    torch.testing.assert_close(predicted.sum(1), torch.ones(200, dtype=torch.float64))
    expected = log_loss(values, predicted.numpy(), sample_weight=weight)
    assert float((losses * weight).sum() / weight.sum()) == pytest.approx(expected)


def test_regression_loss_is_the_squared_error():
    outputs, values, _ = make(Regression())
    losses = Regression().row_losses(outputs, Regression().targets(values))
    torch.testing.assert_close(losses, (outputs.squeeze(1) - values).square())


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_shapes_and_the_neutral_target(task):
    outputs, values, _ = make(task, rows=8)
    assert task.targets(values).shape == outputs.shape == (8, task.num_outputs)
    assert task.targets(values.float()).dtype == torch.float32
    assert task.neutral == {"binary": 0.5, "multiclass": 1 / task.num_outputs, "regression": None}[task.kind]
    if task.kind == "multiclass":
        assert torch.equal(task.targets(values), F.one_hot(values.long(), task.num_classes).double())


def test_the_neutral_target_of_two_classes_says_nothing():
    zeros = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    loss = Binary().row_losses(zeros, torch.full((1, 1), Binary().neutral, dtype=torch.float64))
    assert torch.autograd.grad(loss.sum(), zeros)[0].item() == 0


def test_r2_of_a_constant_target():
    targets, weight = torch.full((3, 1), 2.0), torch.ones(3)
    assert Regression().score(targets.clone(), targets, weight) == 1.0
    assert Regression().score(targets + 0.1, targets, weight) == 0.0


def test_extreme_logits_predict_certainty_and_sum_to_one():
    for logit in (-1e4, 1e4):
        both = Binary().predict(torch.tensor([[logit]]))
        assert sorted(both.flatten().tolist()) == [0.0, 1.0]
    many = Multiclass(3).predict(torch.tensor([[1e4, -1e4, 0.0]]))
    assert np.isfinite(many.numpy()).all()
    assert many.tolist() == [[1.0, 0.0, 0.0]]


def test_tasks_are_values():
    assert Binary() == Binary() != Regression()
    assert len({Multiclass(3), Multiclass(3), Multiclass(4)}) == 2


@pytest.mark.parametrize("task", TASKS, ids=repr)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_average_of_members_predicts_the_mean_of_their_predictions(task, scale):
    generator = torch.Generator().manual_seed(0)
    outputs = scale * torch.randn(50, 6, task.num_outputs, dtype=torch.float64, generator=generator)
    outputs = outputs - scale if task.kind == "binary" else outputs  # all members sure of the same
    expected = torch.stack([task.predict(outputs[:, k]) for k in range(6)]).mean(dim=0)
    torch.testing.assert_close(task.predict(task.average(outputs)), expected)
    alike = outputs[:, :1].expand(-1, 6, -1)
    torch.testing.assert_close(task.predict(task.average(alike)), task.predict(outputs[:, 0]))


def test_average_of_members_that_are_too_sure_is_finite():
    outputs = torch.tensor([[[-900.0], [-1000.0]], [[900.0], [1000.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        Binary().average(outputs).flatten(), torch.tensor([-900.0, 900.0]).double(), atol=1, rtol=0
    )


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_the_loss_of_members_is_the_mean_of_their_losses(task):
    _, values, weight = make(task, rows=20)
    targets = task.targets(values)
    outputs = torch.randn(20, 6, task.num_outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = [(task.row_losses(outputs[:, k], targets) * weight).mean() for k in range(6)]
    flat, spread, weights = rows_of_members(outputs, targets, weight)
    torch.testing.assert_close((task.row_losses(flat, spread) * weights).mean(), torch.stack(own).mean())
    assert rows_of_members(outputs[:, 0], targets, weight)[1] is targets
