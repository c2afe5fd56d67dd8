"""Doors to other libraries: ONNX here; Lightning, transformers and skorch in modules that import them on use."""

from poise.integrations._export import Exported, export
from poise.integrations._table_graph import ColumnInput

__all__ = ["ColumnInput", "Exported", "export"]
