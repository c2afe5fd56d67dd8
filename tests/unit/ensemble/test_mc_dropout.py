"""Every kind of stochastic layer draws in eval mode, and nothing else changes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import poise.nn
from poise import ConfigError
from poise.ensemble import mc_dropout


class Functional(nn.Module):
    """A dropout function called with the module's flag."""

    def __init__(self, function, p=0.5):
        super().__init__()
        self.function, self.p, self.linear = function, p, nn.Linear(8, 8)

    def forward(self, x):
        return self.function(self.linear(x), self.p, self.training)


class GatedP(nn.Module):
    """p is 0 in eval mode, so that the call shows nothing."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return F.dropout(self.linear(x), 0.5 if self.training else 0.0, training=True)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.p, self.linear = 0.3, nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.linear(x).unflatten(-1, (3, 1, 8)).movedim(-3, 0).transpose(-2, -3)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0)
        return y.squeeze(-3)


class DropPath(nn.Module):
    def __init__(self, drop_prob=0.4):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        return x / keep * (keep + torch.rand(x.shape[0], *[1] * (x.ndim - 1))).floor_()


class StochasticDepth(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        return x * torch.empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(0.5) / 0.5


class Residual(nn.Module):
    def __init__(self, path):
        super().__init__()
        self.linear, self.norm, self.path = nn.Linear(8, 8), nn.BatchNorm1d(8), path

    def forward(self, x):
        return x + self.path(self.norm(self.linear(x)))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(8, 8, num_layers=2, dropout=0.4, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class MixedTraining(nn.Module):
    """Dropout whose flag also moves statistics by hand."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.mean(0), 0.1)
            return x * torch.rand_like(x)
        return x - self.mean


class OwnNorm(nn.Module):
    """Reads its flag and draws nothing."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.mean(0), 0.1)
        return x - self.mean


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


ROWS, STEPS, MAPS = (16, 8), (4, 5, 8), (4, 8, 3, 3)
KINDS = {
    "dropout": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)), ROWS),
    "dropout in place": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5, inplace=True)), ROWS),
    "dropout1d": (lambda: nn.Sequential(nn.Dropout1d(0.5)), STEPS),
    "dropout2d": (lambda: nn.Sequential(nn.BatchNorm2d(8), nn.Dropout2d(0.5)), MAPS),
    "dropout3d": (lambda: nn.Sequential(nn.Dropout3d(0.5)), (2, 4, 3, 3, 3)),
    "alpha": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.AlphaDropout(0.5)), ROWS),
    "feature alpha": (lambda: nn.Sequential(nn.BatchNorm2d(8), nn.FeatureAlphaDropout(0.5)), MAPS),
    "F.dropout": (lambda: Functional(F.dropout), ROWS),
    "F.dropout1d": (lambda: Functional(F.dropout1d), STEPS),
    "F.alpha_dropout": (lambda: Functional(F.alpha_dropout), ROWS),
    "F.feature_alpha_dropout": (lambda: Functional(F.feature_alpha_dropout), STEPS),
    "torch.dropout": (lambda: Functional(torch.dropout), ROWS),
    "p that depends on the flag": (GatedP, ROWS),
    "attention function": (Attention, STEPS),
    "attention layer": (SelfAttention, STEPS),
    "transformer": (transformer, STEPS),
    "lstm": (lambda: Recurrent(nn.LSTM), STEPS),
    "gru": (lambda: Recurrent(nn.GRU), STEPS),
    "rnn": (lambda: Recurrent(nn.RNN), STEPS),
    "drop path of others": (lambda: Residual(DropPath()), ROWS),
    "stochastic depth": (lambda: Residual(StochasticDepth()), ROWS),
    "drop path of ours": (lambda: Residual(poise.nn.DropPath(0.5)), ROWS),
    "dropout of ours": (lambda: nn.Sequential(poise.nn.BatchNorm(8), poise.nn.Dropout(0.5)), ROWS),
    "noise of ours": (lambda: nn.Sequential(poise.nn.GaussianNoise(0.5)), ROWS),
    "norm, activation and dropout": (lambda: nn.Sequential(poise.nn.NormActDropout(8, 0.5)), ROWS),
}


def state(model):
    keys = [
        (layer.key, layer.step, layer.sampling) for layer in model.modules() if isinstance(layer, poise.nn.Stochastic)
    ]
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return [module.training for module in model.modules()], keys, hooks, buffers


def assert_same_state(one, other):
    assert one[:3] == other[:3]
    for name, buffer in one[3].items():
        torch.testing.assert_close(buffer, other[3][name], rtol=0, atol=0)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_every_kind_draws_and_all_else_stays(name, training):
    make, shape = KINDS[name]
    torch.manual_seed(0)
    model, x = make().train(training), torch.randn(shape)
    before = state(model)
    with torch.no_grad(), mc_dropout(model) as found:
        outputs = torch.stack([model(x) for _ in range(16)])
        norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._NormBase | poise.nn.BatchNorm)]
        assert not any(norm.training for norm in norms)
    assert float(outputs.var(0).amax()) > 0
    assert found or name in ("F.dropout", "F.dropout1d", "F.alpha_dropout", "F.feature_alpha_dropout", "torch.dropout")
    assert_same_state(before, state(model))
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", ["dropout", "F.dropout", "lstm", "drop path of others"])
def test_it_draws_what_training_draws(name):
    """The same generator state gives the same masks as train mode, where no normalization is in the way."""
    make, shape = KINDS[name]
    torch.manual_seed(0)
    model, x = make(), torch.randn(shape)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.train = lambda mode=True, layer=layer: nn.Module.train(layer, mode=False)
    with torch.no_grad():
        model.train()
        torch.manual_seed(1)
        expected = model(x)
        with mc_dropout(model):
            model(x)
            torch.manual_seed(1)
            torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


def test_fused_layer_normalizes_by_running_statistics():
    layer = poise.nn.NormActDropout(8, p=0.5, activation="identity").train()
    layer.running_mean.fill_(5.0)
    x = torch.randn(64, 8)
    with torch.no_grad(), mc_dropout(layer):
        y = layer(x)
    kept = y != 0
    torch.testing.assert_close(y[kept], 2 * (x[kept] - 5) / (1 + layer.eps) ** 0.5, rtol=1e-5, atol=1e-5)


def test_functions_outside_the_model_are_left_alone():
    model, x = nn.Sequential(nn.Dropout(0.5)), torch.ones(100)
    with mc_dropout(model):
        model(x)
        assert torch.equal(F.dropout(x, 0.5, training=False), x)
    with mc_dropout(model), pytest.raises(TypeError):
        model(None)
    assert torch.equal(F.dropout(x, 0.5, training=False), x)


def test_a_flag_that_draws_nothing_stays_off():
    model = nn.Sequential(OwnNorm(), nn.Dropout(0.5))
    with mc_dropout(model) as found:
        model(torch.randn(4, 8))
        assert not model[0].training
    assert list(found) == ["1"]
    assert float(model[0].mean.abs().max()) == 0


def test_a_flag_for_noise_and_statistics_is_refused():
    model = nn.Sequential(MixedTraining()).train()
    with pytest.raises(ConfigError, match=r"'0\.mean'.*'0', a MixedTraining"), mc_dropout(model):
        model(torch.randn(4, 8))
    assert float(model[0].mean.abs().max()) == 0
    assert model[0].training
    assert not model._forward_hooks and not model._forward_pre_hooks


class WantsTargets(nn.Module):
    def __init__(self):
        super().__init__()
        self.path = DropPath()

    def forward(self, x, y=None):
        if self.training and y is None:
            raise KeyError("targets")
        return self.path(x)


def test_a_network_that_trains_with_targets_only():
    model = WantsTargets()
    with mc_dropout(model) as found:
        outputs = torch.stack([model(torch.ones(32, 2)) for _ in range(4)])
    assert found == {"path": "DropPath"}
    assert float(outputs.var(0).amax()) > 0


@pytest.mark.parametrize(
    "model", [nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.0)), nn.LSTM(8, 8, dropout=0.0)]
)
def test_nothing_that_draws_is_an_error(model):
    with pytest.raises(ConfigError, match=r"Nothing in this .* draws random numbers.*Looked for torch's and Poise's"):
        mc_dropout(model).__enter__()


def test_nothing_that_draws_in_code_of_others_is_an_error_at_the_first_call():
    model = Residual(OwnNorm())
    with pytest.raises(ConfigError, match="Nothing in this Residual draws"), mc_dropout(model):
        model(torch.randn(4, 8))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [torch.compile, torch.jit.script, nn.DataParallel])
def test_wrapped_models_are_refused(wrap):
    model = wrap(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    with pytest.raises(ConfigError, match=r"compiled|scripted|DataParallel"):
        mc_dropout(model).__enter__()


def test_a_compiled_part_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model[0].compile()
    with pytest.raises(ConfigError, match="module '0'"):
        mc_dropout(model).__enter__()


def test_no_module_is_refused():
    with pytest.raises(ConfigError, match=r"`model` must be a torch\.nn\.Module, but got int"):
        mc_dropout(3).__enter__()
