"""Search: what may vary, which recipes to try, who goes on, and what mattered."""

from poise.tuning._arena import Arena
from poise.tuning._domains import Domain, Float, Int, OneOf
from poise.tuning._run_folder import RunFolder, environment
from poise.tuning._space import Space
from poise.tuning._table import (
    LabeledTable,
    check_target,
    feature_schema,
    merge_equal_rows,
    read_labeled,
    source_name,
)

__all__ = [
    "Arena",
    "Domain",
    "Float",
    "Int",
    "LabeledTable",
    "OneOf",
    "RunFolder",
    "Space",
    "check_target",
    "environment",
    "feature_schema",
    "merge_equal_rows",
    "read_labeled",
    "source_name",
]
