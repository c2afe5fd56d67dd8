"""Many networks, or many passes of one, as one prediction."""

from poise.ensemble._average import Average
from poise.ensemble._greedy import GreedyResult, greedy_weights
from poise.ensemble._mc_dropout import mc_dropout
from poise.ensemble._predict_mc import predict_mc
from poise.ensemble._prediction import MCPrediction

__all__ = ["Average", "GreedyResult", "MCPrediction", "greedy_weights", "mc_dropout", "predict_mc"]
