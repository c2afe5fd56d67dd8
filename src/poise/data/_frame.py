"""Tables of other libraries as polars tables.

Nothing here imports pandas or pyarrow: they are touched only if the caller's object brought them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeGuard

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from poise._errors import DataError
from poise._text import listed
from poise.data._column import as_column, escape, from_pandas

_NUMERIC = "biuf"


def as_table(data: object, *, name: str = "X") -> pl.DataFrame:
    """`data` as a polars table; `data` itself is left as it is.

    Args:
        data: A pandas, polars or pyarrow table, a two-dimensional array, or what numpy can make into one.
        name: What to call it in errors.

    Returns:
        A table of the same columns. Those of an array are called x0, x1, …; integer names become text.

    Shape:
        (N, D) in, the same out.

    Raises:
        DataError: If it is no table of N rows and D columns, two columns share a name, names mix text and
            integers, or a column holds complex numbers, lists, records or bytes.

    Warns:
        PoiseWarning: If a column mixes numbers and text; it is then read as text.

    Example:
        >>> as_table([[1.0, 2.0], [3.0, float("nan")]]).rows()
        [(1.0, 2.0), (3.0, None)]
    """
    if isinstance(data, pl.LazyFrame):
        data = data.collect()
    if isinstance(data, pl.DataFrame):
        return _assemble(data.columns, data.get_columns(), name)
    if _is_pandas(data):
        return _assemble(list(data.columns), _from_pandas(data), name)
    if type(data).__module__.startswith("pyarrow"):
        return _assemble(list(getattr(data, "column_names", [])), _from_arrow(data, name), name)
    if nw.dependencies.is_into_dataframe(data):
        frame = nw.from_native(data, eager_only=True).to_polars()
        return _assemble(frame.columns, frame.get_columns(), name)
    array = _as_array(data, name)
    is_numeric = array.dtype.kind in _NUMERIC
    columns = _from_numbers(array) if is_numeric else [array[:, i] for i in range(array.shape[1])]
    return _assemble([f"x{i}" for i in range(len(columns))], columns, name)


def _is_pandas(data: object) -> TypeGuard[Any]:
    return bool(nw.dependencies.is_pandas_dataframe(data))


def _assemble(names: list[Any], columns: list[Any], where: str) -> pl.DataFrame:
    checked = _checked_names(names, where)
    return pl.DataFrame([as_column(column, name=one, mixed=True) for one, column in zip(checked, columns, strict=True)])


def _checked_names(names: list[Any], where: str) -> list[str]:
    are_text = [isinstance(one, str) for one in names]
    if any(are_text) and not all(are_text):
        odd = names[are_text.index(False)]
        raise DataError(
            f"Column names mix text and other types, for example {odd!r}.",
            where=where,
            repair="Make all names text, for example with `frame.columns = frame.columns.astype(str)`.",
        )
    texts = [escape(str(one)) for one in names]
    twice = sorted(one for one, count in Counter(texts).items() if count > 1)
    if twice:
        raise DataError(
            f"Column names appear more than once: {listed(twice)}.", where=where, repair="Rename or drop one."
        )
    return texts


def _as_array(data: object, where: str) -> NDArray[Any]:
    if hasattr(data, "tocsr"):
        raise DataError("A sparse matrix is not a table.", where=where, repair="Give a dense array: `X.toarray()`.")
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise DataError(f"Not a table: {error}", where=where, repair="Give rows of equal length.") from error
    if array.ndim != 2:
        shape = "a single value" if array.ndim == 0 else f"of shape {array.shape}"
        raise DataError(
            f"Expected a table of rows and columns, but the array is {shape}.",
            where=where,
            repair="Reshape your data: `array.reshape(-1, 1)` for one column, `array.reshape(1, -1)` for one row.",
        )
    return array


def _from_numbers(array: NDArray[Any]) -> list[pl.Series]:
    """The columns of an array of numbers or booleans, converted as one long column."""
    cells, height = as_column(array.T.ravel()), len(array)
    return [cells.slice(place * height, height) for place in range(array.shape[1])]


def _from_pandas(data: Any) -> list[object]:
    """Its columns; those of one numeric type all at once."""
    columns: dict[int, object] = {}
    by_kind: dict[Any, list[int]] = {}
    for place, kind in enumerate(data.dtypes):
        by_kind.setdefault(kind, []).append(place)
    for kind, places in by_kind.items():
        if isinstance(kind, np.dtype) and kind.kind in _NUMERIC:
            array = data.iloc[:, places].to_numpy(dtype=np.float64 if kind.kind == "f" else kind)
            columns |= dict(zip(places, _from_numbers(array), strict=True))
        else:
            columns |= {place: from_pandas(data.iloc[:, place]) for place in places}
    return [columns[place] for place in range(len(columns))]


def _from_arrow(data: Any, where: str) -> list[pl.Series]:
    if not hasattr(data, "column_names"):
        raise DataError(f"A pyarrow {type(data).__name__} is not a table.", where=where, repair="Give a pyarrow.Table.")
    columns = []
    for name, column in zip(data.column_names, data.columns, strict=True):
        try:
            columns.append(pl.Series("", pl.from_arrow(column)))
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            raise DataError(
                f"Values of type {column.type} cannot be used.",
                where=f"column {name!r}",
                repair="Drop the column or convert it to numbers or text.",
            ) from error
    return columns
