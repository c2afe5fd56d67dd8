"""Where each network method puts a layer, and where it does not."""

import pytest

from poise.functional.schedule import LateOnly
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
PLACES = [
    (BatchNorm(), {"norm"}, {"norm"}),
    (LayerNorm(), {"norm"}, {"norm"}),
    (Dropout(p=0.3), {"hidden"}, set()),
    (Dropout(p=0.3, input_p=0.1), {"input", "hidden"}, {"input"}),
    (Dropout(p=0.3, input_p=LateOnly(0.1)), {"input", "hidden"}, {"input"}),
    (Dropout(p=0.3, where="all"), {"hidden"}, {"hidden"}),
    (AlphaDropout(), {"hidden"}, {"hidden"}),
    (DropPath(), {"branch"}, {"branch"}),
    (GaussianNoise(), {"input"}, {"input"}),
]


@pytest.mark.parametrize(("method", "free", "before_batch_norm"), PLACES, ids=[repr(place[0]) for place in PLACES])
def test_layers_stand_at_their_sites(method, free, before_batch_norm):
    assert {kind for kind in KINDS if method.layer(Site(kind, 4)) is not None} == free
    found = {kind for kind in KINDS if method.layer(Site(kind, 4, before_batch_norm=True)) is not None}
    assert found == before_batch_norm


def test_layers_suit_the_layout_of_their_site():
    maps, sequence = Site("norm", 4, layout="maps"), Site("norm", 4, layout="sequence")
    assert type(BatchNorm().layer(maps)).__name__ == "BatchNorm"
    assert BatchNorm().layer(sequence) is None
    group = LayerNorm(eps=1e-3, affine=False).layer(maps)
    assert (group.num_groups, group.num_channels, group.eps, group.affine) == (1, 4, 1e-3, False)
    assert type(LayerNorm().layer(sequence)).__name__ == "LayerNorm"
    layouts = ("rows", "maps", "sequence")
    kinds = [type(Dropout().layer(Site("hidden", 4, layout=layout))).__name__ for layout in layouts]
    assert kinds == ["Dropout", "ChannelDropout", "Dropout"]


def test_every_network_method_is_in_the_table():
    assert {type(method) for method, *_ in PLACES} == {
        method for method in METHODS.values() if issubclass(method, NetworkMethod)
    }


def test_settings_reach_the_layer():
    norm = BatchNorm(momentum=0.3, eps=1e-3, affine=False, ghost_size=8).layer(Site("norm", 4))
    assert (norm.num_features, norm.momentum, norm.eps, norm.ghost_size) == (4, 0.3, 1e-3, 8)
    rows = LayerNorm(eps=1e-3, affine=False).layer(Site("norm", 4))
    assert (rows.num_features, rows.eps) == (4, 1e-3)
    assert [*norm.parameters(), *rows.parameters()] == []
    assert len(list(BatchNorm().layer(Site("norm", 4)).parameters())) == 2
    assert len(list(LayerNorm().layer(Site("norm", 4)).parameters())) == 2
