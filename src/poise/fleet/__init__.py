"""Many trainings on one table."""

from poise.fleet._budget import seconds_per_epoch, within_time
from poise.fleet._choice import Choice, choose, default_engines, preparation
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
    "choose",
    "default_engines",
    "preparation",
    "seconds_per_epoch",
    "wait_for_all",
    "within_time",
]
