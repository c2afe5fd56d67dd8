"""Estimators for tables, and the whole job from a file to a proven network."""

from poise.estimators._bundle import load
from poise.estimators._classifier import PoiseClassifier
from poise.estimators._regressor import PoiseRegressor
from poise.estimators._result import Candidate, ColumnNote, FitResult, Interval, Progress
from poise.estimators._run import check_target, fit

__all__ = [
    "Candidate",
    "ColumnNote",
    "FitResult",
    "Interval",
    "PoiseClassifier",
    "PoiseRegressor",
    "Progress",
    "check_target",
    "fit",
    "load",
]
