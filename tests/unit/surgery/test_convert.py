"""Torch's batch normalizations become Poise's and come back, with the same tensors, verified and undone."""

import copy

import pytest
import torch
from torch import nn

from poise import convert_batch_norm, restore_batch_norm
from poise._errors import ConfigError, SurgeryError
from poise.nn import BatchNorm, use_domain


class Activated(nn.BatchNorm2d):
    """Normalizes and activates, as some libraries have it."""

    def forward(self, x):
        return torch.relu(super().forward(x))


def network():
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=None), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5),
        nn.BatchNorm1d(5, affine=False), nn.Unflatten(1, (5, 1, 1, 1)), nn.BatchNorm3d(5),
    )  # fmt: skip
    for _ in range(3):
        made(2 * torch.randn(8, 3, 6, 6) + 1)
    return made


X = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_every_layer_becomes_ours_with_the_same_tensors():
    model = network()
    model[5].eval()
    twin, before = copy.deepcopy(model), {**dict(model.named_parameters()), **dict(model.named_buffers())}
    edits = convert_batch_norm(model, guard=False, example=X)
    assert [type(model[at]) for at in (1, 5, 7)] == [BatchNorm] * 3
    assert [model[at].training for at in (1, 5, 7)] == [True, False, True]
    assert (model[1].eps, model[1].momentum, model[5].weight) == (1e-3, None, None)
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    torch.testing.assert_close(model(X), twin(X))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, twin.state_dict()[name])
    edits.undo()
    assert [type(model[at]) for at in (1, 5, 7)] == [nn.BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm3d]
    torch.testing.assert_close(model.eval()(X), twin.eval()(X))


def test_layers_with_a_weight_alone():
    """An option of newer torch."""
    layer = nn.BatchNorm1d(3)
    layer.bias = None
    model = nn.Sequential(layer)
    x = torch.randn(6, 3)
    expected = model(x)
    convert_batch_norm(model, renorm=(1.0, 0.0), example=x)
    assert list(model.state_dict()) == ["0.weight", "0.running_mean", "0.running_var", "0.num_batches_tracked"]
    torch.testing.assert_close(model(x), expected)


def test_settings_reach_the_layers():
    model = network()
    convert_batch_norm(model, accumulate=4, debias=True, unbiased=False, renorm=(3.0, 5.0), synchronized=True)
    assert "accumulate=4, guard=True, debias=True, unbiased=False, renorm=(3.0, 5.0), synchronized=True" in str(
        model[7]
    )


def test_domains_begin_with_what_is_there():
    model = network()
    expected = model.eval()(X)
    model.train()
    convert_batch_norm(model, num_domains=2, example=X)
    assert model[1].domain is None
    with use_domain(model.eval(), 1):
        torch.testing.assert_close(model(X), expected)


def test_synchronized_layers_stay_synchronized():
    model = nn.Sequential(nn.SyncBatchNorm(3), nn.BatchNorm1d(3))
    convert_batch_norm(model)
    assert [layer.synchronized for layer in model] == [True, False]
    restore_batch_norm(model, torch.randn(4, 3))
    assert [type(layer) for layer in model] == [nn.SyncBatchNorm, nn.BatchNorm1d]


def test_what_cannot_be_replaced_stays_and_is_named():
    group = nn.SyncBatchNorm(4)
    group.process_group = object()
    hooked = nn.BatchNorm2d(4)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.Sequential(
        Activated(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False), hooked, group,
        nn.LazyBatchNorm2d(), nn.InstanceNorm2d(4),
    )  # fmt: skip
    diff = convert_batch_norm(model).diff()
    assert [type(layer) is BatchNorm for layer in model] == [False, True, False, False, False, False, False]
    for line, reason in zip(
        [line for line in diff.splitlines() if "stays" in line],
        ["stays Activated    only the exact types", "no running", "has hooks", "a group of its own", "LazyBatchNorm2d"],
        strict=True,
    ):
        assert reason in line


def test_a_layer_that_is_used_twice_is_replaced_in_both_places():
    norm = nn.BatchNorm1d(3)
    model = nn.ModuleDict({"a": nn.Sequential(norm), "b": norm})
    convert_batch_norm(model)
    assert model["b"] is model["a"][0]
    assert type(model["b"]) is BatchNorm


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(2, 2)), nn.Sequential(Activated(2))])
def test_nothing_to_convert(model):
    with pytest.raises(ConfigError, match="no batch normalization of torch to convert"):
        convert_batch_norm(model)
    with pytest.raises(ConfigError, match="no batch normalization of Poise to convert"):
        restore_batch_norm(model, torch.randn(1, 2, 2, 2) if isinstance(model[0], Activated) else torch.randn(1, 2))


def test_a_model_that_is_a_batch_normalization_or_wrapped_is_refused():
    with pytest.raises(SurgeryError, match="cannot be replaced in place"):
        convert_batch_norm(nn.BatchNorm1d(3))
    with pytest.raises(ConfigError, match="compiled model cannot be changed"):
        convert_batch_norm(torch.compile(network(), backend="eager"))


def test_settings_out_of_range_change_nothing():
    model = network()
    with pytest.raises(ConfigError, match="`accumulate` must be"):
        convert_batch_norm(model, accumulate=-1)
    assert type(model[1]) is nn.BatchNorm2d


def test_a_failure_in_the_middle_changes_nothing(monkeypatch):
    model = network()
    kinds = [type(layer) for layer in model]
    monkeypatch.setattr(BatchNorm, "forward", lambda layer, x: x)
    with pytest.raises(SurgeryError, match="Nothing was changed"):
        convert_batch_norm(model, example=X)
    assert [type(layer) for layer in model] == kinds


def test_meta_and_half_models():
    model = nn.Sequential(nn.BatchNorm1d(3)).to("meta")
    convert_batch_norm(model, num_domains=2)
    assert model[0].domain_mean.device.type == "meta"
    model = nn.Sequential(nn.BatchNorm1d(3)).half()
    convert_batch_norm(model, num_domains=2)
    assert model[0].domain_mean.dtype == torch.float16


def test_restoring_gives_torchs_layers_for_what_they_read():
    model = network()
    twin = copy.deepcopy(model)
    convert_batch_norm(model, ghost_size=2)
    edits = restore_batch_norm(model, X)
    assert [repr(one) for one in model] == [repr(one) for one in twin]
    torch.testing.assert_close(model(X), twin(X))
    edits.undo()
    assert model[1].ghost_size == 2


def test_what_torch_has_not_stays_ours():
    frozen = BatchNorm(3)
    frozen.frozen = True
    model = nn.Sequential(BatchNorm(3), frozen)
    diff = restore_batch_norm(model, torch.randn(4, 3)).diff()
    assert "1  stays BatchNorm    it is frozen" in diff

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.idle, self.other = BatchNorm(3), BatchNorm(3), BatchNorm(3)

        def forward(self, x):
            return self.norm(x) + self.norm(x[..., None]).squeeze(-1) + self.norm(x[..., None, None]).flatten(1) + (
                self.other(x)
            )  # fmt: skip

    diff = restore_batch_norm(Twice(), torch.randn(4, 3)).diff()
    assert "inputs of different numbers of axes" in diff
    assert "the example does not reach it" in diff
