"""Estimators for tables, and the whole job from a file to a proven network."""

from poise.estimators._classifier import PoiseClassifier
from poise.estimators._cross_validate import cross_validate
from poise.estimators._load import load
from poise.estimators._predict import predict_table
from poise.estimators._regressor import PoiseRegressor
from poise.estimators._result import Candidate, ColumnNote, FitResult, Interval, MemberNote, Progress, SearchNote
from poise.estimators._run import fit
from poise.estimators._self_test import Check, self_test

__all__ = [
    "Candidate",
    "Check",
    "ColumnNote",
    "FitResult",
    "Interval",
    "MemberNote",
    "PoiseClassifier",
    "PoiseRegressor",
    "Progress",
    "SearchNote",
    "cross_validate",
    "fit",
    "load",
    "predict_table",
    "self_test",
]
