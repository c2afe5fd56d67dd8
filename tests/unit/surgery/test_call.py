"""What a model is called with, whatever a loader yields."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from poise._errors import DataError
from poise.surgery._graph._call import call_model, tensors_of


class Two(nn.Module):
    def forward(self, one, other, scale=1.0):
        return (one - other) * scale


class Named(nn.Module):
    def forward(self, **inputs):
        return sum(inputs.values())


class Pair(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor


ONE, OTHER, LABELS = torch.tensor([5.0]), torch.tensor([3.0]), torch.tensor([1])


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ((ONE, OTHER), 2), ([ONE, OTHER, LABELS], 2), ({"other": OTHER, "one": ONE, "labels": LABELS}, 2),
        ({"one": ONE, "other": OTHER, "scale": 3.0}, 6),
    ],
)  # fmt: skip
def test_arguments_by_position_and_by_name(batch, expected):
    assert call_model(Two(), batch).item() == expected


def test_a_single_argument():
    assert call_model(nn.Identity(), ONE) is ONE
    pair = Pair(ONE, OTHER)
    assert call_model(nn.Identity(), pair) == pair  # an object of the model's own is not taken apart
    assert call_model(nn.Sequential(nn.Flatten(0)), (ONE, LABELS)).item() == 5


def test_a_model_that_takes_anything_by_name():
    assert call_model(Named(), {"a": ONE, "b": OTHER}).item() == 8


@pytest.mark.parametrize("batch", [(ONE,), [], {"one": ONE}, {"labels": LABELS}])
def test_a_batch_that_does_not_fit_says_what_is_missing(batch):
    with pytest.raises(DataError, match=r"Two\.forward requires .* but the batch has .*call=lambda"):
        call_model(Two(), batch)


def test_tensors_in_order():
    assert tensors_of({"a": [ONE, 3], "b": (OTHER, None)}) == [ONE, OTHER]
    assert tensors_of("nothing") == []
