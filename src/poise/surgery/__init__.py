"""Reading and changing any torch model."""

from poise.surgery._acceleration._accelerate import accelerate
from poise.surgery._apply import apply
from poise.surgery._convert import convert_batch_norm, restore_batch_norm
from poise.surgery._decay import DecayGroups, decay_groups
from poise.surgery._folding._fold import fold, fold_plan
from poise.surgery._folding._fold_plan import FoldPlan, FoldStep
from poise.surgery._freeze import Frozen, freeze
from poise.surgery._modes import modes
from poise.surgery._recalibration._recalibrate import recalibrate
from poise.surgery._recalibration._recalibration import LayerShift, Recalibration
from poise.surgery._recalibration._statistics import recalibrate_outputs
from poise.surgery._regimen._regimen import Regimen
from poise.surgery._roles import weights_of

__all__ = [
    "DecayGroups",
    "FoldPlan",
    "FoldStep",
    "Frozen",
    "LayerShift",
    "Recalibration",
    "Regimen",
    "accelerate",
    "apply",
    "convert_batch_norm",
    "decay_groups",
    "fold",
    "fold_plan",
    "freeze",
    "modes",
    "recalibrate",
    "recalibrate_outputs",
    "restore_batch_norm",
    "weights_of",
]
