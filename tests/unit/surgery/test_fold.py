"""Folding on small networks in float64: what can be folded is gone and exact, what cannot is named and stays."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import poise.nn as pn
from poise._errors import ConfigError, DataError, SurgeryError
from poise.surgery import _edit, freeze
from poise.surgery._folding._fold import fold, fold_plan

NORMS = (nn.modules.batchnorm._BatchNorm, pn.BatchNorm, pn.NormActDropout)


def prepared(model, seed=0):
    """In float64 with statistics and parameters that a fresh norm does not have; some scales are negative."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    for module in model.modules():
        if isinstance(module, NORMS) and getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 2, generator=generator)
        if isinstance(module, (*NORMS, nn.LayerNorm)) and module.weight is not None:
            with torch.no_grad():
                module.weight.normal_(generator=generator)
                module.bias.normal_(generator=generator)
    return model


def randn(*shape, seed=5):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def norms_of(model):
    return [name for name, module in model.named_modules() if isinstance(module, NORMS)]


def folded(model, *x, left=0, tolerance=1e-12):
    """The folded model; it computes the same on rows that folding has not seen, and `left` norms stay."""
    model = prepared(model)
    state = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    made = fold(model, x)
    assert not made.training
    assert flags == [module.training for module in model.modules()]
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    fresh = tuple(randn(*one.shape, seed=11 + i) if one.is_floating_point() else one for i, one in enumerate(x))
    with torch.no_grad():
        wanted, found = model.eval()(*fresh), made(*fresh)
    assert float((wanted - found).abs().max()) <= tolerance * float(wanted.abs().max())
    assert len(norms_of(made)) == left, fold_plan(model, x)
    return made


class Net(nn.Module):
    """Parts by name, and a function that runs them."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


class NetOfTwo(Net):
    def forward(self, x, y):
        return self.run(self, x, y)


CONVOLUTIONS = {
    "1d": (nn.Conv1d, nn.BatchNorm1d, (3, 4, 9)),
    "2d": (nn.Conv2d, nn.BatchNorm2d, (3, 4, 7, 6)),
    "3d": (nn.Conv3d, nn.BatchNorm3d, (2, 4, 5, 6, 7)),
    "transposed 1d": (nn.ConvTranspose1d, nn.BatchNorm1d, (3, 4, 9)),
    "transposed 2d": (nn.ConvTranspose2d, nn.BatchNorm2d, (3, 4, 7, 6)),
    "transposed 3d": (nn.ConvTranspose3d, nn.BatchNorm3d, (2, 4, 3, 4, 5)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_convolution_then_norm(kind, groups, bias, affine):
    conv, norm, shape = CONVOLUTIONS[kind]
    settings = {"stride": 2, "padding": 1, "groups": groups, "bias": bias}
    made = folded(nn.Sequential(conv(4, 8, 3, **settings), norm(8, affine=affine), nn.ReLU()), randn(*shape))
    assert isinstance(made[1], nn.Identity)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm, pn.BatchNorm])
def test_every_batch_norm(norm):
    folded(nn.Sequential(nn.Conv2d(3, 4, 3), norm(4)), randn(2, 3, 5, 5))


@pytest.mark.parametrize("linear", [nn.Linear, pn.Linear])
def test_linear_then_norm(linear):
    folded(nn.Sequential(linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), linear(4, 2)), randn(6, 3))


def test_chains_of_norms():
    made = folded(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.BatchNorm1d(4)), randn(6, 3))
    assert [type(layer) for layer in made] == [nn.Linear, nn.Identity, nn.Identity, nn.Identity]


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("groups", [1, 2])
def test_norm_then_convolution(mode, groups):
    """Paddings that copy values copy normalized ones; zeros are added after the norm, so that it stays."""
    conv = nn.Conv2d(4, 6, 3, padding=1, padding_mode=mode, groups=groups)
    folded(nn.Sequential(nn.BatchNorm2d(4), conv), randn(2, 4, 6, 6), left=int(mode == "zeros"))


@pytest.mark.parametrize(("padding", "size", "left"), [(0, 3, 0), ("valid", 3, 0), ("same", 3, 1), ("same", 1, 0)])
def test_norm_then_convolution_goes_by_what_is_padded(padding, size, left):
    folded(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, size, padding=padding)), randn(2, 4, 6, 6), left=left)


@pytest.mark.parametrize("conv", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 2])
def test_norm_without_shift_goes_through_zero_padding(conv, groups):
    model = prepared(nn.Sequential(nn.BatchNorm2d(4, affine=False), conv(4, 6, 3, padding=1, groups=groups)))
    model[0].running_mean.zero_()
    made = fold(model, randn(2, 4, 6, 6))
    assert isinstance(made[0], nn.Identity)
    x = randn(3, 4, 6, 6, seed=9)
    torch.testing.assert_close(made(x), model.eval()(x), rtol=1e-12, atol=1e-12)


def test_norm_with_shift_before_transposed_stays():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 3))
    folded(model, randn(2, 4, 6, 6), left=1)
    assert "1 after it is transposed" in str(fold_plan(model, randn(2, 4, 6, 6)))


def test_norm_then_linear_also_into_several():
    run = lambda net, x: net.a(net.norm(x)) + net.b(net.norm(x).clone())  # noqa: E731
    folded(Net(run, norm=nn.BatchNorm1d(3), a=nn.Linear(3, 4), b=nn.Linear(3, 4)), randn(6, 3))


MOVES = {
    "flatten to wide": (nn.Conv2d(3, 4, 3), lambda x: x.flatten(2), nn.BatchNorm1d(4), (2, 3, 5, 6), 0),
    "transpose": (nn.Linear(5, 4), lambda x: x.transpose(1, 2), nn.BatchNorm1d(4), (6, 7, 5), 0),
    "permute": (nn.Linear(5, 4), lambda x: x.permute(0, 3, 1, 2), nn.BatchNorm2d(4), (6, 7, 3, 5), 0),
    "rows": (nn.Linear(5, 4), lambda x: x.view(-1, 4), nn.BatchNorm1d(4), (6, 7, 5), 0),
    "heads": (nn.Linear(5, 12), lambda x: x.view(-1, 3, 4), nn.BatchNorm1d(3), (6, 5), 0),
    "shuffle": (
        nn.Conv2d(3, 6, 1), lambda x: x.view(2, 2, 3, 4, 4).transpose(1, 2).flatten(1, 2), nn.BatchNorm2d(6),
        (2, 3, 4, 4), 0,
    ),
    "cast": (nn.Linear(5, 4), lambda x: x.to(torch.float64).contiguous(), nn.BatchNorm1d(4), (6, 5), 0),
    "positions are channels": (nn.Conv2d(3, 4, 3), lambda x: x.flatten(1), nn.BatchNorm1d(48), (2, 3, 5, 6), 1),
    "other axis": (nn.Linear(5, 4), lambda x: x, nn.BatchNorm1d(4), (6, 4, 5), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_channels_are_followed_through_moves(name):
    kernel, move, norm, shape, left = MOVES[name]
    folded(Net(lambda net, x: net.norm(move(net.kernel(x))), kernel=kernel, norm=norm), randn(*shape), left=left)


def test_channels_are_followed_after_the_norm():
    run = lambda net, x: net.head(net.norm(x).flatten(1))  # noqa: E731
    folded(Net(run, norm=nn.BatchNorm2d(3), head=nn.Linear(60, 4)), randn(2, 3, 4, 5))
    run = lambda net, x: net.head(net.norm(x).transpose(1, 2))  # noqa: E731
    folded(Net(run, norm=nn.BatchNorm1d(3), head=nn.Linear(3, 4)), randn(2, 3, 5))
    folded(Net(run, norm=nn.BatchNorm1d(3), head=nn.Linear(3, 4)), randn(2, 3, 3))
    run = lambda net, x: net.head(net.norm(x))  # noqa: E731
    folded(Net(run, norm=nn.BatchNorm1d(3), head=nn.Linear(3, 4)), randn(2, 3, 3), left=1)


def test_a_kernel_that_feeds_others_stays():
    def run(net, x):
        y = net.kernel(x)
        return net.norm(y) + y

    net = Net(run, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4))
    folded(net, randn(6, 3), left=1)
    assert "kernel before it feeds more than that" in str(fold_plan(net, randn(6, 3)))


def test_a_kernel_whose_output_is_returned_stays():
    def run(net, x):
        y = net.kernel(x)
        return torch.cat([y, net.norm(y)], 1)

    folded(Net(run, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)), randn(6, 3), left=1)


def test_shared_layers():
    """Folded where it is right for every call: the Siamese network; otherwise kept."""
    twin = lambda net, x, y: net.norm(net.kernel(x)) * net.norm(net.kernel(y))  # noqa: E731
    folded(NetOfTwo(twin, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)), randn(6, 3), randn(6, 3))
    two = lambda net, x: net.norm(net.a(x)) * net.norm(net.b(x))  # noqa: E731
    folded(Net(two, a=nn.Linear(3, 4), b=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)), randn(6, 3))
    once = lambda net, x: net.norm(net.kernel(x)) * net.kernel(x)  # noqa: E731
    folded(Net(once, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)), randn(6, 3), left=1)
    other = lambda net, x: net.norm(net.kernel(x)) * net.norm(x[:, :2].repeat(1, 2))  # noqa: E731
    folded(Net(other, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)), randn(6, 3), left=1)
    norms = lambda net, x: net.a(net.kernel(x)) * net.b(net.kernel(x))  # noqa: E731
    folded(Net(norms, kernel=nn.Linear(3, 4), a=nn.BatchNorm1d(4), b=nn.BatchNorm1d(4)), randn(6, 3), left=2)
    again = lambda net, x: net.kernel(net.norm(x)) * net.kernel(net.norm(x + 1))  # noqa: E731
    folded(Net(again, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(3)), randn(6, 3))
    half = lambda net, x: net.kernel(net.norm(x)) * net.kernel(x)  # noqa: E731
    folded(Net(half, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(3)), randn(6, 3), left=1)
    raw = lambda net, x: net.kernel(net.norm(x)) * net.norm(x).sum(1, keepdim=True)  # noqa: E731
    folded(Net(raw, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(3)), randn(6, 3), left=1)


def test_a_layer_that_is_registered_twice():
    norm = nn.BatchNorm1d(4)
    run = lambda net, x: net.also(net.kernel(x)) if net.norm is net.also else None  # noqa: E731
    folded(Net(run, kernel=nn.Linear(3, 4), norm=norm, also=norm), randn(6, 3))


def test_tied_weights_are_untied():
    net = Net(lambda net, x: net.b(net.norm(net.a(x))), a=nn.Linear(4, 4), norm=nn.BatchNorm1d(4), b=nn.Linear(4, 4))
    net.b.weight = net.a.weight
    made = folded(net, randn(6, 4))
    assert torch.equal(made.b.weight, net.b.weight)
    assert not torch.equal(made.a.weight, net.a.weight)


def test_weights_that_a_function_reads_stay():
    net = Net(lambda net, x: F.linear(net.norm(net.a(x)), net.a.weight), a=nn.Linear(4, 4), norm=nn.BatchNorm1d(4))
    folded(net, randn(6, 4), left=1)
    assert "a before it has weights that a function reads" in str(fold_plan(net, randn(6, 4)))


@pytest.mark.parametrize("parametrize", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_kernels_become_plain(parametrize):
    made = folded(nn.Sequential(parametrize(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)), randn(2, 3, 5, 5))
    assert type(made[0]) is nn.Conv2d
    assert sorted(made[0].state_dict()) == ["bias", "weight"]


def test_the_original_of_a_parametrized_kernel_stays_so():
    model = prepared(nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.BatchNorm1d(4)))
    fold(model, randn(6, 3))
    assert "0.parametrizations.weight.original0" in model.state_dict()
    assert model(randn(6, 3)).requires_grad


def test_hooks():
    """What somebody looks at, or changes, stays what it was."""
    for place in (0, 1):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        handle = model[place].register_forward_hook(lambda module, args, output: None)
        folded(model, randn(6, 3), left=1)
        assert "has hooks" in str(fold_plan(model, randn(6, 3)))
        handle.remove()
        model[place].register_forward_hook(lambda module, args, output: output + 1)
        folded(model, randn(6, 3), left=1)


def test_what_poise_apply_attaches_is_folded():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    _edit.apply_edits(model, [
        _edit.Attach("0", "", 0.0, pn.BatchNorm(4), "norm"), _edit.Attach("1", "", 0.0, pn.Dropout(0.3), "dropout"),
        _edit.Attach("0", "", 0.0, pn.BatchNorm(3), "before", before=True),
    ])  # fmt: skip
    made = folded(model, randn(6, 3))
    assert [type(made[0].norm), type(made[0].before), type(made[1].dropout)] == [nn.Identity] * 3


def test_normalization_with_activation():
    made = folded(nn.Sequential(nn.Linear(3, 4), pn.NormActDropout(4, 0.3, activation="gelu")), randn(6, 3))
    assert isinstance(made[1], nn.GELU)
    made = folded(nn.Sequential(pn.NormActDropout(3, 0.3, activation="identity"), nn.Linear(3, 4)), randn(6, 3))
    assert isinstance(made[0], nn.Identity)
    folded(nn.Sequential(pn.NormActDropout(3, 0.3), nn.Linear(3, 4)), randn(6, 3), left=1)
    layers = (pn.NormActDropout(3, norm="layer"), pn.NormActDropout(3, norm="none", affine=False))
    made = folded(nn.Sequential(*layers), randn(6, 3), left=1)
    assert made[0].p == 0
    assert isinstance(made[1], nn.ReLU)
    folded(nn.Sequential(nn.Linear(3, 4), pn.NormActDropout(4, norm="none")), randn(6, 3))


def test_what_cannot_be_folded_is_named():
    class Scaled(nn.BatchNorm1d):
        def forward(self, x):
            return 2 * super().forward(x)

    def run(net, x):
        y = F.batch_norm(net.a(x), net.mean, net.var)
        return net.own(net.b(net.untracked(net.layer(net.c(y)))))

    net = Net(run, a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4), layer=nn.LayerNorm(4), own=Scaled(4),
              untracked=nn.BatchNorm1d(4, track_running_stats=False), idle=nn.BatchNorm1d(4),
              mean=torch.zeros(4).double(), var=torch.ones(4).double())  # fmt: skip
    folded(net, randn(6, 3), left=3)
    text = str(fold_plan(net, randn(6, 3)))
    for reason in ("a function and no layer", "no running statistics", "the example does not reach it", "its own"):
        assert reason in text
    assert len(fold_plan(net, randn(6, 3)).left) == 4


def test_subclasses_that_compute_the_same_are_folded():
    """As EfficientNet of transformers has one for its depthwise convolutions."""

    class Depthwise(nn.Conv2d):
        def __init__(self, channels):
            super().__init__(channels, channels, 3, groups=channels)

    class Norm(nn.BatchNorm2d):
        pass

    class Tilted(nn.Conv2d):
        def _conv_forward(self, x, weight, bias):
            return super()._conv_forward(x, weight, bias).flip(1)

    made = folded(nn.Sequential(Depthwise(4), Norm(4), nn.ReLU(), Depthwise(4), nn.BatchNorm2d(4)), randn(2, 4, 9, 9))
    assert type(made[0]) is Depthwise
    folded(nn.Sequential(Depthwise(4), Norm(4), Tilted(4, 4, 3), Norm(4)), randn(2, 4, 9, 9), left=1)


def test_frozen_norms_are_folded_and_those_of_domains_stay():
    for norm in (nn.BatchNorm1d(4), pn.BatchNorm(4), pn.NormActDropout(4, 0.5)):
        model = nn.Sequential(nn.Linear(3, 4), norm)
        freeze(model, "norm")
        folded(model, randn(6, 3))
    model = nn.Sequential(nn.Linear(3, 4), pn.BatchNorm(4, num_domains=2))
    model[1].domain = 1
    folded(model, randn(6, 3), left=1)
    assert "for each domain" in str(fold_plan(model, randn(6, 3)))


def test_statistics_that_are_not_finite_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[1].running_var[0] = torch.nan
    assert "not finite" in str(fold_plan(model, torch.randn(6, 3)))


def test_every_dropout_is_removed():
    class DropPath(nn.Module):
        def forward(self, x):
            return x * (torch.rand(len(x), 1) > 0.5) if self.training else x

    layers = [nn.Dropout(), nn.Dropout1d(), nn.AlphaDropout(), nn.FeatureAlphaDropout(), pn.Dropout(),
              pn.AlphaDropout(), pn.DropPath(), pn.GaussianNoise(), DropPath()]  # fmt: skip
    made = folded(nn.Sequential(nn.Linear(3, 4), *layers, nn.BatchNorm1d(4)), randn(6, 3))
    assert {type(layer) for layer in made[1:]} == {nn.Identity}
    lstm = Net(lambda net, x: net.layer(x)[0], layer=nn.LSTM(3, 4, num_layers=2, dropout=0.5))
    assert folded(lstm, randn(5, 2, 3)).layer.dropout == 0.0
    attention = Net(lambda net, x: net.layer(x, x, x)[0], layer=nn.MultiheadAttention(4, 2, dropout=0.5))
    assert folded(attention, randn(5, 2, 4)).layer.dropout == 0.0


def test_functional_dropout_is_passed_by():
    run = lambda net, x: net.norm(F.dropout(net.kernel(x), 0.5, net.training))  # noqa: E731
    folded(Net(run, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)), randn(6, 3))
    always = Net(lambda net, x: net.norm(F.dropout(net.kernel(x))), kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4))
    assert "it drops in eval mode" in str(fold_plan(prepared(always), randn(6, 3)))


def test_the_network_itself_may_be_one_layer():
    assert isinstance(folded(nn.BatchNorm1d(3), randn(6, 3), left=1), nn.BatchNorm1d)
    folded(nn.Linear(3, 4), randn(6, 3))
    assert "the network itself" in str(fold_plan(nn.Dropout(), torch.randn(2)))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)])
def test_other_precisions(dtype, bound):
    model = prepared(nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    )).to(dtype)  # fmt: skip
    made = fold(model, randn(4, 3, 9, 9).to(dtype))
    assert norms_of(made) == []
    assert {one.dtype for one in made.parameters()} == {dtype}
    x = randn(4, 3, 9, 9, seed=7).to(dtype)
    wanted, found = model.eval()(x).detach().double(), made(x).detach().double()
    assert float((wanted - found).abs().max()) <= bound * float(wanted.abs().max())


def test_gradients_flow_as_before():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).requires_grad_(False))
    made = fold(prepared(model), randn(6, 3))
    assert [one.requires_grad for one in made.parameters()] == [True, True, False, False]


def test_structures_of_inputs_and_outputs():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

        def forward(self, x, *, flag=False):
            return {"y": self.net(x), "flag": flag, "rows": len(x)}

    model = prepared(Both())
    made = fold(model, {"x": randn(6, 3)})
    x = randn(6, 3, seed=8)
    torch.testing.assert_close(made(x=x)["y"], model.eval()(x=x)["y"], rtol=1e-12, atol=1e-12)
    assert norms_of(made) == []


def test_bad_input_is_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(ConfigError, match=r"'0\.weight'.*Load weights"):
        fold(nn.Sequential(nn.Linear(3, 4, device="meta")), torch.randn(2, 3))
    with pytest.raises(ConfigError, match="on the meta device"):
        fold(model, torch.randn(2, 3, device="meta"))
    with pytest.raises(ConfigError, match="Call the model once"):
        fold(nn.Sequential(nn.LazyLinear(4)), torch.randn(2, 3))
    with pytest.raises(ConfigError, match="compiled"):
        fold(torch.compile(model, backend="eager"), torch.randn(2, 3))
    with pytest.raises(ConfigError, match="must be a torch"):
        fold(3, torch.randn(2, 3))
    with pytest.raises(ConfigError, match="`tolerance`"):
        fold(model, torch.randn(2, 3), tolerance=-1)
    with pytest.raises(DataError, match="no numbers"):
        fold(model, torch.randn(0, 3))
    with pytest.raises(DataError, match="fails on the example: RuntimeError"):
        fold(model, torch.randn(2, 5))
    with pytest.raises(DataError, match="returns no tensor"):
        fold(Net(lambda net, x: 3, a=nn.Linear(3, 4)), torch.randn(2, 3))


def test_a_model_that_cannot_be_copied():
    class Locked(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("not me")

    with pytest.raises(SurgeryError, match="cannot be copied: not me"):
        fold(nn.Sequential(Locked(3, 4)), torch.randn(2, 3))


def test_outputs_that_differ_are_refused():
    """Code that reads the statistics of a norm by itself sees that they are gone."""
    peek = lambda net, x: net.norm(net.kernel(x)) * net.norm.running_var.sum()  # noqa: E731
    with pytest.raises(SurgeryError, match="needs a layer that was folded"):
        fold(Net(peek, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)), torch.randn(6, 3))
    peek = lambda net, x: net.norm(net.kernel(x)) * sum(net.kernel.bias.tolist())  # noqa: E731
    with pytest.raises(SurgeryError, match="would be off by"):
        fold(prepared(Net(peek, kernel=nn.Linear(3, 4), norm=nn.BatchNorm1d(4))), randn(6, 3))


@torch.no_grad()
def test_a_model_that_rounds_by_more_than_the_tolerance_is_measured_against_itself_in_float64():
    """What is left of large numbers that cancel has few right digits, folded or not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).eval()
    with torch.no_grad():
        model[0].bias.fill_(1e4)
        model[1].running_mean.fill_(1e4)
    x = torch.randn(64, 8)
    exact = copy.deepcopy(model).double()(x.double())
    error = float((model(x).double() - exact).abs().max() / exact.abs().max())
    assert error > 1e-5
    made = fold(model, x)
    assert float((made(x).double() - exact).abs().max() / exact.abs().max()) <= 2 * error
    with pytest.raises(SurgeryError, match="those of the model itself are by"):
        fold(model, x, tolerance=1e-6)
