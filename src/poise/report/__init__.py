"""What a fit or an ablation found out, as pictures and as a page."""

from poise.report._ablation import EffectChart, write_ablation_page
from poise.report._displays import GapChart, LearningCurves
from poise.report._page import write_page

__all__ = ["EffectChart", "GapChart", "LearningCurves", "write_ablation_page", "write_page"]
