"""Plans and batches."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from poise._random import Key
from poise.recipe import Budget, Recipe
from poise.train import Binary, Plan, batch_bounds


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_batches_cover_every_row_once_and_leave_no_single_row_last(batch_size):
    for num_rows in range(1, 60):
        bounds = batch_bounds(num_rows, batch_size)
        rows = [row for start, end in bounds for row in range(start, end)]
        assert rows == list(range(num_rows))
        sizes = [end - start for start, end in bounds]
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        assert 1 <= sizes[-1] <= batch_size + 1
        assert sizes[-1] > 1 or num_rows == 1


def make_plan(budget=None, **changes):
    rows = np.arange(1000)
    return Plan("a", Recipe(budget=budget or Budget(max_epochs=9)), Binary(), rows[:800], rows[800:], **changes)


def test_the_seed_names_the_random_numbers():
    assert make_plan(seed=5).key == Key(5)
    assert make_plan().key == Key(0)


def test_another_budget_changes_nothing_else():
    plan = make_plan(seed=5)
    other = plan.with_max_epochs(3)
    assert (plan.max_epochs, other.max_epochs) == (9, 3)
    assert other.recipe.budget.batch_size == plan.recipe.budget.batch_size
    assert other.recipe.network == plan.recipe.network
    assert (other.name, other.task, other.seed, other.train_rows is plan.train_rows) == ("a", Binary(), 5, True)


def test_an_open_budget_suits_the_training_rows():
    assert make_plan(Budget(batch_size=16)).max_epochs == 2000 * 16 // 800
    assert make_plan(Budget(batch_size=16)).with_max_epochs(2).max_epochs == 2


def test_plans_are_frozen():
    with pytest.raises(FrozenInstanceError):
        make_plan().seed = 3
