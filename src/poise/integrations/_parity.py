"""Whether an ONNX graph computes what the model computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise._errors import ExportError
from poise._random import Key
from poise.data._dates import _DAY_MICROSECONDS
from poise.data._scale import RobustScale
from poise.integrations._calendar import MISSING

if TYPE_CHECKING:
    from poise.data import Encoder
    from poise.integrations._table_graph import ColumnInput

BATCHES = (1, 2, 17, 1000)
_GAP_SHARE = 0.15
_HUGE_SHARE, _HUGE = 0.02, 1e200
_UNSEEN = "a category that training never saw"
_EARLIEST, _LATEST = -700_000, 2_900_000  # days: years 54 to 9909
Feed = dict[str, NDArray[Any]]


class Session:
    """The graph in onnxruntime, on one thread.

    Args:
        content: The file.

    Raises:
        ExportError: If onnxruntime does not take it.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each of its errors has a class of its own below Exception
            raise _refused(error) from error
        self._inputs = {one.name for one in self._session.get_inputs()}

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """All outputs. What the graph does not read is left out of `feed`."""
        try:
            found: list[NDArray[Any]] = self._session.run(None, {k: v for k, v in feed.items() if k in self._inputs})
        except Exception as error:
            raise _refused(error) from error
        return found


def _refused(error: Exception) -> ExportError:
    reason = str(error).strip().splitlines()
    return ExportError(
        f"onnxruntime cannot run the model: {reason[0][:300] if reason else type(error).__name__}",
        repair="No file was written. Change the layer that is named, or the dtype: not every operator exists in every "
        "dtype, and float32 has the most.",
    )


def difference(expected: Sequence[Tensor], found: Sequence[NDArray[Any]]) -> float:
    """Largest difference, relative to the largest finite magnitude of the same output, or to 1 if that is less."""
    worst = 0.0
    if [tuple(one.shape) for one in expected] != [one.shape for one in found]:
        return float("inf")
    for right, got in zip(expected, found, strict=True):
        a, b = right.detach().cpu().double(), torch.from_numpy(np.asarray(got, dtype=np.float64))
        same = (a == b) | (a.isnan() & b.isnan())
        gap = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=torch.inf)
        size = max(1.0, float(torch.where(a.isfinite(), a.abs(), 0.0).max())) if a.numel() else 1.0
        worst = max(worst, float(gap.max()) / size if gap.numel() else 0.0)
    return worst


def similar_rows(example: Mapping[str, Tensor], fixed: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Batches of each size: rows of the example at random; floats move by up to their spread in the example.

    Args:
        example: Arguments by name.
        fixed: Names of those that are the same for all rows.
    """
    for size in BATCHES:
        key = Key(0).stream("export").at(size)
        rows = next(len(one) for name, one in example.items() if name not in fixed)
        picked = (key.uniform(size, dtype=torch.float64) * rows).long()
        batch = {}
        for index, (name, tensor) in enumerate(example.items()):
            batch[name] = tensor if name in fixed else tensor[picked.to(tensor.device)]
            if name not in fixed and tensor.is_floating_point() and rows > 1:
                shift = 2 * key.stream(index).uniform(*batch[name].shape, dtype=torch.float64) - 1
                moved = shift.to(tensor) * tensor.std(dim=0).nan_to_num(0.0, 0.0, 0.0)
                batch[name] = batch[name] + moved
        yield batch


def random_tables(encoders: Sequence[Encoder], columns: Sequence[ColumnInput]) -> Iterator[pl.DataFrame]:
    """Tables of each size like those of the training: with gaps, ties, and categories that were never seen.

    Args:
        encoders: One or more with one schema; each supplies its share of the rows of a column.
        columns: The inputs of the graph.
    """
    for size in BATCHES:
        key = Key(0).stream("export").at(size)
        cells = {}
        for index, column in enumerate(columns):
            own = key.stream(index)
            values = _values(encoders, column, own, size)
            has_gaps = bool(column.missing)
            gaps = own.stream("gaps").uniform(size, dtype=torch.float64).numpy() < _GAP_SHARE * has_gaps
            cells[column.column] = pl.Series(values, strict=False).set(pl.Series(gaps), None)
        yield pl.DataFrame([series.alias(name) for name, series in cells.items()])


def feed_of(table: pl.DataFrame, columns: Sequence[ColumnInput]) -> Feed:
    """What the graph takes for the rows of `table`."""
    feed: Feed = {}
    for column in columns:
        cells = table.get_column(column.column).alias("")
        if column.kind == "category":
            feed[column.input] = np.array(cells.fill_null(next(iter(column.missing), "")).to_list(), dtype=object)
        elif column.kind == "date":
            feed[column.input] = cells.to_physical().fill_null(MISSING).to_numpy()
        else:
            feed[column.input] = cells.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return feed


def _values(encoders: Sequence[Encoder], column: ColumnInput, key: Key, size: int) -> Any:
    encoder = encoders[0]
    if column.kind == "boolean":
        return key.uniform(size, dtype=torch.float64).numpy() < 0.5
    if column.kind == "category":
        place = [one.name for one in encoder.schema.of("category")].index(column.column)
        seen = {name for one in encoders for name in (*one.buckets[place].kept, *one.buckets[place].rare)}
        known = [*sorted(seen), _UNSEEN]
        return [known[int(share * len(known))] for share in key.uniform(size, dtype=torch.float64).tolist()]
    names = [one.name for one in (*encoder.schema.of("number"), *encoder.schema.of("date"))]
    place = names.index(column.column)
    if column.kind == "number":
        return _numbers(encoders, place, key, size)
    numbers = len(encoder.schema.of("number"))
    days = np.clip(_numbers(encoders, numbers + 2 * (place - numbers) + 1, key, size), _EARLIEST, _LATEST)
    days = days if any(column.column in one.clocks for one in encoders) else np.floor(days)
    return pl.Series((days * _DAY_MICROSECONDS).astype(np.int64)).cast(pl.Datetime("us"))


def _numbers(encoders: Sequence[Encoder], place: int, key: Key, size: int) -> NDArray[np.float64]:
    """Around what the scales know of column `place`, half of them exactly there, and some far away."""
    whose = (key.stream("encoder").uniform(size, dtype=torch.float64).numpy() * len(encoders)).astype(np.int64)
    return np.stack([_around(one, place, key, size) for one in encoders])[whose, np.arange(size)]


def _around(encoder: Encoder, place: int, key: Key, size: int) -> NDArray[np.float64]:
    share, spread = (key.stream(name).uniform(size, dtype=torch.float64).numpy() for name in ("share", "spread"))
    off = key.stream("normal").normal(size, dtype=torch.float64).numpy() * (spread < 0.5)
    center: Any
    if isinstance(encoder.scale, RobustScale):
        center, scale = (float(one[place]) for one in (encoder.scale.center, encoder.scale.scale))
    else:
        knots = encoder.scale.knots[place].numpy()
        center = knots[(share * len(knots)).astype(np.int64)]
        scale = float(knots[-1] - knots[0]) / 10
    with np.errstate(over="ignore"):
        values: NDArray[np.float64] = center + (scale or 1.0) * off
        values = np.where(spread > 1 - _HUGE_SHARE, values * _HUGE, values)
    return np.nan_to_num(values)
