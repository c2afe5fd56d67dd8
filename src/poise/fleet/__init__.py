"""Many trainings on one table."""

from poise.fleet._budget import within_time
from poise.fleet._engine import Engine
from poise.fleet._fleet import Fleet
from poise.fleet._plain import PlainEngine

__all__ = ["Engine", "Fleet", "PlainEngine", "within_time"]
