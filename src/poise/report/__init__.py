"""What a fit found out, as pictures and as a page."""

from poise.report._displays import GapChart, LearningCurves
from poise.report._page import write_page

__all__ = ["GapChart", "LearningCurves", "write_page"]
