"""One training: what is to be done, where it stands, how it is kept."""

from poise.train._adamw import adam_step
from poise.train._checkpoint import (
    load_state,
    pack_tensors,
    read_checkpoint,
    remove_leftovers,
    save_state,
    to_json,
    write_atomically,
    write_checkpoint,
)
from poise.train._data_init import initialize_from_rows
from poise.train._flat import flatten_, flatten_gradients_, running_statistics
from poise.train._history import Epoch
from poise.train._network import BuiltNetwork, build_network, network_shape
from poise.train._plan import Dataset, Plan, Rows, batch_bounds
from poise.train._predictor import Predictor, row_chunks
from poise.train._state import State
from poise.train._task import Binary, Multiclass, Regression, Task, rows_of_members

__all__ = [
    "Binary",
    "BuiltNetwork",
    "Dataset",
    "Epoch",
    "Multiclass",
    "Plan",
    "Predictor",
    "Regression",
    "Rows",
    "State",
    "Task",
    "adam_step",
    "batch_bounds",
    "build_network",
    "flatten_",
    "flatten_gradients_",
    "initialize_from_rows",
    "load_state",
    "network_shape",
    "pack_tensors",
    "read_checkpoint",
    "remove_leftovers",
    "row_chunks",
    "rows_of_members",
    "running_statistics",
    "save_state",
    "to_json",
    "write_atomically",
    "write_checkpoint",
]
