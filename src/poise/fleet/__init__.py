"""Many trainings on one table."""

from poise.fleet._budget import within_time
from poise.fleet._choice import Choice, default_engines, preparation
from poise.fleet._engine import Engine
from poise.fleet._fleet import Fleet
from poise.fleet._pace import Pace
from poise.fleet._plain import PlainEngine
from poise.fleet._waiting import wait_for_all

__all__ = [
    "Choice",
    "Engine",
    "Fleet",
    "Pace",
    "PlainEngine",
    "default_engines",
    "preparation",
    "wait_for_all",
    "within_time",
]
