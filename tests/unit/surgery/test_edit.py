"""Edits: applied as one, shown, verified, taken back."""

import copy
import math

import pytest
import torch
from torch import nn

from poise._errors import ConfigError, SurgeryError
from poise.nn import Dropout
from poise.surgery._edit import Assign, Attach, Replace, apply_edits, check_editable, check_outputs

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def snapshot(model):
    modules = {
        name: (id(one), len(one._forward_hooks), len(one._forward_pre_hooks)) for name, one in model.named_modules()
    }
    return modules, {name: (id(one), one.clone()) for name, one in model.named_parameters()}


def assert_as_before(model, before):
    modules, parameters = snapshot(model)
    assert modules == before[0]
    assert parameters.keys() == before[1].keys()
    assert all(
        one[0] == before[1][name][0] and torch.equal(one[1], before[1][name][1]) for name, one in parameters.items()
    )


EDITS = {
    "replace": lambda: Replace("1", "why", 0.0, nn.Sequential(nn.ReLU())),
    "attach": lambda: Attach("1", "why", 0.0, Dropout(0.5), "extra"),
    "attach before": lambda: Attach("2", "why", 0.0, Dropout(0.5), "extra", before=True),
    "assign": lambda: Assign("1", "why", 0.0, "inplace", True),
    "take a bias": lambda: Assign("0", "why", math.inf, "bias", None),
}


@pytest.mark.parametrize("kind", EDITS)
def test_undo_restores_the_very_same_objects(kind):
    model = net()
    before = snapshot(model)
    done = apply_edits(model, [EDITS[kind]()], example=X)
    assert repr(model) != repr(net())
    done.undo()
    assert_as_before(model, before)
    assert repr(model) == repr(net())
    done.undo()  # once more changes nothing
    assert_as_before(model, before)


def test_an_attached_layer_acts_trains_and_is_copied_with_the_model():
    model = net()
    apply_edits(model, [Attach("1", "why", 0.0, Dropout(0.5), "extra")], example=X)
    copied = copy.deepcopy(model)
    assert (model(X) != model(X)).any()
    assert copied[1].extra is not model[1].extra
    copied[1].extra.p = 0.0
    assert torch.equal(copied(X), net()(X))
    assert torch.equal(model.eval()(X), net()(X))


def test_a_shared_layer_is_replaced_wherever_it_is():
    layer = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)})
    done = apply_edits(model, [Replace("a", "why", 0.0, nn.Identity())])
    assert model["a"] is model["b"][0] and isinstance(model["a"], nn.Identity)
    done.undo()
    assert model["a"] is model["b"][0] is layer


@pytest.mark.parametrize("error", [ValueError("injected"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_takes_everything_back(error, monkeypatch):
    def fail(self, model):
        raise error

    model = net()
    before = snapshot(model)
    monkeypatch.setattr(Assign, "apply", fail)
    with pytest.raises(type(error)):
        apply_edits(model, [EDITS["replace"](), EDITS["attach before"](), EDITS["assign"]()], example=X)
    assert_as_before(model, before)


def test_outputs_that_change_without_leave_are_refused():
    model = net()
    before = snapshot(model)
    with pytest.raises(SurgeryError, match="would change by"):
        apply_edits(model, [Replace("1", "why", 0.0, nn.Tanh())], example=X)
    assert_as_before(model, before)
    apply_edits(model, [Replace("1", "why", math.inf, nn.Tanh())], example=X)


def test_a_place_that_is_taken_is_refused():
    model = net()
    apply_edits(model, [Attach("1", "why", 0.0, Dropout(0.5), "extra")])
    with pytest.raises(SurgeryError, match="has a 'extra' already"):
        apply_edits(model, [Attach("1", "why", 0.0, Dropout(0.5), "extra")])
    with pytest.raises(SurgeryError, match="itself cannot be replaced"):
        apply_edits(model, [Replace("", "why", 0.0, nn.Identity())])


@pytest.mark.parametrize("kind", ["replace", "attach"])
def test_what_was_changed_since_is_not_undone(kind):
    model = net()
    done = apply_edits(model, [EDITS[kind]()])
    if kind == "replace":
        model[1] = nn.GELU()
    else:
        model[1]._modules["extra"] = nn.Identity()
    with pytest.raises(SurgeryError, match="was changed since"):
        done.undo()


def test_the_diff_says_where_what_and_why():
    done = apply_edits(net(), [EDITS["attach"](), EDITS["assign"]()])
    assert done.diff() == "1  -> Dropout(p=0.5)    why\n1  .inplace = True    why"


def test_outputs_are_compared_with_their_shapes_and_gaps():
    one, gap = torch.ones(2), torch.tensor([1.0, math.nan])
    check_outputs([one, gap], [one + 1e-7, gap], 1e-6)
    check_outputs([torch.ones(2, dtype=torch.int64)], [torch.zeros(2, dtype=torch.int64)], 0.0)
    for before, after in (([one], [one + 1e-3]), ([one], [gap]), ([gap], [one]), ([one], [torch.ones(3)]), ([one], [])):
        with pytest.raises(SurgeryError):
            check_outputs(before, after, 1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # all of which is on its way out
def test_what_cannot_be_edited_says_what_to_give():
    check_editable(net())
    for model, words in (
        (lambda x: x, "must be a torch.nn.Module"), (torch.jit.trace(net(), X), "scripted"),
        (torch.compile(net()), "then torch.compile it"), (nn.DataParallel(net()), "then wrap it"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            check_editable(model)
