import os
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import poise
from poise import ConfigError, ExportError


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return x + self.norm(self.linear(x)).relu()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True, num_layers=2, dropout=0.2), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Tabular(nn.Module):
    def __init__(self):
        super().__init__()
        shape = poise.nn.TabularShape(2, 3, (4,), bins=torch.tensor([[0.0, 0.5, 1.0]] * 2))
        self.net = poise.nn.TabularNetwork(shape, 2, structure=poise.nn.Structure(width=8, depth=2))

    def forward(self, numeric, categorical):
        from poise.data import Inputs

        return self.net(Inputs(numeric, categorical))


class TwoWays(nn.Module):
    """Control flow that depends on values."""

    def forward(self, x):
        return x if bool(x.sum() > 0) else -x


class Noisy(nn.Module):
    """Draws in eval mode."""

    def forward(self, x):
        return x + torch.rand_like(x)


def conv(*layers):
    return nn.Sequential(nn.Conv2d(2, 4, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)))


ROWS, IMAGES = torch.randn(6, 4), torch.randn(4, 2, 6, 6)
FAST = {
    "norm, dropout": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2)), ROWS
    ),
    "fused": (lambda: nn.Sequential(nn.Linear(4, 8), poise.nn.NormActDropout(8), nn.Linear(8, 2)), ROWS),
    "tabular": (Tabular, {"numeric": torch.rand(6, 3), "categorical": torch.randint(0, 4, (6, 1))}),
}  # fmt: skip
SLOW = {
    "conv": (lambda: conv(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d()), IMAGES),
    "group norm": (lambda: conv(nn.GroupNorm(2, 4)), IMAGES),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU()), ROWS),
    "alpha dropout": (lambda: nn.Sequential(nn.Linear(4, 8), nn.SELU(), nn.AlphaDropout(0.2)), ROWS),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), ROWS),
    "old weight norm": (old_weight_norm, ROWS),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), ROWS),
    "residual": (Residual, ROWS),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 2)), torch.randint(0, 9, (5, 2))
    ),
    "lstm": (Recurrent, torch.randn(5, 3, 4)),
    "fused layer norm": (lambda: poise.nn.NormActDropout(2, activation="gelu", norm="layer"), IMAGES),
    "fused without norm": (lambda: poise.nn.NormActDropout(2, activation="mish", norm="none"), IMAGES),
    "poise layers": (
        lambda: nn.Sequential(poise.nn.Linear(4, 8), poise.nn.BatchNorm(8), poise.nn.Dropout(0.2), poise.nn.DropPath()),
        ROWS,
    ),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), torch.randn(4, 3, 4)),
}  # fmt: skip
CASES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("name", CASES)
def test_one_file_that_computes_the_same_for_any_number_of_rows(name, tmp_path):
    make, example = (FAST | SLOW)[name]
    model, path = make().train(), tmp_path / "model.onnx"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    written = poise.export(model, path, example=example)
    assert written.difference <= 1e-5
    assert written.opset >= 18
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert os.getcwd().encode() not in path.read_bytes()
    given = example if isinstance(example, dict) else {written.inputs[0]: example}
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].shape[0] == "batch"
    for num in (1, 3):
        found = session.run(None, {key: value[:num].numpy() for key, value in given.items()})[0]
        with torch.no_grad():
            expected = model.eval()(*(value[:num] for value in given.values()))
        assert np.abs(found - expected.numpy()).max() <= 1e-5


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (TwoWays(), ExportError, "cannot be written as ONNX"),
        (Noisy(), ExportError, "differ from the model's"),
        (nn.Linear(4, 2).half(), ConfigError, "float16"),
        (nn.Linear(4, 2, device="meta"), ConfigError, "meta"),
    ],
)
def test_what_cannot_be_exported_leaves_no_file(tmp_path, model, error, words):
    with pytest.raises(error, match=words) as caught:
        poise.export(model, tmp_path / "model.onnx", example=ROWS)
    assert caught.value.repair
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".", "missing/model.onnx"])
def test_a_path_that_cannot_be_written_is_refused_before_the_work(tmp_path, name):
    with pytest.raises(ExportError, match="folder"):
        poise.export(nn.Linear(4, 2), tmp_path / name, example=ROWS)


def test_a_disk_that_refuses_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        poise.export(nn.Linear(4, 2), path, example=ROWS)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (nn.Linear(4, 2), {}, "`example` is missing"),
        (nn.Linear(4, 2), {"example": ROWS[:0]}, "at least one row"),
        (nn.Linear(4, 2), {"example": ROWS, "tolerance": 0.0}, "`tolerance` must be"),
        (7, {}, "must be a torch module"),
        ("somewhere", {"example": ROWS}, "`example` is for torch models"),
    ],
)
def test_settings_are_refused_by_name(tmp_path, model, settings, words):
    with pytest.raises(ConfigError, match=words):
        poise.export(model, tmp_path / "model.onnx", **settings)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("poise.integrations._extras.find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(ConfigError, match=r'pip install "poise\[onnx\]"'):
        poise.export(nn.Linear(4, 2), tmp_path / "model.onnx", example=ROWS)


def test_a_compiled_model_is_exported_as_what_it_is_made_of(tmp_path):
    model = torch.compile(nn.Linear(4, 2), backend="eager")
    assert poise.export(model, tmp_path / "model.onnx", example=ROWS).difference <= 1e-5
