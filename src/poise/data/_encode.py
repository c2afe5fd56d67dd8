"""Tables to tensors, fitted on training rows only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise._checks import Interval, check_choice, check_integer
from poise._errors import BundleError, DataError
from poise.data._buckets import Buckets
from poise.data._dates import NUMBERS, cycle_names, cycles_of, is_dated_only, numbers_of
from poise.data._inputs import Inputs
from poise.data._scale import SCALES, QuantileScale, RobustScale, bin_edges
from poise.data._schema import Schema, check_columns

_FORMAT = 1
_MAX_BINS = 1024
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Encoder:
    """Turns the feature columns of a table into what a network reads.

    - Numbers: scaled by `RobustScale` or `QuantileScale`; a gap becomes 0.
    - Dates: year and days since 1970 as numbers; sine and cosine of month, weekday and day of the year, and of the
      time of day where training rows have one.
    - Booleans: 0 and 1; a gap becomes 0.
    - Numbers, dates and booleans with gaps in the training rows: one more column that is 1 where there is a gap.
    - Categories: a bucket each; 0 for unknown and 1 for rare ones, see `Buckets`.

    Make one with `Encoder.fit`.

    Args:
        schema: Kinds of the columns.
        scale: Of the numbers.
        bins: Edges for a piecewise-linear encoding, in units of the scaled numbers, or None.
        clocks: Date columns with a time of day.
        gaps: Columns with an indicator of gaps.
        buckets: For each category column.

    Shape:
        bins: (num_continuous, num_bins + 1), strictly increasing along the last axis.

    Example:
        >>> table = pl.DataFrame({"age": [31.0, None, 54.0], "city": ["a", "b", "a"]})
        >>> schema = Schema.from_dict({
        ...     "columns": [{"name": "age", "kind": "number"}, {"name": "city", "kind": "category"}]
        ... })
        >>> encoder = Encoder.fit(table, schema, np.arange(3))
        >>> encoder.feature_names, encoder.transform(table).categorical.flatten().tolist()
        (['age', 'age is missing', 'city'], [2, 1, 2])
    """

    schema: Schema
    scale: RobustScale | QuantileScale
    bins: Tensor | None
    clocks: tuple[str, ...]
    gaps: tuple[str, ...]
    buckets: tuple[Buckets, ...]

    @classmethod
    def fit(
        cls, table: pl.DataFrame, schema: Schema, rows: NDArray[np.int64], *, numeric: str = "robust", num_bins: int = 0
    ) -> Encoder:
        """Fit to the rows `rows` of `table`; no other row is looked at, and their order does not matter.

        Args:
            table: Holds at least the features of `schema`.
            schema: Kinds of the columns.
            rows: Training rows, (n,) int64, n ≥ 1; one may occur more than once.
            numeric: "robust" or "quantile".
            num_bins: Bins for each number, in [0, 1024]; 0 for none.

        Raises:
            ConfigError: If `numeric` or `num_bins` is out of range.
            DataError: If there are no rows or no features, or a value does not fit its column.
        """
        check_choice("numeric", numeric, tuple(SCALES))
        check_integer("num_bins", num_bins, Interval(0, _MAX_BINS))
        if len(rows) == 0:
            raise DataError("Zero training rows.", repair="Give at least two rows.")
        if not schema.features:
            notes = "; ".join(f"{column.name!r}: {column.note}" for column in schema.left_out[:10])
            raise DataError(f"No column can be used as a feature ({notes}).", repair="Add columns that vary.")
        seen = _training_rows(table, schema, rows)
        clocks = tuple(one.name for one in schema.of("date") if not is_dated_only(_cells(seen, one.name)))
        countable = [one.name for one in schema.features if one.kind != "category"]
        gaps = tuple(name for name in countable if seen.get_column(name).has_nulls())
        matrix = _continuous(seen, schema)
        scale = SCALES[numeric].fit(matrix)
        bins = bin_edges(scale.transform(matrix), num_bins) if num_bins and matrix.shape[1] else None
        buckets = tuple(Buckets.fit(_cells(seen, one.name)) for one in schema.of("category"))
        return cls(schema, scale, bins, clocks, gaps, buckets)

    def transform(self, table: pl.DataFrame, *, dtype: torch.dtype = torch.float32) -> Inputs:
        """The rows of `table` as tensors.

        Args:
            table: Holds the features, found by name; further columns are ignored.
            dtype: Of the numbers.

        Returns:
            `numeric` (N, num_numeric) and `categorical` (N, number of category columns).

        Raises:
            ColumnsError: If a feature is missing.
            DataError: If a value does not fit its column.
        """
        seen = check_columns(self.schema, table)
        scaled = np.nan_to_num(self.scale.transform(_continuous(seen, self.schema)))
        numeric = torch.from_numpy(np.concatenate((scaled, self._others(seen)), axis=1)).to(dtype)
        columns = zip(self.buckets, self.schema.of("category"), strict=True)
        codes = [buckets.transform(_cells(seen, one.name)) for buckets, one in columns]
        categorical = np.stack(codes, axis=1) if codes else np.zeros((seen.height, 0), dtype=np.int64)
        return Inputs(numeric, torch.from_numpy(categorical))

    @property
    def num_continuous(self) -> int:
        """Number of scaled numbers, which come first in `Inputs.numeric`."""
        return len(self.schema.of("number")) + len(NUMBERS) * len(self.schema.of("date"))

    @cached_property
    def num_numeric(self) -> int:
        """Number of columns of `Inputs.numeric`."""
        return len(self._numeric_names())

    @property
    def num_bins(self) -> int:
        """Bins for each number; 0 for none."""
        return 0 if self.bins is None else self.bins.shape[1] - 1

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of buckets of each category column."""
        return tuple(buckets.size for buckets in self.buckets)

    @property
    def feature_names(self) -> list[str]:
        """What each column of `Inputs.numeric`, then of `Inputs.categorical`, stands for."""
        return [*self._numeric_names(), *(column.name for column in self.schema.of("category"))]

    def to_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and plain data for JSON, from which `from_state` makes the same encoder bit for bit."""
        tensors = self.scale.to_state() | ({} if self.bins is None else {"bins": self.bins})
        data = {
            "format": _FORMAT,
            "schema": self.schema.to_dict(),
            "numeric": next(name for name, kind in SCALES.items() if isinstance(self.scale, kind)),
            "clocks": list(self.clocks),
            "gaps": list(self.gaps),
            "buckets": [one.to_dict() for one in self.buckets],
        }
        return tensors, data

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], data: dict[str, Any]) -> Encoder:
        """The encoder that `to_state` wrote.

        Raises:
            BundleError: If the parts are anything else, or do not fit together.
        """
        try:
            if data["format"] != _FORMAT:
                raise BundleError(f"Unknown encoder format {data['format']!r}.", repair="Update Poise.")
            fields = {name: tensor for name, tensor in tensors.items() if name != "bins"}
            encoder = cls(
                Schema.from_dict(data["schema"]),
                SCALES[data["numeric"]](**fields),
                tensors.get("bins"),
                tuple(data["clocks"]),
                tuple(data["gaps"]),
                tuple(Buckets.from_dict(one) for one in data["buckets"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"Not an encoder: {error}", repair="Fit again; the file was damaged.") from error
        encoder._check_consistent()
        return encoder

    def _check_consistent(self) -> None:
        names = set(self.schema.feature_names)
        fits = {
            "scale": all(one.shape[0] == self.num_continuous for one in self.scale.to_state().values()),
            "bins": self.bins is None or self.bins.shape[0] == self.num_continuous,
            "clocks": set(self.clocks) <= {column.name for column in self.schema.of("date")},
            "gaps": set(self.gaps) <= names,
            "buckets": len(self.buckets) == len(self.schema.of("category")),
        }
        wrong = [name for name, is_right in fits.items() if not is_right]
        if wrong:
            raise BundleError(f"The encoder's {wrong[0]} do not fit its columns.", repair="Fit again; it was damaged.")

    def _numeric_names(self) -> list[str]:
        dates = [column.name for column in self.schema.of("date")]
        return [
            *(column.name for column in self.schema.of("number")),
            *(f"{name}: {part}" for name in dates for part in NUMBERS),
            *(column.name for column in self.schema.of("boolean")),
            *(f"{name}: {part}" for name in dates for part in cycle_names(clock=name in self.clocks)),
            *(f"{name} is missing" for name in self.gaps),
        ]

    def _others(self, seen: pl.DataFrame) -> Array:
        """The numeric columns that are not scaled: booleans, parts of dates, indicators of gaps."""
        booleans = [column.name for column in self.schema.of("boolean")]
        parts = [_matrix(seen, booleans, pl.all().fill_null(value=False))]
        for column in self.schema.of("date"):
            parts.append(cycles_of(_cells(seen, column.name), clock=column.name in self.clocks))
        parts.append(_matrix(seen, self.gaps, pl.all().is_null()))
        return np.concatenate(parts, axis=1, dtype=np.float64)


def _training_rows(table: pl.DataFrame, schema: Schema, rows: NDArray[np.int64]) -> pl.DataFrame:
    try:
        return check_columns(schema, table[np.sort(rows)])
    except DataError:
        # Once more with all rows, so that the error counts rows as the caller does.
        check_columns(schema, table)
        raise


def _cells(seen: pl.DataFrame, name: str) -> pl.Series:
    # Nameless, since polars takes a name like "^a$" for a pattern.
    return seen.get_column(name).alias("")


def _matrix(seen: pl.DataFrame, names: Collection[str], cells: pl.Expr | None = None) -> NDArray[Any]:
    """(N, number of names): all columns `names` at once, or what `cells` makes of them; a gap is NaN."""
    if not names:
        return np.zeros((seen.height, 0))
    chosen = seen[list(names)]  # by name, where an expression would take "^a$" for a pattern
    return (chosen if cells is None else chosen.select(cells)).to_numpy()


def _continuous(seen: pl.DataFrame, schema: Schema) -> Array:
    """(N, num_continuous) numbers that are to be scaled, NaN where missing."""
    parts = [_matrix(seen, [column.name for column in schema.of("number")])]
    parts += [numbers_of(_cells(seen, column.name)) for column in schema.of("date")]
    return np.concatenate(parts, axis=1, dtype=np.float64)
