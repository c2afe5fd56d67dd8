"""Where each network method puts its layer, and which settings follow a schedule."""

import pytest

from poise.functional.schedule import Linear
from poise.methods import (
    METHODS,
    AlphaDropout,
    BatchNorm,
    Dropout,
    DropPath,
    GaussianNoise,
    LayerNorm,
    NetworkMethod,
    Site,
)

KINDS = ("input", "norm", "hidden", "branch")
PLACED = {
    Dropout(input_p=0.1): ("input", "hidden"),
    Dropout(): ("hidden",),
    Dropout(p=0.0): ("hidden",),
    AlphaDropout(): ("hidden",),
    DropPath(): ("branch",),
    GaussianNoise(): ("input",),
    BatchNorm(): ("norm",),
    LayerNorm(): ("norm",),
}


@pytest.mark.parametrize("method", PLACED, ids=repr)
def test_layers_stand_at_their_sites_only(method):
    found = tuple(kind for kind in KINDS if method.layer(Site(kind, 4, depth=1.0)) is not None)
    assert found == PLACED[method]


def test_every_network_method_is_in_the_table():
    assert {type(method) for method in PLACED} == {one for one in METHODS.values() if issubclass(one, NetworkMethod)}


def test_hidden_dropout_keeps_out_of_the_way_of_batch_norm():
    before, after = Site("hidden", 4, before_batch_norm=True), Site("hidden", 4)
    assert Dropout(p=0.3).layer(before) is None
    assert Dropout(p=0.3).layer(after).p == 0.3
    assert Dropout(p=0.3, where="all").layer(before).p == 0.3
    assert Dropout(input_p=0.1).layer(Site("input", 4, before_batch_norm=True)).p == 0.1


@pytest.mark.parametrize(("depth", "p"), [(0.0, 0.0), (0.25, 0.1), (1.0, 0.4)])
def test_drop_path_grows_with_depth(depth, p):
    assert DropPath(p=0.4).layer(Site("branch", 4, depth=depth)).p == pytest.approx(p)


@pytest.mark.parametrize(
    ("method", "site", "name", "expected"),
    [
        (Dropout(p=Linear(0.0, end=0.4), input_p=0.2), Site("hidden", 4), "p", (0.0, 0.2, 0.4)),
        (Dropout(p=0.2, input_p=Linear(0.0, end=0.4)), Site("input", 4), "p", (0.0, 0.2, 0.4)),
        (AlphaDropout(p=Linear(0.0, end=0.4)), Site("hidden", 4), "p", (0.0, 0.2, 0.4)),
        (DropPath(p=Linear(0.0, end=0.4)), Site("branch", 4, depth=0.5), "p", (0.0, 0.1, 0.2)),
        (GaussianNoise(std=Linear(1.0, end=3.0)), Site("input", 4), "std", (1.0, 2.0, 3.0)),
    ],
)
def test_settings_follow_the_schedule(method, site, name, expected):
    layer = method.layer(site)
    assert getattr(layer, name) == expected[0]
    for progress, value in zip((0.0, 0.5, 1.0), expected, strict=True):
        assert method.at(progress).settings(site) == {name: pytest.approx(value)}


def test_settings_of_normalizations_reach_the_layer():
    layer = BatchNorm(momentum=0.3, eps=1e-3, affine=False, ghost_size=8).layer(Site("norm", 5))
    assert (layer.momentum, layer.eps, layer.weight, layer.ghost_size, layer.num_features) == (0.3, 1e-3, None, 8, 5)
    layer = LayerNorm(eps=1e-3, affine=False).layer(Site("norm", 5))
    assert (layer.eps, layer.weight, layer.num_features) == (1e-3, None, 5)
    assert BatchNorm().settings(Site("norm", 5)) == {}
