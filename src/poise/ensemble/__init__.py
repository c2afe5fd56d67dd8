"""Many networks, or many passes of one, as one prediction."""

from poise.ensemble._average import Average
from poise.ensemble._bagging import Bagging
from poise.ensemble._deep_ensemble import DeepEnsemble
from poise.ensemble._fold_ensemble import FoldEnsemble
from poise.ensemble._greedy import GreedyResult, greedy_weights
from poise.ensemble._held_out import Estimate, HeldOut
from poise.ensemble._job import TrainedMember
from poise.ensemble._mc_dropout import mc_dropout
from poise.ensemble._members import Predicts
from poise.ensemble._predict_mc import predict_mc
from poise.ensemble._prediction import MCPrediction
from poise.ensemble._strategy import EnsembleStrategy, TrainedEnsemble

__all__ = [
    "Average",
    "Bagging",
    "DeepEnsemble",
    "EnsembleStrategy",
    "Estimate",
    "FoldEnsemble",
    "GreedyResult",
    "HeldOut",
    "MCPrediction",
    "Predicts",
    "TrainedEnsemble",
    "TrainedMember",
    "greedy_weights",
    "mc_dropout",
    "predict_mc",
]
