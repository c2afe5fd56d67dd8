"""Reading and changing any torch model."""

from poise.surgery._apply import apply
from poise.surgery._recalibrate import recalibrate
from poise.surgery._recalibration import LayerShift, Recalibration
from poise.surgery._regimen import Regimen
from poise.surgery._roles import weights_of
from poise.surgery._statistics import recalibrate_outputs

__all__ = ["LayerShift", "Recalibration", "Regimen", "apply", "recalibrate", "recalibrate_outputs", "weights_of"]
