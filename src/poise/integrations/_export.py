"""Writing a model as ONNX."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn

from poise._checks import Interval, check_real
from poise._errors import ConfigError, ExportError
from poise.data import check_columns
from poise.ensemble import Average, Boosted, Predicts
from poise.estimators import PoiseClassifier, PoiseRegressor, load
from poise.integrations._capture import Flat, capture, check_weights
from poise.integrations._extras import need
from poise.integrations._parity import Session, difference, feed_of, random_tables, similar_rows
from poise.integrations._table_graph import ColumnInput, build_table_graph, labels_array, table_columns
from poise.integrations._table_model import TableModel
from poise.surgery._modes import modes
from poise.train import Predictor, write_atomically

if TYPE_CHECKING:
    from onnx import ModelProto

_ROWS = 3  # of the example that is followed: neither 0 nor 1, which torch takes for fixed


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Args:
        path: The file.
        opset: Version of the ONNX operators.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        columns: Which column of a table each input takes; empty for a torch model.
        difference: Largest difference to the model's own outputs over all rows that were compared.
    """

    path: Path
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    columns: tuple[ColumnInput, ...]
    difference: float


def export(
    model: nn.Module | PoiseClassifier | PoiseRegressor | Predictor | Average | Boosted | str | Path,
    path: str | Path,
    *,
    example: Any = None,
    tolerance: float = 1e-5,
) -> Exported:
    """Write a model in eval mode as one ONNX file, for any number of rows, and prove that it computes the same.

    Before anything is written, onnxruntime runs the file on 1, 2, 17 and 1000 rows, and
    max |ours - model's| ≤ tolerance · max(1, max |model's|) must hold for every output; for the values of a regressor
    in units of the target's standard deviation. The rows are like those of the example, or like those of the training
    table, with gaps and unseen categories. Modes and weights of the model stay as they were.

    A fitted estimator, or a network or ensemble of tables, is written with all that it does to a table; all members of
    an ensemble stand in the one file. Inputs are the raw columns by name, each (B,):

    - numbers: double, NaN where missing;
    - booleans: double, 0, 1, or NaN where missing;
    - dates: int64, microseconds since 1970 in UTC, -2⁶³ (NumPy's NaT) where missing;
    - categories: string, "" (or "None" or "nan") where missing, unless training saw a category of that name.

    Outputs are `label` and `probabilities`, or `prediction` in the units of the target. Labels are those of the
    estimator; a network or ensemble on its own has the codes 0, 1, ….

    Args:
        model: A torch module; or a fitted estimator, its `predictor_`, what trained an ensemble returned as
            `predictor`, or the folder of a run or bundle.
        path: File to write; replaced if it exists.
        example: For a torch module: a batch, as a tensor, tuple or dict of what `forward` takes. Tensors whose first
            axis is as long as that of the first tensor have a row for each row.
        tolerance: Largest difference, > 0.

    Shape:
        First axis of all inputs and outputs: any number of rows, "batch".

    Raises:
        ConfigError: If a setting is out of range, or onnx, onnxruntime or onnxscript is missing.
        BundleError: If the folder holds no sound bundle.
        ExportError: If the model cannot be written, or onnxruntime computes something else; there is no file then.

    Example:
        >>> import tempfile, torch, poise
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = poise.export(network, f"{folder}/model.onnx", example=torch.randn(16, 4))
        >>> written.inputs, written.difference < 1e-5
        (('input',), True)

    Reference: Bai, Lu, Zhang et al., "ONNX: Open Neural Network Exchange", 2019.
    """
    need("onnx", "onnx", "onnxruntime", "onnxscript")
    check_real("tolerance", tolerance, Interval(0, low_open=True))
    path = Path(path)
    _check_writable(path)
    if isinstance(model, nn.Module):
        proto, worst, columns = _export_module(_unwrapped(model), example)
    else:
        if example is not None:
            raise ConfigError("`example` is for torch models; a fitted estimator knows its own columns.")
        proto, worst, columns = _export_table(*_fitted(model))
    if not worst <= tolerance:
        raise ExportError(
            f"onnxruntime's outputs differ from the model's by {worst:.3g}, and {tolerance:g} is allowed. "
            "No file was written.",
            repair="See whether the model draws random numbers in eval mode or depends on single bits, or raise "
            "`tolerance` if the difference does no harm.",
        )
    _write(path, proto.SerializeToString())
    inputs, outputs = (tuple(one.name for one in side) for side in (proto.graph.input, proto.graph.output))
    opset = next(one.version for one in proto.opset_import if one.domain == "")
    return Exported(path, opset, inputs, outputs, columns, worst)


def _fitted(model: object) -> tuple[Predicts, NDArray[Any] | None]:
    """What predicts, and the labels; None for a regression."""
    if isinstance(model, Predictor | Average | Boosted):
        return model, None if model.task.kind == "regression" else np.arange(max(2, model.task.num_outputs))
    estimator = load(model) if isinstance(model, str | Path) else model
    if not isinstance(estimator, PoiseClassifier | PoiseRegressor):
        raise ConfigError(
            f"`model` must be a torch module, a fitted Poise estimator, a network or ensemble of tables, or a folder, "
            f"but got {type(estimator).__name__}."
        )
    check_is_fitted(estimator, "predictor_")
    return estimator.predictor_, estimator.classes_ if isinstance(estimator, PoiseClassifier) else None


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model within wrappers for compilation or several processes, which share its weights."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError("A scripted module cannot be followed.", repair="Give the module that it was made of.")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return _unwrapped(model.module)
    if isinstance(model, torch._dynamo.OptimizedModule):
        return _unwrapped(model._orig_mod)
    return model


def _export_module(model: nn.Module, example: Any) -> tuple[ModelProto, float, tuple[ColumnInput, ...]]:
    if example is None:
        raise ConfigError("`example` is missing.", repair="Give a batch that the model can be called with.")
    check_weights(model)
    flat = Flat(model, example)
    given = dict(zip(flat.names, flat.tensors, strict=True))
    rows = next((len(one) for one in flat.tensors if one.ndim), 0)
    if rows == 0:
        raise ConfigError("`example` must hold a tensor with at least one row.")
    fixed = [name for name, one in given.items() if not one.ndim or len(one) != rows]
    few = {
        name: one if name in fixed else one[torch.arange(_ROWS, device=one.device) % rows]
        for name, one in given.items()
    }
    with modes(model, training=False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = len(flat(*few.values()))
        proto = capture(flat, few, ["output"] if outputs == 1 else [f"output_{i}" for i in range(outputs)], fixed)
        session = Session(_finished(proto))
        worst = 0.0
        for batch in similar_rows(given, fixed):
            found = session.run({name: one.cpu().numpy() for name, one in batch.items()})
            worst = max(worst, difference(flat(*batch.values()), found))
    return proto, worst, ()


def _export_table(
    predictor: Predicts, classes: NDArray[Any] | None
) -> tuple[ModelProto, float, tuple[ColumnInput, ...]]:
    model = TableModel(predictor)
    columns = table_columns(model)
    proto = build_table_graph(model, columns, classes)
    session = Session(_finished(proto))
    worst = 0.0
    for table in random_tables(model.encoders, columns):
        expected, found = (
            predictor.predict(table),
            session.run(feed_of(check_columns(model.schema, table), columns)),
        )
        if classes is None:
            mean, scale = model.mean, model.scale
            worst = max(worst, difference([(expected - mean) / scale], [(found[0] - mean) / scale]))
        else:
            worst = max(worst, difference([expected], found[1:]))
            if found[0].tolist() != labels_array(classes)[found[1].argmax(axis=1)].tolist():
                worst = float("inf")
    return proto, worst, columns


def _finished(proto: ModelProto) -> bytes:
    import onnx

    proto.producer_name, proto.producer_version = "poise", version("poise")
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"The graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    content: bytes = proto.SerializeToString()
    return content


def _check_writable(path: Path) -> None:
    """Refuse early what would be refused after the work is done."""
    if path.is_dir():
        raise ExportError("This is a folder, not a file.", where=str(path), repair="Name a file in it.")
    if not path.parent.is_dir():
        raise ExportError(
            "There is no such folder.", where=str(path), repair=f"Make the folder {str(path.parent)!r} first."
        )


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # a device or a pipe must not be replaced by a file
        else:
            write_atomically(path, content)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ExportError(
            f"The file cannot be written: {error.strerror or error}.",
            where=str(path),
            repair="See that the folder exists, can be written and has room.",
        ) from error
