"""From tables to tensors: reading, kinds of columns, encoding, targets and splits."""

from poise.data._column import as_column
from poise.data._encode import Encoder
from poise.data._folds import fold_rows
from poise.data._frame import as_table
from poise.data._inputs import Inputs
from poise.data._schema import Column, Schema, check_columns, infer_schema
from poise.data._shared_rows import SharedRows, duplicated_rows, num_shared_rows
from poise.data._split import Split, split_rows
from poise.data._table import read_table
from poise.data._target import TaskGuess, encode_classes, infer_task

__all__ = [
    "Column",
    "Encoder",
    "Inputs",
    "Schema",
    "SharedRows",
    "Split",
    "TaskGuess",
    "as_column",
    "as_table",
    "check_columns",
    "duplicated_rows",
    "encode_classes",
    "fold_rows",
    "infer_schema",
    "infer_task",
    "num_shared_rows",
    "read_table",
    "split_rows",
]
