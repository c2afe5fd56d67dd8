"""Reading and changing any torch model."""

from poise.surgery._recalibrate import recalibrate
from poise.surgery._roles import weights_of

__all__ = ["recalibrate", "weights_of"]
