"""The ONNX graph of a network or ensemble of tables: raw columns in, labels and probabilities or values out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from poise.data._buckets import UNKNOWN
from poise.data._column import escape
from poise.integrations._assembly import Assembly, Value
from poise.integrations._calendar import MISSING
from poise.integrations._table_model import TableModel
from poise.integrations._table_network import Dates, Vocabulary

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_GAPS = ("", "None", "nan")
_KINDS = ("number", "boolean", "date", "category")
_ML_OPSET = 2
_ROWS = 3  # of the examples that are followed: neither 0 nor 1, which torch takes for fixed


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


def table_columns(model: TableModel) -> tuple[ColumnInput, ...]:
    """The inputs of the graph, one for each feature, in the order of the training table."""
    known = dict(zip((one.name for one in model.schema.of("category")), model.vocabularies, strict=True))
    taken = {column.name for column in model.schema.features}
    found = []
    for index, column in enumerate(model.schema.features):
        name = column.name or _free(f"column_{index}", taken)
        gap = {"date": (str(MISSING),), "category": ()}.get(column.kind, ("NaN",))
        if column.kind == "category":
            seen = set(known[column.name].names)
            gap = tuple(one for one in _GAPS if one not in seen)
        found.append(ColumnInput(column.name, name, column.kind, gap))
    return tuple(found)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def build_table_graph(model: TableModel, columns: tuple[ColumnInput, ...], classes: NDArray[Any] | None) -> ModelProto:
    """The whole graph.

    Args:
        model: What predicts.
        columns: As `table_columns` gives them.
        classes: The labels; None for a regression.
    """
    from onnx import helper

    taken = {one.input for one in columns}
    prefix = "poise/"
    while any(name.startswith(prefix) for name in taken):
        prefix += "/"
    groups = {kind: [one for one in columns if one.kind == kind] for kind in _KINDS}
    groups = {kind: members for kind, members in groups.items() if members}
    front, constants = _front(groups, model.vocabularies, prefix)
    assembly = Assembly(prefix)
    predictions = _assemble(assembly, model, {kind: len(members) for kind, members in groups.items()})
    names = [_free(name, taken) for name in (("prediction",) if classes is None else ("label", "probabilities"))]
    back, outputs, labels = _back(predictions, names, classes, prefix)
    proto = assembly.proto
    graph = helper.make_graph(
        [*front, *assembly.nodes, *back], "poise", _inputs(columns), outputs,
        initializer=[*constants, *assembly.initializers, *labels],
    )  # fmt: skip
    opsets = [*(one for one in proto.opset_import if one.domain == ""), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    whole = helper.make_model(graph, ir_version=proto.ir_version, opset_imports=opsets)
    helper.set_model_props(whole, {"poise.columns": json.dumps([asdict(one) for one in columns])})
    return whole


def _assemble(assembly: Assembly, model: TableModel, widths: dict[str, int]) -> str:
    """Add all networks, and what they read; the name of what is predicted."""
    dtypes = {"date": torch.int64, "category": torch.int64}
    raw = {
        kind: Value(f"{assembly.prefix}{kind}", torch.zeros(_ROWS, width, dtype=dtypes.get(kind, torch.float64)))
        for kind, width in widths.items()
    }
    given: list[Value] = []
    for kind, value in raw.items():
        given += assembly.add("dates", Dates().eval(), [value]) if kind == "date" else [value]
    encodings = [assembly.add(f"encoding{index}", one, given) for index, one in enumerate(model.encodings)]
    predictions = [
        *chain.from_iterable(
            assembly.add(f"network{index}", one, encodings[place])
            for index, (one, place) in enumerate(zip(model.networks, model.places, strict=True))
        )
    ]
    made = predictions if model.head is None else assembly.add("ensemble", model.head, predictions)
    return made[0].name


def _inputs(columns: tuple[ColumnInput, ...]) -> list[Any]:
    from onnx import TensorProto, helper

    kinds = {"date": TensorProto.INT64, "category": TensorProto.STRING}
    return [
        helper.make_tensor_value_info(one.input, kinds.get(one.kind, TensorProto.DOUBLE), ["batch"]) for one in columns
    ]


def _front(
    groups: dict[str, list[ColumnInput]], vocabularies: Sequence[Vocabulary], prefix: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that set the columns of each kind side by side, categories as codes."""
    from onnx import helper, numpy_helper

    axis = numpy_helper.from_array(np.array([1], dtype=np.int64), f"{prefix}front/axis")
    nodes = []
    for kind, members in groups.items():
        single = []
        for index, column in enumerate(members):
            name, given = f"{prefix}front/{kind}/{index}", column.input
            if kind == "category":
                nodes.append(_encode(vocabularies[index], column, f"{name}/code"))
                given = f"{name}/code"
            nodes.append(helper.make_node("Unsqueeze", [given, axis.name], [name], name=name))
            single.append(name)
        nodes.append(helper.make_node("Concat", single, [f"{prefix}{kind}"], axis=1, name=f"{prefix}front/{kind}"))
    return nodes, [axis]


def _encode(known: Vocabulary, column: ColumnInput, output: str) -> NodeProto:
    """A node that gives each category its code."""
    from onnx import helper

    code_of = {name: index for index, name in enumerate(known.names, start=1)} | dict.fromkeys(
        column.missing, known.missing
    )
    # The operator asks for at least one key.
    code_of = code_of or {"": UNKNOWN}
    return helper.make_node(
        "LabelEncoder",
        [column.input],
        [output],
        name=output,
        domain="ai.onnx.ml",
        keys_strings=list(code_of),
        values_int64s=list(code_of.values()),
        default_int64=UNKNOWN,
    )


def _back(
    given: str, names: list[str], classes: NDArray[Any] | None, prefix: str
) -> tuple[list[NodeProto], list[Any], list[TensorProto]]:
    """Nodes and outputs after the network: the values, or the most probable label and all probabilities."""
    from onnx import TensorProto, helper

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
