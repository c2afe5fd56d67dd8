"""A column of any library as a polars column, with one way of writing each kind of value.

Afterwards it holds integers, floats, booleans, text, dates or times; a gap is null and never NaN.
"""

from __future__ import annotations

import warnings
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from poise._errors import DataError, PoiseWarning

_NUMBERS = (int, float, np.integer, np.floating)
_BOOLEANS = (bool, np.bool_)
_RECORDS = (list, tuple, dict, set, bytes, np.ndarray)


def as_column(values: object, *, name: str = "y", mixed: bool = False) -> pl.Series:
    """`values` as a polars column.

    Args:
        values: A column of any table library, a one-dimensional array, or a list.
        name: Its name.
        mixed: Whether numbers and text may stand side by side; they are then read as text, with a warning.

    Shape:
        (N,) or (N, 1) in, (N,) out.

    Raises:
        DataError: If it is no column, or mixes numbers and text where that is not allowed.

    Example:
        >>> as_column([1, None, 3], name="count").to_list()
        [1, None, 3]
    """
    where = f"column {name!r}"
    # Nameless in between: polars takes a name like "^a$" for a pattern.
    series = _as_series(values, where, mixed=mixed).alias("")
    return _canonical(series, where).alias(escape(name))


def escape(text: str) -> str:
    r"""`text` with lone surrogates written as `\udc80`: no file and no polars column can hold them as they are."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def from_pandas(column: Any) -> object:
    """A pandas column as an array or list, without going through pyarrow, which pandas users need not have."""
    kind = nw.from_native(column, series_only=True).dtype
    if isinstance(kind, nw.Datetime) and kind.time_zone is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(kind, nw.Datetime | nw.Duration):
        return np.asarray(column.to_numpy())
    if kind.is_float():
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if kind.is_integer() and not column.isna().any():
        return column.to_numpy()
    cells = column.astype(object).where(column.notna(), None).tolist()
    if isinstance(kind, nw.Categorical | nw.Enum):
        return [None if cell is None else str(cell) for cell in cells]
    return cells


def _as_series(values: object, where: str, *, mixed: bool) -> pl.Series:
    if isinstance(values, pl.Series):
        return values
    if nw.dependencies.is_pandas_series(values):
        values = from_pandas(values)
    elif nw.dependencies.is_into_series(values):
        return nw.from_native(values, series_only=True).to_polars()
    if isinstance(values, list):
        return _from_list(values, where, mixed=mixed)
    array = np.asarray(values)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1:
        raise DataError(f"Expected one column, but the array has shape {array.shape}.", where=where)
    return _from_array(array, where, mixed=mixed)


def _from_array(array: NDArray[Any], where: str, *, mixed: bool) -> pl.Series:
    if array.dtype.kind in "biuf":
        # Half and extended precision, and foreign byte orders, are not polars's.
        wide = {2: np.float32, 16: np.float64}.get(array.dtype.itemsize) if array.dtype.kind == "f" else None
        return pl.Series(np.ascontiguousarray(array, dtype=wide or array.dtype.newbyteorder("=")))
    if array.dtype.kind in "mM":
        return pl.Series(array.astype(f"{array.dtype.kind}8[us]"))
    return _from_list(array.tolist(), where, mixed=mixed)


def _from_list(values: list[Any], where: str, *, mixed: bool) -> pl.Series:
    """Python values: all numbers, all booleans, all dates, or text."""
    values = [None if _is_gap(one) else one for one in values]
    kinds = {type(one) for one in values if one is not None}
    if any(issubclass(kind, complex | np.complexfloating) for kind in kinds):
        raise DataError("Complex data not supported.", where=where, repair="Give real and imaginary parts as columns.")
    if any(issubclass(kind, _RECORDS) for kind in kinds):
        raise DataError("Cells hold lists, records or bytes.", where=where, repair="Give one number or text a cell.")
    is_boolean = all(issubclass(kind, _BOOLEANS) for kind in kinds)
    if kinds and not is_boolean and all(issubclass(kind, (*_NUMBERS, *_BOOLEANS)) for kind in kinds):
        return _from_numbers(values)
    num_text = sum(issubclass(kind, str) for kind in kinds)
    if kinds and num_text == 0 and len(kinds) == 1:
        return _from_objects(values)
    if num_text < len(kinds):
        if not mixed:
            raise DataError("Values mix types.", where=where, repair="Make all of them text or all numbers.")
        warnings.warn(PoiseWarning(f"Values mix types in {where}: they are read as text."), stacklevel=2)
    return _from_texts(values)


def _from_texts(values: list[Any]) -> pl.Series:
    return pl.Series([None if one is None else escape(str(one)) for one in values], dtype=pl.String)


def _from_numbers(values: list[Any]) -> pl.Series:
    if all(one is None or isinstance(one, int | np.integer) for one in values):
        try:
            return pl.Series([None if one is None else int(one) for one in values], dtype=pl.Int64)
        except (OverflowError, TypeError, pl.exceptions.PolarsError):
            pass  # beyond 64 bits: as floats, below
    return pl.Series([None if one is None else _to_float(one) for one in values], dtype=pl.Float64)


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _from_objects(values: list[Any]) -> pl.Series:
    """Booleans, dates and times; anything that polars has no type for becomes text."""
    try:
        series = pl.Series(values, strict=True)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):
        series = pl.Series([None], dtype=pl.Object)
    return _from_texts(values) if series.dtype == pl.Object else series


def _is_gap(value: object) -> bool:
    # NaN, NaT and pandas.NA; the last has no truth value and is known by its name.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value))


def _canonical(series: pl.Series, where: str) -> pl.Series:
    kind = series.dtype
    if kind.is_numeric() or kind == pl.Null:
        fits = kind.is_float() or (kind.is_integer() and kind not in (pl.Int128, pl.UInt64, pl.UInt128))
        series = series if fits else series.cast(pl.Float64)
        # Asked first, which takes a tenth of the time where columns are many and short.
        return series.fill_nan(None) if _has_nan(series) else series
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    if kind.is_temporal():
        return _canonical_time(series)
    if kind == pl.Object:
        return _from_list(series.to_list(), where, mixed=True)
    if kind != pl.Boolean:
        repair = "Drop the column or make it numbers or text."
        raise DataError(f"Values of type {kind} cannot be used.", where=where, repair=repair)
    return series


def _has_nan(series: pl.Series) -> bool:
    return series.dtype.is_float() and int(np.isnan(series.to_numpy()).sum()) > series.null_count()


def _canonical_time(series: pl.Series) -> pl.Series:
    """Dates as they are, times in UTC without a zone, durations and times of the day as seconds."""
    kind = series.dtype
    if isinstance(kind, pl.Duration):
        return series.dt.total_microseconds().cast(pl.Float64) / 1e6
    if kind == pl.Time:
        return series.cast(pl.Int64).cast(pl.Float64) / 1e9
    if isinstance(kind, pl.Datetime) and kind.time_zone:
        return series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return series
