"""Many networks, or many passes of one, as one prediction."""

from poise.ensemble._average import Average
from poise.ensemble._bagging import Bagging
from poise.ensemble._bias_corrected import BiasCorrected, select_bias_corrected
from poise.ensemble._boosted import Boosted, Stage
from poise.ensemble._boosting import Boosting
from poise.ensemble._calibration import Calibration
from poise.ensemble._conformal_intervals import ConformalIntervals
from poise.ensemble._conformal_sets import ConformalSets
from poise.ensemble._deep_ensemble import DeepEnsemble
from poise.ensemble._distill import Distilled, distill
from poise.ensemble._diversity import Diversity, diversity
from poise.ensemble._fitted import fitted_from_dict
from poise.ensemble._fold_ensemble import FoldEnsemble
from poise.ensemble._greedy import GreedyResult, greedy_weights
from poise.ensemble._held_out import Estimate, HeldOut
from poise.ensemble._isotonic import Isotonic
from poise.ensemble._job import TrainedMember
from poise.ensemble._mc_dropout import mc_dropout
from poise.ensemble._members import Predicts
from poise.ensemble._predict_mc import predict_mc
from poise.ensemble._prediction import MCPrediction
from poise.ensemble._snapshot_ensemble import SnapshotEnsemble
from poise.ensemble._strategy import EnsembleStrategy, TrainedEnsemble
from poise.ensemble._temperature import Temperature

__all__ = [
    "Average",
    "Bagging",
    "BiasCorrected",
    "Boosted",
    "Boosting",
    "Calibration",
    "ConformalIntervals",
    "ConformalSets",
    "DeepEnsemble",
    "Distilled",
    "Diversity",
    "EnsembleStrategy",
    "Estimate",
    "FoldEnsemble",
    "GreedyResult",
    "HeldOut",
    "Isotonic",
    "MCPrediction",
    "Predicts",
    "SnapshotEnsemble",
    "Stage",
    "Temperature",
    "TrainedEnsemble",
    "TrainedMember",
    "distill",
    "diversity",
    "fitted_from_dict",
    "greedy_weights",
    "mc_dropout",
    "predict_mc",
    "select_bias_corrected",
]
