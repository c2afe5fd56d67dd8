"""Every module's own flag comes back."""

import pytest
import torch
from torch import nn

from poise.surgery import modes


@pytest.mark.parametrize("training", [None, False, True])
def test_flags_come_back_after_changes_and_errors(training):
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval(), nn.Sequential(nn.Linear(2, 2).eval()))
    flags = [one.training for one in model.modules()]
    with pytest.raises(ValueError, match="inside"), modes(model, training=training):
        if training is not None:
            assert all(one.training is training for one in model.modules())
        model.train()
        raise ValueError("inside")
    assert [one.training for one in model.modules()] == flags


def test_a_module_that_refuses_train_is_set_all_the_same():
    class Stubborn(nn.Identity):
        def train(self, mode=True):
            return super().train(False)

    model = nn.Sequential(Stubborn().eval(), nn.Dropout())
    with modes(model, training=True):
        assert model[0].training
        assert not torch.equal(model(torch.ones(1000)), torch.ones(1000))
    assert not model[0].training
