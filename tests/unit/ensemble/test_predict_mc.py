"""Means and variances against naive sampling, closed forms and enumeration; speed paths against the full network."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import poise.nn
from poise import ConfigError, DataError
from poise._random import Key
from poise.ensemble import MCPrediction, mc_dropout, predict_mc
from poise.ensemble._chain import chain_of
from poise.ensemble._prefix import Prefix
from poise.ensemble._subnetworks import SubNetworks


def mlp(p=0.5, width=12, kind=nn.Dropout, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, width), nn.ReLU(), kind(p),
        nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.Tanh(), kind(p)),
        nn.Linear(width, width, bias=False), nn.GELU(), kind(p), nn.Linear(width, 3),
    )  # fmt: skip


class FunctionalMLP(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        torch.manual_seed(0)
        self.p, self.fc1, self.fc2, self.fc3 = p, nn.Linear(4, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = F.dropout(F.relu(self.fc1(x)), self.p, self.training)
        x = F.dropout(F.leaky_relu(self.fc2(x), 0.2), p=self.p, training=self.training)
        return self.fc3(x)


class GatedMLP(FunctionalMLP):
    def forward(self, x):
        p = self.p if self.training else 0.0
        return self.fc3(F.dropout(F.relu(self.fc2(F.dropout(F.relu(self.fc1(x)), p, p > 0))), p, p > 0))


class ResidualMLP(FunctionalMLP):
    """No chain: the stream goes round the dropout. In place, so that kept tensors change."""

    def __init__(self, in_place=False):
        super().__init__()
        self.in_place, self.drop = in_place, nn.Dropout(0.5)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        branch = self.fc2(self.drop(x))
        x = x.add_(branch) if self.in_place else x + branch
        return self.fc3(x)


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.norm1 = nn.Linear(4, 16), poise.nn.NormActDropout(16, 0.5)
        self.fc2, self.norm2 = nn.Linear(16, 12), poise.nn.NormActDropout(12, 0.25, activation="tanh")
        self.fc3 = nn.Linear(12, 3)
        for norm in (self.norm1, self.norm2):
            norm.running_mean.normal_()
            norm.weight.data.uniform_(0.5, 2)

    def forward(self, x):
        return self.fc3(self.norm2(self.fc2(self.norm1(self.fc1(x)))))


X = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
NETWORKS = {
    "sequential": (mlp, "shared"),
    "sequential of ours": (lambda: mlp(kind=poise.nn.Dropout), "shared"),
    "functional": (FunctionalMLP, "shared"),
    "fused": (Fused, "shared"),
    "gated": (GatedMLP, "rows"),
    "residual": (ResidualMLP, "rows"),
    "residual in place": (lambda: ResidualMLP(in_place=True), "rows"),
    "alpha": (lambda: mlp(p=0.2, kind=nn.AlphaDropout), "rows"),
}


def naive(model, x, samples, seed=0):
    """One pass after another under `mc_dropout`, in float64."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), mc_dropout(model):
        torch.manual_seed(seed)
        return torch.stack([model(x) for _ in range(samples)]).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_mean_and_variance_are_those_of_naive_passes(name):
    """z of each output below 5: of 27 means and 27 variances, a right method has one beyond in 30,000 seeds.

    The standard error of a variance is taken from the fourth moment. With 800 passes on our side, a mean that is off by
    a quarter of a standard deviation, or a variance off by a third, gives z above 5 in most seeds.
    """
    make, mask = NETWORKS[name]
    model = make()
    found = predict_mc(model, X, samples=800, seed=1)
    # Rows of one pass have masks of their own, so that 4,000 copies of a row are 4,000 plain passes.
    plain = naive(model, X.repeat(4000, 1), 1)[0].view(4000, *X.shape[:1], 3)
    assert found.mask == mask
    assert found.num_samples == 800
    mean, var = plain.mean(0), plain.var(0)
    torch.testing.assert_close(found.standard_error, (found.variance / 800).sqrt())
    share = 1 / 800 + 1 / 4000
    z_mean = (found.mean - mean) / (var * share).sqrt()
    fourth = (plain - mean).pow(4).mean(0)
    z_var = (found.variance - var) / ((fourth - var.square()) * share).sqrt()
    assert float(z_mean.abs().max()) < 5
    assert float(z_var.abs().max()) < 5


@pytest.mark.parametrize("name", ["sequential", "functional", "residual", "residual in place", "gated"])
def test_nothing_of_the_model_or_the_random_state_changes(name):
    model = NETWORKS[name][0]().train()
    flags = [module.training for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    x, before = X.clone(), torch.get_rng_state()
    predict_mc(model, x, samples=3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(x, X)
    assert flags == [module.training for module in model.modules()]
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_names_the_passes(name):
    model = NETWORKS[name][0]()
    one, same, other = (predict_mc(model, X, samples=4, seed=seed).mean for seed in (7, 7, 8))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_layers_of_ours_draw_on_as_if_nothing_was_drawn():
    model = nn.Sequential(nn.Linear(4, 4), poise.nn.DropPath(0.5, key=Key(5)), nn.Linear(4, 4))
    model[1].step = 3
    predict_mc(model, X, samples=3)
    assert (model[1].key, model[1].step, model[1].sampling) == (Key(5), 3, False)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [mlp, FunctionalMLP, Fused])
def test_sub_networks_are_the_full_network_with_its_units_masked(make, threads):
    model, x = make().double().eval(), X.double()
    chain = SubNetworks(chain_of(model, x), x, Key(4))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            found = chain.outputs(60, 70)  # over the end of the first part of masks
    finally:
        torch.set_num_threads(before)
    for place, number in enumerate(range(60, 70)):
        torch.testing.assert_close(found[place], masked(model, x, Key(4), number), rtol=1e-12, atol=1e-12)


def masked(model, x, key, number):
    """Pass `number` with whole layers and masks multiplied on."""
    part, row, site = number // 64, number % 64, itertools.count()

    def drop(values, p=0.5, *_, **__):
        mask = key.stream("mask", next(site)).at(part).keep_mask(64, values.shape[1], p=p, dtype=torch.float64)
        return values * mask[row]

    with torch.no_grad():
        if isinstance(model, FunctionalMLP):
            h = drop(F.relu(model.fc1(x)), model.p)
            return model.fc3(drop(F.leaky_relu(model.fc2(h), 0.2), model.p))
        if isinstance(model, Fused):
            h = drop(F.relu(normalize(model.norm1, model.fc1(x))), model.norm1.p)
            return model.fc3(drop(torch.tanh(normalize(model.norm2, model.fc2(h))), model.norm2.p))
        for layer in model.modules():
            if not isinstance(layer, nn.Sequential):
                x = drop(x, layer.p) if isinstance(layer, nn.Dropout) else layer(x)
        return x


def normalize(norm, x):
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def test_first_passes_do_not_depend_on_how_many_follow():
    chain = SubNetworks(chain_of(mlp().eval(), X), X, Key(4))
    with torch.no_grad():
        assert torch.equal(chain.outputs(0, 5), chain.outputs(0, 80)[:5])


def test_every_unit_may_be_dropped():
    model = nn.Sequential(
        nn.Linear(4, 1), nn.Dropout(0.9), nn.Linear(1, 2), nn.ReLU(), nn.Dropout(0.9), nn.Linear(2, 1)
    )
    found, plain = predict_mc(model, X, samples=400), naive(model, X, 400)
    assert found.mask == "shared"
    error = ((found.variance + plain.var(0)) / 400).sqrt()
    assert bool(((found.mean - plain.mean(0)).abs() <= 5 * error + 1e-6).all())


@pytest.mark.parametrize("p", [0.5, 0.25])
@pytest.mark.parametrize("bias", [True, False])
def test_closed_form_is_the_mean_over_all_masks(p, bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(p), nn.Linear(6, 3, bias=bias)).double()
    x = X.double()
    found = predict_mc(model, x)
    assert (found.mask, found.num_samples, found.samples_for(1e-9)) == ("exact", 0, 0)
    mean, square = 0.0, 0.0
    with torch.no_grad():
        h = model[:2](x)
        for mask in itertools.product([0.0, 1.0], repeat=6):
            kept = sum(mask)
            y = model[3](h * torch.tensor(mask, dtype=torch.float64) / (1 - p))
            share = (1 - p) ** kept * p ** (6 - kept)
            mean, square = mean + share * y, square + share * y.square()
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.variance, square - mean.square(), rtol=1e-11, atol=1e-12)
    assert float(found.standard_error.abs().max()) == 0


@pytest.mark.parametrize("mask", ["shared", "rows"])
def test_the_closed_form_is_not_used_where_masks_are_asked_for(mask):
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    assert predict_mc(model, X, mask=mask).mask == mask
    assert predict_mc(model, X, kind="classification").mask == "shared"


def test_entropies_are_those_of_the_passes():
    model = mlp().eval()
    found = predict_mc(model, X, samples=70, kind="classification", seed=3)
    chain = SubNetworks(chain_of(model, X), X, Key(3).stream("mc_dropout"))
    with torch.no_grad():
        p = torch.softmax(chain.outputs(0, 70).double(), -1)
    torch.testing.assert_close(found.mean.double(), p.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.variance.double(), p.var(0), rtol=1e-5, atol=1e-7)
    entropy = -(p.mean(0) * p.mean(0).log()).sum(-1)
    information = entropy + (p * p.log()).sum(-1).mean(0)
    torch.testing.assert_close(found.entropy.double(), entropy, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.mutual_information.double(), information, rtol=1e-5, atol=1e-6)
    assert float(found.mutual_information.min()) >= 0
    assert float(found.entropy.max()) <= math.log(3) + 1e-6


def test_a_single_logit_is_the_second_of_two_classes():
    one = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    two = nn.Sequential(*one[:3], nn.Linear(8, 2))
    with torch.no_grad():
        two[3].weight.zero_()[1] = one[3].weight[0]
        two[3].bias.zero_()[1] = one[3].bias[0]
    single, double = (predict_mc(model, X, kind="classification") for model in (one, two))
    torch.testing.assert_close(single.mean[:, 0], double.mean[:, 1])
    torch.testing.assert_close(single.entropy, double.entropy)
    torch.testing.assert_close(single.mutual_information, double.mutual_information, rtol=1e-4, atol=1e-6)


def test_classes_may_be_any_axis():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Dropout2d(0.5), nn.Conv2d(4, 5, 1))
    x = torch.randn(2, 2, 6, 6)
    found = predict_mc(model, x, kind="classification", class_dim=1, samples=8)
    assert found.mean.shape == (2, 5, 4, 4)
    assert found.entropy.shape == (2, 4, 4)
    torch.testing.assert_close(found.mean.sum(1), torch.ones(2, 4, 4))
    same = predict_mc(model, x, kind="classification", class_dim=-3, samples=8)
    torch.testing.assert_close(found.entropy, same.entropy)


@pytest.mark.parametrize("class_dim", [0, 1, -1])
def test_an_output_without_classes_is_refused(class_dim):
    model = nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5), nn.Flatten(0))
    with pytest.raises(ConfigError, match="`class_dim` must be an axis"):
        predict_mc(model, X, kind="classification", class_dim=class_dim)


class Trunk(nn.Module):
    """A function that torch functions do not show lies before the first draw."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 3, 3), nn.Linear(6, 2)

    def forward(self, x):
        y = Unseen.apply(self.conv(x.unsqueeze(1)))
        return self.head(F.dropout2d(y.unsqueeze(-1), 0.5, self.training).flatten(1))


class Unseen(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.sin()


def test_what_comes_before_the_first_draw_runs_once():
    model = Trunk()
    with torch.no_grad(), torch.random.fork_rng(devices=[]), mc_dropout(model):
        model(X)
        prefix, outputs = Prefix([]), []
        for _ in range(3):
            torch.manual_seed(2)
            with prefix.one_pass():
                outputs.append(model(X))
            model.conv.weight.mul_(3)  # what runs again would show it
            assert prefix.num_kept > 0
        torch.manual_seed(2)
        assert not torch.equal(model(X), outputs[0])
    assert float(outputs[0].var()) > 0
    assert torch.equal(outputs[1], outputs[0])
    assert torch.equal(outputs[2], outputs[0])


def test_a_kept_part_gives_the_passes_that_full_ones_give():
    for make in (ResidualMLP, lambda: ResidualMLP(in_place=True), GatedMLP, Trunk):
        model = make()
        found = predict_mc(model, X, samples=6, seed=11, mask="rows")
        plain = naive(model, X, 6, seed=11)
        torch.testing.assert_close(found.mean.double(), plain.mean(0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found.variance.double(), plain.var(0), rtol=1e-5, atol=1e-6)


def test_in_place_changes_of_what_is_kept_are_noticed():
    kept, changed = Prefix([]), Prefix([])
    for prefix, in_place in ((kept, False), (changed, True)):
        model = ResidualMLP(in_place=in_place)
        with torch.no_grad(), mc_dropout(model), prefix.one_pass():
            model(X)
    assert kept.num_kept > 0
    assert changed.num_kept == 0


def test_batches_are_what_the_model_is_called_with():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.drop = nn.Linear(4, 2), nn.Dropout(0.5)

        def forward(self, a, b):
            return {"y": self.drop(self.linear(a + b)), "other": a}

    model = TwoInputs()
    by_name = predict_mc(model, {"a": X, "b": X}, output=lambda made: made["y"], samples=4)
    by_place = predict_mc(model, (X, X), output=lambda made: made["y"], samples=4)
    assert torch.equal(by_name.mean, by_place.mean)
    with pytest.raises(ConfigError, match=r"one tensor of floating-point numbers.*output=lambda"):
        predict_mc(model, (X, X))


def test_samples_for_an_error():
    model = mlp()
    found = predict_mc(model, X, samples=50)
    needed = found.samples_for(0.01)
    assert needed == pytest.approx(float(found.variance.max()) / 1e-4, abs=1.01)
    assert found.samples_for(1e9) == 2
    more = predict_mc(model, X, samples=needed)
    assert float(more.standard_error.max()) < 0.015
    with pytest.raises(ConfigError, match="`error`"):
        found.samples_for(0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "`samples` must be an integer in"),
        ({"samples": 2.5}, "`samples`"),
        ({"seed": -1}, "`seed`"),
        ({"kind": "ordinal"}, "`kind` must be one of"),
        ({"mask": "columns"}, "`mask` must be one of"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        predict_mc(mlp(), X, **settings)


def test_shared_masks_are_refused_where_there_is_no_chain():
    with pytest.raises(ConfigError, match="mask='shared' needs a chain"):
        predict_mc(ResidualMLP(), X, mask="shared")


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)).to("meta"), nn.Sequential(nn.LazyLinear(2), nn.Dropout())]
)
def test_models_without_numbers_are_refused(model):
    with pytest.raises(ConfigError, match=r"holds no numbers yet.*parameter '0\.weight'"):
        predict_mc(model, X)


def test_predictions_that_are_not_finite_are_an_error():
    with pytest.raises(DataError, match="not finite"):
        predict_mc(mlp(), torch.full((2, 4), math.nan))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, x = mlp().to(dtype), X.to(dtype)
    for mask in ("auto", "rows"):
        found = predict_mc(model, x, samples=300, mask=mask)
        assert found.mean.dtype == torch.float32
        full = predict_mc(mlp(), X, samples=300, mask=mask)
        error = (2 * full.variance / 300).sqrt()
        assert bool(((found.mean - full.mean).abs() < 5 * error + 0.02).all())


def test_hooks_are_obeyed():
    """A hook that doubles what a layer returns: the layer is no longer what its type says."""
    model = mlp()
    model[4].register_forward_hook(lambda module, args, output: output * 0)
    found = predict_mc(model, X, samples=4)
    assert found.mask == "rows"
    assert float(found.variance.max()) < 1e-12


def test_a_hook_before_the_first_dropout_leaves_the_chain():
    model = mlp()
    model[0].register_forward_hook(lambda module, args, output: output * 0)
    found = predict_mc(model, X, samples=400)
    assert found.mask == "shared"
    torch.testing.assert_close(found.mean, found.mean[:1].expand_as(found.mean))


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Softplus])
def test_what_moves_zero_after_dropout_is_no_chain(activation):
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), activation(), nn.Linear(8, 2))
    assert predict_mc(model, X, samples=2).mask == "rows"
    model = nn.Sequential(nn.Linear(4, 8), activation(), nn.Dropout(0.5), nn.Linear(8, 2), nn.ReLU())
    assert predict_mc(model, X, samples=2).mask == "shared"


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows):
    found = predict_mc(mlp(), X[:rows], samples=3)
    assert found.mean.shape == (rows, 3)
    assert isinstance(found, MCPrediction)
    assert found.samples_for(0.1) >= 2


def test_recurrent_and_attention_networks():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 8, num_layers=2, dropout=0.5, batch_first=True)
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)

        def forward(self, x):
            h = self.rnn(x)[0]
            return self.attention(h, h, h, need_weights=False)[0].mean(1)

    x, model = torch.randn(3, 5, 4), Tagger()
    found, plain = predict_mc(model, x, samples=5, seed=2), naive(model, x, 5, seed=2)
    torch.testing.assert_close(found.mean.double(), plain.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.variance.double(), plain.var(0), rtol=1e-4, atol=1e-8)
