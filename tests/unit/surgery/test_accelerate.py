"""Faster kernels: the same state, the same distribution, the same results where nothing drops, and the way back."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import poise.nn as pn
from poise._errors import ConfigError, DataError, SurgeryError
from poise.surgery import freeze
from poise.surgery._acceleration import _accelerate, _chains
from poise.surgery._acceleration._accelerate import accelerate
from poise.surgery._acceleration._swap import FastDropout
from poise.surgery._edit import Attach, apply_edits


def prepared(model, seed=0):
    """With statistics and parameters that a fresh norm does not have."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 2, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm) and module.weight is not None:
            with torch.no_grad():
                module.weight.normal_(generator=generator)
                if module.bias is not None:
                    module.bias.normal_(generator=generator)
    return model


def randn(*shape, seed=5, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mlp(p=0.5, width=64, activation=nn.ReLU, norm=nn.BatchNorm1d):
    layers = [nn.Linear(8, width), norm(width), activation(), nn.Dropout(p), nn.Linear(width, width), norm(width)]
    return prepared(nn.Sequential(*layers, activation(), nn.Dropout(p), nn.Linear(width, 2)))


def kinds(model):
    return [type(layer) for layer in model]


class Net(nn.Module):
    """Parts by name, and a function that runs them."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


class Functional(nn.Module):
    """Dropout as a function, of a class that pickle finds."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Linear(16, 16)

    def forward(self, x):
        return F.dropout(self.kernel(x), 0.5, training=self.training)


@pytest.fixture
def any_size(monkeypatch):
    """Sizes do not matter."""
    for name in ("FUSED_FROM", "_REROUTED_FROM", "SMALLEST"):
        monkeypatch.setattr(_chains, name, 1)


ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.SELU, nn.Tanh, nn.Mish]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm, lambda n: nn.LayerNorm(n, bias=False)])
@pytest.mark.usefixtures("any_size")
def test_chains_become_one_layer_with_the_same_objects(activation, norm):
    model = mlp(activation=activation, norm=norm).double()
    state, parameters = model.state_dict(), [*model.parameters()]
    layers, x = [*model], randn(12, 8, dtype=torch.float64)
    wanted = model.eval()(x)
    edits = accelerate(model, example=x)
    one = [nn.Linear, pn.NormActDropout, nn.Identity, nn.Identity]
    assert kinds(model) == [*one, *one, nn.Linear]
    assert not any(module.training for module in model.modules())
    assert all(mine is theirs for mine, theirs in zip(model.parameters(), parameters, strict=True))
    after = model.state_dict()
    assert list(after) == list(state)
    assert all(after[name].data_ptr() == state[name].data_ptr() for name in state)
    torch.testing.assert_close(model(x), wanted, rtol=1e-12, atol=1e-12)
    edits.undo()
    assert [*model] == layers
    assert torch.equal(model(x), wanted)


@pytest.mark.usefixtures("any_size")
def test_a_training_without_dropout_is_the_same():
    """Ten steps of SGD in float64: parameters and running statistics agree."""
    plain = mlp().double()
    fast = copy.deepcopy(plain)
    accelerate(fast, example=randn(12, 8, dtype=torch.float64))
    for module in [*plain, *fast]:
        if hasattr(module, "p"):
            module.p = 0.0
    for model in (plain, fast):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(10):
            model(randn(12, 8, seed=step, dtype=torch.float64)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(fast.state_dict(), plain.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("any_size")
def test_the_distribution_is_the_same():
    """Mean and variance of outputs over 1,000 masks agree with torch's to 5 standard errors."""
    plain = mlp(p=0.3, width=16).train()
    fast = copy.deepcopy(plain)
    accelerate(fast, example=randn(12, 8))
    x, moments = randn(12, 8), []
    for model in (plain, fast):
        torch.manual_seed(1)
        with torch.no_grad():
            draws = torch.stack([model(x) for _ in range(1000)]).double()
        moments.append((draws.mean(0), draws.var(0), draws))
    (mean, var, draws), (other, other_var, _) = moments
    assert float(((mean - other) / (2 * var / 1000).sqrt()).abs().max()) < 5
    kurtosis = ((draws - mean) ** 4).mean(0) / var**2
    assert float(((var - other_var) / (2 * var**2 * (kurtosis - 1) / 1000).sqrt()).abs().max()) < 5


@pytest.mark.usefixtures("any_size")
def test_seeds_repeat():
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        model = mlp()
        accelerate(model, example=randn(12, 8))
        draws.append(model.train()(randn(12, 8)))
    assert torch.equal(*draws)


@pytest.mark.parametrize(("conv", "norm", "shape"), [
    (nn.Conv1d, nn.BatchNorm1d, (4, 3, 9)), (nn.Conv2d, nn.BatchNorm2d, (4, 3, 6, 7)),
    (nn.Conv3d, nn.BatchNorm3d, (2, 3, 4, 5, 6)),
])  # fmt: skip
def test_maps(conv, norm, shape):
    """Without an example they are fused; with one only where channels lie last."""
    make = lambda: prepared(nn.Sequential(conv(3, 4, 3), norm(4), nn.ReLU(), nn.Dropout(0.5)))  # noqa: E731
    model, x = make().double().eval(), randn(*shape, dtype=torch.float64)
    wanted = model(x)
    accelerate(model)
    assert kinds(model)[1:] == [pn.NormActDropout, nn.Identity, nn.Identity]
    torch.testing.assert_close(model(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("any_size")
def test_the_layout_of_maps_decides():
    make = lambda: prepared(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)))  # noqa: E731
    model = make()
    accelerate(model, example=randn(4, 3, 6, 7))
    assert kinds(model)[1:] == [nn.BatchNorm2d, nn.ReLU, pn.Dropout]
    model = make().to(memory_format=torch.channels_last)
    accelerate(model, example=randn(4, 3, 6, 7).to(memory_format=torch.channels_last))
    assert kinds(model)[1:] == [pn.NormActDropout, nn.Identity, nn.Identity]


def test_sizes_decide():
    """Small tensors stay with torch, middling ones get dropout, large ones one kernel."""
    for rows, wanted in ((16, nn.Dropout), (1024, pn.Dropout), (2**14, nn.Identity)):
        model = mlp()
        edits = accelerate(model, example=randn(rows, 8))
        assert type(model[3]) is wanted
        assert ("torch is as fast for 1024 elements" in edits.diff()) == (wanted is nn.Dropout)


@pytest.mark.usefixtures("any_size")
def test_what_does_not_fit_stays_and_dropout_alone_is_replaced():
    class Own(nn.BatchNorm1d):
        pass

    norms = [nn.BatchNorm1d(8, momentum=None), nn.BatchNorm1d(8, track_running_stats=False), nn.SyncBatchNorm(8),
             pn.BatchNorm(8), nn.GroupNorm(2, 8), Own(8)]  # fmt: skip
    for norm in norms:
        model = nn.Sequential(nn.Linear(8, 8), norm, nn.ReLU(), nn.Dropout(0.5))
        accelerate(model, example=None if isinstance(norm, nn.SyncBatchNorm) else randn(12, 8))
        assert kinds(model)[1:] == [type(norm), nn.ReLU, pn.Dropout]
    for activation in (nn.GELU(approximate="tanh"), nn.LeakyReLU(0.2), nn.ELU(), nn.Sigmoid()):
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), activation, nn.Dropout(0.5))
        accelerate(model, example=randn(12, 8))
        assert kinds(model)[1:] == [nn.BatchNorm1d, type(activation), pn.Dropout]
    model = nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout1d(), nn.Dropout(0.0), nn.Dropout(1.0))
    edits = accelerate(model, example=randn(12, 8))
    assert kinds(model) == [nn.BatchNorm1d, nn.ReLU, nn.Dropout1d, nn.Dropout, nn.Dropout]
    for reason in ("Dropout1d has no faster kernel", "p = 0 draws nothing", "p = 1 draws nothing"):
        assert reason in edits.diff()


@pytest.mark.usefixtures("any_size")
def test_layers_that_others_use_too_stay():
    def run(net, x):
        y = net.norm(x)
        z = net.drop(net.act(y))
        return z + y if net.branch else net.act(z)

    for branch in (True, False):
        net = Net(run, norm=nn.BatchNorm1d(8), act=nn.ReLU(), drop=nn.Dropout(0.5))
        net.branch = branch
        accelerate(net, example=randn(12, 8))
        assert [type(net.norm), type(net.act), type(net.drop)] == [nn.BatchNorm1d, nn.ReLU, pn.Dropout]


@pytest.mark.usefixtures("any_size")
def test_an_activation_and_dropout_shared_by_chains_only_go():
    run = lambda net, x: net.drop(net.act(net.b(net.linear(net.drop(net.act(net.a(x)))))))  # noqa: E731
    parts = {"a": nn.BatchNorm1d(8), "b": nn.BatchNorm1d(8), "act": nn.ReLU(), "drop": nn.Dropout(0.5)}
    net = Net(run, linear=nn.Linear(8, 8), **parts)
    edits = accelerate(net, example=randn(12, 8))
    assert [type(net.a), type(net.b), type(net.act), type(net.drop)] == [pn.NormActDropout] * 2 + [nn.Identity] * 2
    edits.undo()
    assert all(getattr(net, name) is part for name, part in parts.items())


@pytest.mark.usefixtures("any_size")
def test_dropout_in_place():
    def run(net, x):
        y = net.linear(x)
        return net.drop(y) + y

    net = Net(run, linear=nn.Linear(8, 8), drop=nn.Dropout(0.5, inplace=True))
    assert "in place on what others use" in accelerate(net, example=randn(12, 8)).diff()
    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5, inplace=True))
    accelerate(net, example=randn(12, 8))
    assert kinds(net) == [nn.Linear, pn.Dropout]


@pytest.mark.usefixtures("any_size")
def test_hooks_and_what_poise_apply_attached_stay():
    model = mlp()
    model[2].register_forward_hook(lambda *_: None)
    apply_edits(model, [Attach("6", "", 0.0, pn.Dropout(0.1), "dropout")])
    accelerate(model, example=randn(12, 8))
    assert kinds(model)[1:4] == [nn.BatchNorm1d, nn.ReLU, pn.Dropout]
    assert kinds(model)[5:8] == [nn.BatchNorm1d, nn.ReLU, pn.Dropout]
    assert model[6].dropout.p == 0.1
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5))
    apply_edits(model, [Attach("0", "", 0.0, nn.BatchNorm1d(8), "norm")])
    keys = [*model.state_dict()]
    edits = accelerate(model, example=randn(12, 8))
    assert type(model[0].norm) is pn.NormActDropout
    assert [*model.state_dict()] == keys
    edits.undo()
    assert type(model[0].norm) is nn.BatchNorm1d


@pytest.mark.usefixtures("any_size")
def test_frozen_norms_stay():
    model = mlp()
    model[1].eval()
    freeze(model, "5")
    accelerate(model, example=randn(12, 8))
    assert kinds(model)[1:8] == [nn.BatchNorm1d, nn.ReLU, pn.Dropout, nn.Linear, nn.BatchNorm1d, nn.ReLU, pn.Dropout]
    assert [model[1].training, model[3].training] == [False, True]


@pytest.mark.usefixtures("any_size")
def test_undo_hands_back_what_was_learned_and_the_mode():
    model = mlp().double()
    norm = model[1]
    edits = accelerate(model, example=randn(12, 8, dtype=torch.float64))
    model.train()(randn(12, 8, dtype=torch.float64)).sum().backward()
    model.float().eval()
    wanted = model(randn(12, 8))
    edits.undo()
    assert model[1] is norm
    assert norm.running_mean.dtype is torch.float32
    assert int(norm.num_batches_tracked) == 1
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model(randn(12, 8)), wanted)


def test_functional_dropout():
    model = Functional()
    edits = accelerate(model, example=randn(4096, 16))
    assert "functional dropout goes to the fast kernel" in edits.diff()
    y = model.train()(x := randn(4096, 16))
    dropped = y == 0
    assert 0.48 < float(dropped.float().mean()) < 0.52
    torch.testing.assert_close(y, 2 * model.kernel(x) * ~dropped)
    assert torch.equal(model.eval()(x), model.kernel(x))
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert len(clone._forward_pre_hooks) == 1
        assert 0.48 < float((clone.train()(x) == 0).float().mean()) < 0.52
    edits.undo()
    assert not model._forward_pre_hooks and not model._forward_hooks
    small = Functional()
    assert "costs less than the detour" in accelerate(small, example=randn(4, 16)).diff()


@pytest.mark.usefixtures("any_size")
def test_functional_dropout_of_rare_kinds_is_torchs():
    """In place, small, whole or in float16 it goes through unchanged; channels-last maps keep their layout."""
    model = Net(lambda net, x: F.dropout(x, net.p, training=net.training, inplace=net.inplace))
    model.p, model.inplace = 0.5, False
    accelerate(model, example=randn(4096, 16))
    model.train()
    for p, inplace, x in ((0.5, True, randn(4096, 16)), (1.0, False, randn(4096, 16)), (0.5, False, randn(4, 4)),
                          (0.5, False, randn(4096, 16).half())):  # fmt: skip
        model.p, model.inplace = p, inplace
        torch.manual_seed(0)
        wanted = F.dropout(x.clone(), p)
        torch.manual_seed(0)
        assert torch.equal(model(x.clone()), wanted)
    model.p = 0.5
    y = model(randn(8, 16, 16, 16).to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert 0.45 < float((y == 0).float().mean()) < 0.55


def test_functional_dropout_ends_where_the_module_fails():
    model = Functional()
    accelerate(model, example=randn(4096, 16))
    with pytest.raises(RuntimeError, match="shapes"):
        model.train()(randn(4, 3))
    assert torch.overrides._get_current_function_mode_stack() == []
    hook = FastDropout()
    hook.leave()
    assert hook.entered == []


def test_functional_dropout_under_a_checkpoint():
    """The mask of the forward pass is drawn again."""
    model = Functional()
    accelerate(model, example=randn(4096, 16))
    x = randn(4096, 16).requires_grad_()
    y = checkpoint(model.train(), x, use_reentrant=False)
    y.sum().backward()
    wanted = torch.autograd.grad(model.kernel(x), x, 2.0 * (y != 0))[0]
    torch.testing.assert_close(x.grad, wanted)


@pytest.mark.usefixtures("any_size")
def test_inside_of_others_layers():
    """A transformer block of torch holds dropout modules that its code calls."""
    model = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True)
    edits = accelerate(model, example=randn(12, 5, 16))
    assert type(model.dropout1) is type(model.dropout) is pn.Dropout
    model.train()(randn(12, 5, 16)).sum().backward()
    edits.undo()
    assert type(model.dropout1) is nn.Dropout


def test_without_an_example():
    model = mlp(norm=nn.LayerNorm)
    accelerate(model)
    assert kinds(model)[1:4] == [nn.LayerNorm, nn.ReLU, pn.Dropout]
    model = Functional()
    accelerate(model)
    assert len(model._forward_pre_hooks) == 1
    with pytest.raises(ConfigError, match="Give example="):
        accelerate(Net(lambda net, x: x if x.sum() > 0 else -x))


@pytest.mark.usefixtures("any_size")
def test_bad_input_is_refused_and_changes_nothing():
    model = mlp()
    layers = [*model]
    for error, match, example in (
        (DataError, "no numbers", randn(0, 8)), (DataError, "fails on the example: RuntimeError", randn(4, 9)),
        (DataError, "in training: ValueError.*at least two rows", randn(1, 8)),
        (ConfigError, "meta", torch.randn(2, 8, device="meta")),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            accelerate(model, example=example)
        assert [*model] == layers
    with pytest.raises(ConfigError, match="Call the model once"):
        accelerate(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ConfigError, match="Load weights"):
        accelerate(nn.Sequential(nn.Linear(3, 3, device="meta")))
    with pytest.raises(ConfigError, match="compiled"):
        accelerate(torch.compile(model, backend="eager"))


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("kind", ["An output", "A gradient", "A buffer"])
def test_results_that_differ_are_refused(monkeypatch, kind):
    step, calls = _accelerate._step, []

    def wrong(model, batch):
        found = step(model, batch)
        if calls:
            found[kind] = {name: value + 1e-6 for name, value in found[kind].items()}
        calls.append(1)
        return found

    monkeypatch.setattr(_accelerate, "_step", wrong)
    model = mlp()
    layers = [*model]
    with pytest.raises(SurgeryError, match=f"{kind} would change by"):
        accelerate(model, example=randn(12, 8))
    assert [*model] == layers


@pytest.mark.usefixtures("any_size")
def test_a_model_that_runs_in_float32_only():
    net = Net(lambda net, x: net.drop(net.act(net.norm(net.linear(x.to(torch.float32))))), linear=nn.Linear(8, 8),
              norm=nn.BatchNorm1d(8), act=nn.ReLU(), drop=nn.Dropout(0.5))  # fmt: skip
    accelerate(net, example=randn(12, 8))
    assert type(net.norm) is pn.NormActDropout


@pytest.mark.usefixtures("any_size")
def test_random_state_and_statistics_of_the_model_stay_as_they_were():
    model = mlp()
    state, seed = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    accelerate(model, example=randn(12, 8))
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(seed, torch.get_rng_state())
    assert all(one.grad is None for one in model.parameters())


def test_a_compiled_network_keeps_torchs_functional_dropout():
    """Hooks step aside while torch traces; the rate is right, and one graph holds all."""
    model = Functional()
    accelerate(model, example=randn(4096, 16))
    compiled = torch.compile(model.train(), backend="eager", fullgraph=True)
    assert 0.48 < float((compiled(randn(4096, 16)) == 0).float().mean()) < 0.52
    assert torch.overrides._get_current_function_mode_stack() == []
