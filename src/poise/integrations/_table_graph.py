"""The ONNX graph of a fitted estimator: raw columns in, labels and probabilities or values out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from poise.data._buckets import FIRST, RARE, UNKNOWN, Buckets
from poise.data._column import escape
from poise.integrations._calendar import MISSING
from poise.integrations._capture import capture
from poise.integrations._table_network import Raw, TableNetwork

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    from poise.estimators import PoiseClassifier, PoiseRegressor

_GAPS = ("", "None", "nan")
_ML_OPSET = 2


@dataclass(frozen=True)
class ColumnInput:
    """A column of the table, and the input of the graph that takes it.

    Args:
        column: Name of the column.
        input: Name of the input; the same unless ONNX cannot have it.
        kind: "number" or "boolean" (double), "date" (int64) or "category" (string).
        missing: What stands for a missing value; none where a category has such a name.
    """

    column: str
    input: str
    kind: str
    missing: tuple[str, ...]


def table_columns(model: PoiseClassifier | PoiseRegressor) -> tuple[ColumnInput, ...]:
    """The inputs of the graph, one for each feature, in the order of the training table."""
    encoder = model.predictor_.encoder
    buckets = dict(zip((one.name for one in encoder.schema.of("category")), encoder.buckets, strict=True))
    taken = {column.name for column in encoder.schema.features}
    found = []
    for index, column in enumerate(encoder.schema.features):
        name = column.name or _free(f"column_{index}", taken)
        gap = {"date": (str(MISSING),), "category": ()}.get(column.kind, ("NaN",))
        if column.kind == "category":
            seen = {*buckets[column.name].kept, *buckets[column.name].rare}
            gap = tuple(one for one in _GAPS if one not in seen)
        found.append(ColumnInput(column.name, name, column.kind, gap))
    return tuple(found)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def build_table_graph(model: PoiseClassifier | PoiseRegressor, columns: tuple[ColumnInput, ...]) -> ModelProto:
    """The whole graph.

    Args:
        model: Fitted.
        columns: As `table_columns` gives them.
    """
    from onnx import compose, helper

    network = TableNetwork(model.predictor_)
    groups = {kind: [one for one in columns if one.kind == kind] for kind in Raw._fields}
    groups = {kind: members for kind, members in groups.items() if members}
    dtypes = {"date": torch.int64, "category": torch.int64}
    example = {
        kind: torch.zeros(3, len(members), dtype=dtypes.get(kind, torch.float64)) for kind, members in groups.items()
    }
    proto = capture(network, example, ["outputs"], ())
    taken = {one.input for one in columns}
    prefix = "poise/"
    while any(name.startswith(prefix) for name in taken):
        prefix += "/"
    proto = compose.add_prefix(proto, prefix)
    front, constants = _front(groups, network, prefix)
    classes = getattr(model, "classes_", None)
    names = [_free(name, taken) for name in (("prediction",) if classes is None else ("label", "probabilities"))]
    back, outputs, labels = _back(names, classes, prefix)
    nodes = [*front, *proto.graph.node, *back]
    for field, values in (("node", nodes), ("input", _inputs(columns)), ("output", outputs)):
        proto.graph.ClearField(field)
        getattr(proto.graph, field).extend(values)
    proto.graph.initializer.extend((*constants, *labels))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", _ML_OPSET))
    helper.set_model_props(proto, {"poise.columns": json.dumps([asdict(one) for one in columns])})
    return proto


def _inputs(columns: tuple[ColumnInput, ...]) -> list[Any]:
    from onnx import TensorProto, helper

    kinds = {"date": TensorProto.INT64, "category": TensorProto.STRING}
    return [
        helper.make_tensor_value_info(one.input, kinds.get(one.kind, TensorProto.DOUBLE), ["batch"]) for one in columns
    ]


def _front(
    groups: dict[str, list[ColumnInput]], network: TableNetwork, prefix: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that set the columns of each kind side by side, categories as buckets."""
    from onnx import helper, numpy_helper

    axis = numpy_helper.from_array(np.array([1], dtype=np.int64), f"{prefix}front/axis")
    nodes = []
    for kind, members in groups.items():
        single = []
        for index, column in enumerate(members):
            name, given = f"{prefix}front/{kind}/{index}", column.input
            if kind == "category":
                nodes.append(_encode(network.encoder.buckets[index], column, f"{name}/bucket"))
                given = f"{name}/bucket"
            nodes.append(helper.make_node("Unsqueeze", [given, axis.name], [name], name=name))
            single.append(name)
        nodes.append(helper.make_node("Concat", single, [f"{prefix}{kind}"], axis=1, name=f"{prefix}front/{kind}"))
    return nodes, [axis]


def _encode(buckets: Buckets, column: ColumnInput, output: str) -> NodeProto:
    """A node that gives each category its bucket."""
    from onnx import helper

    bucket_of = dict.fromkeys(buckets.rare, RARE) | {name: FIRST + i for i, name in enumerate(buckets.kept)}
    bucket_of |= dict.fromkeys(column.missing, buckets.size - 1 if buckets.has_missing else UNKNOWN)
    # The operator asks for at least one key.
    bucket_of = bucket_of or {"": UNKNOWN}
    return helper.make_node(
        "LabelEncoder",
        [column.input],
        [output],
        name=output,
        domain="ai.onnx.ml",
        keys_strings=list(bucket_of),
        values_int64s=list(bucket_of.values()),
        default_int64=UNKNOWN,
    )


def _back(
    names: list[str], classes: NDArray[Any] | None, prefix: str
) -> tuple[list[NodeProto], list[Any], list[TensorProto]]:
    """Nodes and outputs after the network: the values, or the most probable label and all probabilities."""
    from onnx import TensorProto, helper

    given = f"{prefix}outputs"
    nodes = [helper.make_node("Identity", [given], [names[-1]], name=f"{prefix}back/{names[-1]}")]
    if classes is None:
        return nodes, [helper.make_tensor_value_info(names[0], TensorProto.DOUBLE, ["batch"])], []
    best, labels = f"{prefix}back/best", _labels(classes, f"{prefix}back/labels")
    nodes.append(helper.make_node("ArgMax", [given], [best], axis=1, keepdims=0, name=best))
    nodes.append(helper.make_node("Gather", [labels.name, best], [names[0]], name=f"{prefix}back/label"))
    outputs = [
        helper.make_tensor_value_info(names[0], labels.data_type, ["batch"]),
        helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["batch", len(classes)]),
    ]
    return nodes, outputs, [labels]


def labels_array(classes: NDArray[Any]) -> NDArray[Any]:
    """The labels in a dtype that ONNX has."""
    if classes.dtype.kind in "biuf":
        return classes
    return np.array([escape(str(one)) for one in classes.tolist()], dtype=object)


def _labels(classes: NDArray[Any], name: str) -> TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(labels_array(classes), name)
