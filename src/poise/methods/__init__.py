"""Regularizers as data, one in each file. `METHODS` names them all."""

from poise.methods._alpha_dropout import AlphaDropout
from poise.methods._bases import (
    ROLES,
    AverageMethod,
    Batch,
    BatchMethod,
    Clock,
    Forward,
    LossMethod,
    Method,
    NetworkMethod,
    Role,
    Site,
    StopMethod,
    UpdateMethod,
    Weight,
    Weights,
)
from poise.methods._batch_norm import BatchNorm
from poise.methods._drop_path import DropPath
from poise.methods._dropout import Dropout
from poise.methods._early_stopping import EarlyStopping
from poise.methods._ema import EMA
from poise.methods._feature_mask import FeatureMask
from poise.methods._gaussian_noise import GaussianNoise
from poise.methods._gradient_clip import GradientClip
from poise.methods._group_lasso import GroupLasso
from poise.methods._l1 import L1
from poise.methods._l2 import L2
from poise.methods._label_smoothing import LabelSmoothing
from poise.methods._layer_norm import LayerNorm
from poise.methods._max_norm import MaxNorm
from poise.methods._mixup import Mixup
from poise.methods._swa import SWA
from poise.methods._weight_decay import WeightDecay

METHODS: dict[str, type[Method]] = {
    method.__name__: method
    for method in (
        BatchNorm,
        LayerNorm,
        Dropout,
        AlphaDropout,
        DropPath,
        GaussianNoise,
        L2,
        LabelSmoothing,
        Mixup,
        FeatureMask,
        L1,
        GroupLasso,
        WeightDecay,
        MaxNorm,
        GradientClip,
        EMA,
        SWA,
        EarlyStopping,
    )
}

__all__ = [
    "EMA",
    "L1",
    "L2",
    "METHODS",
    "ROLES",
    "SWA",
    "AlphaDropout",
    "AverageMethod",
    "Batch",
    "BatchMethod",
    "BatchNorm",
    "Clock",
    "DropPath",
    "Dropout",
    "EarlyStopping",
    "FeatureMask",
    "Forward",
    "GaussianNoise",
    "GradientClip",
    "GroupLasso",
    "LabelSmoothing",
    "LayerNorm",
    "LossMethod",
    "MaxNorm",
    "Method",
    "Mixup",
    "NetworkMethod",
    "Role",
    "Site",
    "StopMethod",
    "UpdateMethod",
    "Weight",
    "WeightDecay",
    "Weights",
]
