"""Distillation: soft targets exactly, and a student that agrees with its teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import ConfigError, DataError, DeepEnsemble, TrainingError, distill
from poise.ensemble._distill import _classes, _values
from poise.ensemble._job import Job
from poise.methods import L2
from poise.recipe import AdamW, Budget, Network, Recipe

from ._data import FIXED, KINDS, STOPPING, TASKS, make_data

LONG = Recipe(optimizer=AdamW(lr=2e-2), budget=Budget(60, 32), network=Network(width=16, depth=2))


def some_probabilities(num_rows, num_classes, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(num_classes), num_rows)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_repeated_rows_have_the_loss_and_gradient_of_soft_targets(kind, alpha):
    data, task = make_data(kind), TASKS[kind]
    data.weight[:] = np.random.default_rng(1).uniform(0.5, 2, 80)
    num_classes = max(2, task.num_outputs)
    taught = some_probabilities(80, num_classes)
    lesson = _classes(Job(data, task, FIXED), taught, alpha)
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(80, task.num_outputs, generator=draw, dtype=torch.float64, requires_grad=True)
    copies = lesson.job.data
    targets = task.targets(torch.from_numpy(copies.target))
    losses = task.row_losses(outputs[torch.from_numpy(lesson.origin)], targets)
    repeated = (losses * torch.from_numpy(copies.weight)).sum() / copies.weight.sum()
    soft = (1 - alpha) * taught + alpha * np.eye(num_classes)[data.target.astype(int)]
    soft = np.where(soft < 1e-3, 0, soft)
    soft = torch.from_numpy(soft / soft.sum(1, keepdims=True))
    soft = soft[:, 1:] if kind == "binary" else soft
    direct = (task.row_losses(outputs, soft) * torch.from_numpy(data.weight)).sum() / data.weight.sum()
    assert repeated.item() == pytest.approx(direct.item())
    torch.testing.assert_close(*(torch.autograd.grad(one, outputs)[0] for one in (repeated, direct)))
    if alpha == 1.0:
        assert (copies.target == data.target[lesson.origin]).all()
        assert len(copies.target) == 80


def test_numbers_are_mixed():
    data = make_data("regression")
    lesson = _values(Job(data, TASKS["regression"], FIXED), np.zeros(80), 0.25)
    np.testing.assert_allclose(lesson.job.data.target, 0.25 * data.target)


def test_an_epoch_has_as_many_steps_as_without_copies():
    data = make_data("multiclass", num_rows=160)
    student = distill(some_probabilities(160, 3), data, TASKS["multiclass"], FIXED)
    plan, state = student.member.plan, student.member.state
    assert len(plan.train_rows) > 300
    assert state.step == FIXED.budget.max_epochs * 128 // FIXED.budget.batch_size
    default = replace(FIXED, budget=Budget(None, 64))
    plan = distill(some_probabilities(160, 3), data, TASKS["multiclass"], default).member.plan
    assert plan.max_epochs == default.budget.epochs_for(128)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_learns_what_the_teacher_says_and_not_the_labels(kind):
    data, task = make_data(kind, num_rows=240), TASKS[kind]
    teacher = DeepEnsemble(num_members=3).train(data, task, replace(LONG, budget=Budget(20, 32))).predictor
    wrong = make_data(kind, num_rows=240)
    rng = np.random.default_rng(0)
    wrong.target[:] = rng.permutation(wrong.target)
    student = distill(teacher, wrong, task, LONG)
    constant = distill(teacher, wrong, task, LONG, alpha=1.0)
    assert student.disagreement < 0.1
    assert student.disagreement < 0.2 * constant.disagreement
    assert student.seconds > 0
    assert 3 * student.num_parameters == sum(one.state.tensors["served"].numel() for one in teacher.members)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_the_validation_rows(kind):
    data, task = make_data(kind), TASKS[kind]
    teacher = DeepEnsemble(num_members=2).train(data, task, FIXED).predictor
    student = distill(teacher, data, task, STOPPING, seed=3)
    job = Job(data, task, STOPPING, 3)
    rows = job.split(job.rows, job.key.stream("split"))[1]
    for predictor, found in ((teacher, student.teacher_loss), (student.predictor, student.student_loss)):
        said = predictor.predict(data.table[rows]).numpy()
        if kind == "regression":
            expected = ((said - data.target[rows]) ** 2).mean() / data.target.var()
        else:
            expected = -np.log(said[np.arange(len(rows)), data.target[rows].astype(int)]).mean()
        assert found == pytest.approx(expected)


def test_the_teacher_may_be_its_predictions():
    data = make_data()
    teacher = DeepEnsemble(num_members=2).train(data, TASKS["binary"], FIXED).predictor
    said = teacher.predict(data.table).numpy()
    one, other = (distill(each, data, TASKS["binary"], FIXED).predictor for each in (teacher, said))
    assert torch.equal(one.predict(data.table), other.predict(data.table))


def test_training_and_validation_rows_are_copies_of_different_rows():
    data = make_data()
    lesson = _classes(Job(data, TASKS["binary"], FIXED), some_probabilities(80, 2), 0.0)
    plan = distill(some_probabilities(80, 2), data, TASKS["binary"], FIXED).member.plan
    train, val = (set(lesson.origin[rows]) for rows in (plan.train_rows, plan.val_rows))
    assert not train & val
    assert train | val == set(range(80))


@pytest.mark.parametrize(
    ("taught", "said"),
    [
        (np.ones((80, 3)) / 3, r"shape \(80, 2\)"),
        (np.ones((80, 2)), "row 1"),
        (np.full((80, 2), np.nan), "row 1"),
        (np.tile([1.5, -0.5], (80, 1)), "probabilities that sum to 1"),
    ],
)
def test_predictions_that_are_none_are_refused(taught, said):
    with pytest.raises(DataError, match=said):
        distill(taught, make_data(), TASKS["binary"], FIXED)


def test_rows_without_a_prediction_may_have_weight_zero():
    data, taught = make_data(), some_probabilities(80, 2)
    data.weight[:5], taught[:5] = 0, np.nan
    assert np.isfinite(distill(taught, data, TASKS["binary"], FIXED).student_loss)
    numbers = make_data("regression")
    numbers.weight[:5] = 0
    taught = np.where(np.arange(80) < 5, np.nan, numbers.target)
    assert np.isfinite(distill(taught, numbers, TASKS["regression"], FIXED).student_loss)


def test_settings_and_failures():
    data = make_data()
    with pytest.raises(ConfigError, match="`alpha`"):
        distill(some_probabilities(80, 2), data, TASKS["binary"], FIXED, alpha=1.5)
    wild = replace(FIXED, methods=(L2(strength=1e38),), optimizer=AdamW(lr=100.0))
    with pytest.raises(TrainingError, match="finite"):
        distill(some_probabilities(80, 2), data, TASKS["binary"], wild)
