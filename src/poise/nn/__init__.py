"""Layers and networks. Where torch has the layer, the state_dict is torch's."""

from poise.nn._activation import ACTIVATIONS, ParametricActivation, make_activation
from poise.nn._as_one_batch import backward_as_one_batch
from poise.nn._batch_norm import BatchNorm
from poise.nn._domain import use_domain
from poise.nn._dropout import AlphaDropout, ChannelDropout, Dropout, DropPath, GaussianNoise
from poise.nn._embedding import CategoricalEmbedding, PiecewiseLinear
from poise.nn._feature_scale import FeatureScale
from poise.nn._fused import NormActDropout
from poise.nn._linear import Linear
from poise.nn._members import MemberAdapter, MemberHeads
from poise.nn._mlp import MLP, ResidualBlock, SiteKind, Structure
from poise.nn._norm import LayerNorm
from poise.nn._periodic import PeriodicEmbedding
from poise.nn._rank_one import RankOneConv2d, RankOneLinear, SharedMembers, share_members
from poise.nn._stochastic import Stochastic, assign_keys, set_step
from poise.nn._tabular import TabularNetwork, TabularShape

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "AlphaDropout",
    "BatchNorm",
    "CategoricalEmbedding",
    "ChannelDropout",
    "DropPath",
    "Dropout",
    "FeatureScale",
    "GaussianNoise",
    "LayerNorm",
    "Linear",
    "MemberAdapter",
    "MemberHeads",
    "NormActDropout",
    "ParametricActivation",
    "PeriodicEmbedding",
    "PiecewiseLinear",
    "RankOneConv2d",
    "RankOneLinear",
    "ResidualBlock",
    "SharedMembers",
    "SiteKind",
    "Stochastic",
    "Structure",
    "TabularNetwork",
    "TabularShape",
    "assign_keys",
    "backward_as_one_batch",
    "make_activation",
    "set_step",
    "share_members",
    "use_domain",
]
