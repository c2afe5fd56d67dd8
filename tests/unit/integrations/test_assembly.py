import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import poise
from poise.integrations._assembly import Assembly, Value, structure_of


def block(width=4, p=0.1, eps=1e-5, activation=nn.ReLU, momentum=0.1):
    norm = poise.nn.BatchNorm(width, eps=eps, momentum=momentum)
    return nn.Sequential(poise.nn.Linear(3, width), norm, activation(), poise.nn.Dropout(p)).eval()


def test_doses_and_rows_of_embeddings_are_no_structure():
    assert structure_of(block()) == structure_of(block(p=0.7, momentum=0.3))
    assert structure_of(nn.Embedding(4, 2)) == structure_of(nn.Embedding(9, 2))


@pytest.mark.parametrize("change", [{"width": 5}, {"eps": 1e-3}, {"activation": nn.GELU}])
def test_whatever_changes_outputs_is_structure(change):
    assert structure_of(block()) != structure_of(block(**change))


def test_dtype_and_dimension_are_structure():
    assert structure_of(block()) != structure_of(block().double())
    assert structure_of(nn.Embedding(4, 2)) != structure_of(nn.Embedding(4, 3))


def test_modules_of_one_structure_are_followed_once_and_keep_their_own_weights(monkeypatch):
    import poise.integrations._assembly as home

    followed, capture = [], home.capture
    monkeypatch.setattr(home, "capture", lambda *args: followed.append(args) or capture(*args))
    first, second, x = block(), block(p=0.5), torch.randn(5, 3)
    second[1].running_mean += 1
    assembly, given = Assembly("a/"), Value("x", torch.zeros(3, 3))
    outputs = [assembly.add(name, one, [given])[0] for name, one in (("first", first), ("second", second))]
    assert len(followed) == 1
    assert [tuple(one.example.shape) for one in outputs] == [(3, 4), (3, 4)]
    infos = [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, None) for one in outputs]
    graph = helper.make_graph(
        assembly.nodes, "two", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])], infos,
        initializer=assembly.initializers,
    )  # fmt: skip
    proto = assembly.proto
    whole = helper.make_model(graph, ir_version=proto.ir_version, opset_imports=proto.opset_import)
    found = onnxruntime.InferenceSession(whole.SerializeToString()).run(None, {"x": x.numpy()})
    for got, module in zip(found, (first, second), strict=True):
        assert np.abs(got - module(x).detach().numpy()).max() <= 1e-6
    assert np.abs(found[0] - found[1]).max() > 1e-3
