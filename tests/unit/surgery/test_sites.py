"""Where layers may go: spots, layouts and places in recorded graphs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from poise.surgery._graph._trace import graph_of
from poise.surgery._insertion._branches import branch_spots
from poise.surgery._insertion._sites import (
    Place,
    hidden_spots,
    input_spots,
    layout_of,
    norm_spots,
    places_of,
    touched_by,
)


class Residual(nn.Module):
    """x + conv(relu(conv(x))), with a projection of x where widths differ."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inner, outer, 3, padding=1), nn.Conv2d(outer, outer, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)
        self.project = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x):
        branch = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(self.project(x) + branch)


class Formula(nn.Module):
    """An activation that is written out."""

    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3)))


class Functional(nn.Module):
    """All functions in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.two(functional.relu(self.one(x)))


def test_a_norm_goes_between_kernel_and_activation():
    graph = graph_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(3, 4))
    (spot,) = norm_spots(graph)
    assert (spot.node.name, spot.site.num_features, spot.site.layout, spot.refusal) == ("0", 8, "rows", "")
    assert places_of(graph, spot.node, elementwise=True)[0] == Place("0")


def test_a_norm_follows_the_activation_where_others_do():
    layers = [nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8)]
    graph = graph_of(nn.Sequential(*layers, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(3, 4))
    spots = norm_spots(graph)
    assert [(spot.node.name, spot.present.name if spot.present else None) for spot in spots] == [
        ("1", "2"),
        ("4", "5"),
        ("7", None),
    ]
    # What the last kernel sees is normalized, so its own output is not.
    assert spots[-1].refusal == "its input is normalized already"


def test_layouts_of_maps_sequences_and_rows():
    maps = graph_of(nn.Sequential(nn.Conv1d(3, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(20, 2)), torch.zeros(2, 3, 4))
    assert [layout_of(node) for node in maps] == ["rows" if len(node.shape) == 2 else _expected(node) for node in maps]
    sequence = graph_of(nn.Sequential(nn.Linear(3, 5), nn.ReLU()), torch.zeros(2, 4, 3))
    assert layout_of(sequence.nodes[-1]) == "sequence"


def _expected(node):
    return "sequence" if node.op == "input" else "maps"


def test_residual_branches_have_a_depth():
    model = nn.Sequential(Residual(3, 3), Residual(3, 6), Residual(6, 6))
    spots = branch_spots(graph_of(model, torch.zeros(2, 3, 4, 4)))
    assert [spot.node.name for spot in spots] == ["0.norm2", "1.norm2", "2.norm2"]
    assert [spot.site.depth for spot in spots] == [0.0, 0.5, 1.0]
    assert {spot.refusal for spot in spots} == {""}


def test_sums_without_a_branch_are_none():
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.table = nn.Linear(4, 4), nn.Linear(4, 4), nn.Embedding(5, 4)

        def forward(self, x, ids):
            even = self.one(x) + self.two(x)  # both have passed one kernel
            return even + self.table(ids)  # nothing in common

    assert branch_spots(graph_of(Sums(), (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)))) == []


def test_rows_in_windows_are_no_rows():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            parts = x.reshape(-1, 1, 4)
            return (parts + self.inner(parts)).reshape(x.shape)

    (spot,) = branch_spots(graph_of(Windows(), torch.zeros(2, 3, 4)))
    assert "first axis" in spot.refusal


def test_functions_are_reached_through_their_only_consumer():
    model = Functional()
    graph = graph_of(model, torch.zeros(3, 4))
    (spot,) = hidden_spots(graph)
    assert spot.node.op == "relu"
    assert places_of(graph, spot.node, elementwise=True) == [Place("two", before=True)]
    assert touched_by(graph, Place("two", before=True)) == {spot.node}


def test_a_layer_for_maps_does_not_go_where_they_are_reshaped_or_turned():
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv1d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(functional.relu(self.conv(x)).transpose(1, 2).contiguous())

    graph = graph_of(Turned(), torch.zeros(3, 4, 4))  # as long as it is wide, so that the shape tells nothing
    (spot,) = hidden_spots(graph)
    assert spot.site.layout == "maps"
    assert places_of(graph, spot.node, elementwise=False) == []
    assert places_of(graph, spot.node, elementwise=True) == [Place("head", before=True)]


def test_a_written_out_activation_is_one_spot():
    graph = graph_of(nn.Sequential(nn.Linear(4, 4), Formula(), nn.Linear(4, 2)), torch.zeros(3, 4))
    (spot,) = hidden_spots(graph)
    assert spot.node.returned_by == ["1"]
    assert Place("1") in places_of(graph, spot.node, elementwise=True)


def test_what_is_returned_is_next_to_the_output():
    graph = graph_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Softmax(dim=1)), torch.zeros(3, 4))
    assert [spot.refusal for spot in hidden_spots(graph)] == ["it is next to the output"]


def test_inputs_that_are_codes_have_no_noise():
    (spot,) = input_spots(graph_of(nn.Embedding(5, 4), torch.zeros(3, dtype=torch.int64)))
    assert "no real numbers" in spot.refusal


def test_a_shared_module_has_one_place_for_all_its_calls():
    relu, linear = nn.ReLU(), nn.Linear(4, 4)
    graph = graph_of(nn.Sequential(linear, relu, linear, relu, nn.Linear(4, 2)), torch.zeros(3, 4))
    spots = hidden_spots(graph)
    assert len(spots) == 2
    assert touched_by(graph, Place("1")) == {spot.node for spot in spots}


def test_gates_are_refused():
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

        def forward(self, x):
            inner = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
            return x * torch.sigmoid(self.excite(inner))

    (spot,) = norm_spots(graph_of(Gate(), torch.zeros(2, 4, 3, 3)))
    assert "gate" in spot.refusal


def test_without_an_example_widths_come_from_the_layers():
    graph = graph_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)))
    (spot,) = norm_spots(graph)
    assert (spot.site.num_features, spot.site.layout) == (8, "maps")
