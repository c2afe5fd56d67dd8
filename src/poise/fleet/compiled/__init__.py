"""Tabular networks in machine code, one variant per core. The README beside this file tells how."""

from poise.fleet.compiled._engine import CompiledEngine

__all__ = ["CompiledEngine"]
