"""Categories as small integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from poise._errors import BundleError

UNKNOWN = 0
RARE = 1
FIRST = 2
MAX_CATEGORIES = 1000
_MANY_ROWS = 1000
_FEW_ROWS = 1000  # which Python goes through in the time of one call into polars


@dataclass(frozen=True)
class Buckets:
    """Bucket 0 is for categories never seen in training, 1 for rare ones, then one each for the others.

    Args:
        kept: Categories with a bucket of their own, in order of their text.
        rare: Categories that share the rare bucket, in order of their text.
        has_missing: Whether a gap is a category of its own (the last bucket); it is if training rows had one.
    """

    kept: tuple[str, ...]
    rare: tuple[str, ...]
    has_missing: bool

    @classmethod
    def fit(cls, cells: pl.Series) -> Buckets:
        """The buckets for the training rows' `cells`.

        A category is rare if fewer than 5 rows have it (fewer than 2 in tables below 1000 rows), or if 1000 others
        are more frequent; among equally frequent ones the text decides.
        """
        min_count = 5 if len(cells) >= _MANY_ROWS else 2
        known = cells.drop_nulls()
        counts = known.value_counts().rows() if len(cells) > _FEW_ROWS else list(Counter(known.to_list()).items())
        names = [text for text, _ in sorted(counts, key=lambda one: (-one[1], one[0]))]
        cut = min(sum(count >= min_count for _, count in counts), MAX_CATEGORIES)
        return cls(tuple(sorted(names[:cut])), tuple(sorted(names[cut:])), cells.has_nulls())

    @property
    def size(self) -> int:
        """Number of buckets."""
        return FIRST + len(self.kept) + int(self.has_missing)

    def transform(self, cells: pl.Series) -> NDArray[np.int64]:
        """(B,) bucket of each cell."""
        bucket_of = dict.fromkeys(self.rare, RARE)
        bucket_of.update({name: FIRST + i for i, name in enumerate(self.kept)})
        missing = self.size - 1 if self.has_missing else UNKNOWN
        if len(cells) <= _FEW_ROWS or not bucket_of:
            texts = cells.to_list()
            return np.array([missing if one is None else bucket_of.get(one, UNKNOWN) for one in texts], dtype=np.int64)
        found = cells.replace_strict(bucket_of, default=UNKNOWN, return_dtype=pl.Int64)
        return np.asarray(found.set(cells.is_null(), missing).to_numpy(), dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Buckets:
        """The buckets that `to_dict` wrote."""
        kept, rare, has_missing = data["kept"], data["rare"], data["has_missing"]
        if not isinstance(has_missing, bool) or not all(isinstance(one, str) for one in (*kept, *rare)):
            raise BundleError("Not the buckets of a category.", repair="Fit again; the file was damaged.")
        return cls(tuple(kept), tuple(rare), has_missing)
