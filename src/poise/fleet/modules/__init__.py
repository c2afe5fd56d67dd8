"""Trainings of any torch module with a recipe in it."""

from poise.fleet.modules._built import Built, build
from poise.fleet.modules._job import Job
from poise.fleet.modules._plain import PlainLoop
from poise.fleet.modules._source import Source, source_of
from poise.fleet.modules._stackable import structure, why_not, why_not_together
from poise.fleet.modules._stacked import Member, StackedLoop
from poise.fleet.modules._state import ModuleState

__all__ = [
    "Built",
    "Job",
    "Member",
    "ModuleState",
    "PlainLoop",
    "Source",
    "StackedLoop",
    "build",
    "source_of",
    "structure",
    "why_not",
    "why_not_together",
]
