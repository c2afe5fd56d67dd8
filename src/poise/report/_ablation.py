"""What an ablation found out, as a picture and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poise._text import visible
from poise.report._displays import to_svg
from poise.report._render import render
from poise.train import write_atomically
from poise.tuning import AblationResult, Effect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS: Mapping[str, str] = {"helps": "#0f766e", "hurts": "#c2410c", "no effect": "#1d2433", "cannot tell": "#9aa3b2"}
_HEAD, _ROW = 0.8, 0.24  # inches


@dataclass(frozen=True)
class EffectChart:
    """The effect of each ingredient on the test loss with its interval, beside zero and the margin.

    Args:
        effects: In the order of the rows, from the top.
        margin: Effects within ± margin do not matter.
        loss_name: For the axis.
    """

    effects: Sequence[Effect]
    margin: float
    loss_name: str

    def plot(self, ax: Axes) -> Axes:
        """Draw on `ax`, one row an effect; its verdict stands on the right."""
        ax.axvspan(-self.margin, self.margin, color="#eef0f4", linewidth=0, zorder=0)
        ax.axvline(0, color="#5d6778", linewidth=0.8, zorder=1)
        kinds = [one.kind for one in self.effects]
        for row in range(1, len(kinds)):
            if kinds[row] != kinds[row - 1]:
                ax.axhline(row - 0.5, color="#dfe3ea", linewidth=0.8, zorder=0)
        for row, one in enumerate(self.effects):
            color = _COLORS[one.verdict]
            if one.loss is not None:
                ax.plot([one.loss.low, one.loss.high], [row, row], color=color, linewidth=1.6, zorder=2)
                face = color if one.verdict != "cannot tell" else "white"
                ax.scatter([one.loss.value], [row], color=face, edgecolors=color, zorder=3)
            ax.annotate(
                one.verdict, (1.02, row), xycoords=("axes fraction", "data"), color=color, va="center", fontsize=8
            )
        ax.set_yticks(range(len(self.effects)), [visible(one.name) for one in self.effects], parse_math=False)
        ax.set_ylim(len(self.effects) - 0.5, -0.5)
        ax.set_xlabel(f"effect on the test {self.loss_name}: with it minus without it, left of zero helps")
        return ax


def write_ablation_page(result: AblationResult, path: str | Path) -> None:
    """Write the report of an ablation as one HTML file: escaped, with an inline picture, without scripts.

    Args:
        result: What `ablate` returned.
        path: Of the file; replaced at once, never left half-written.

    Example:
        >>> import pathlib, polars, tempfile
        >>> from poise import Budget, Network, Recipe, ablate, write_ablation_page
        >>> from poise.methods import Dropout
        >>> table = polars.DataFrame({"x": [i * i % 61 for i in range(60)], "z": ["a", "b"] * 30})
        >>> recipe = Recipe((Dropout(p=0.2),), budget=Budget(max_epochs=2), network=Network(width=8, depth=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = pathlib.Path(folder, "report.html")
        ...     write_ablation_page(ablate(table, target="z", recipe=recipe, max_blocks=5), page)
        ...     page.read_text(encoding="utf-8").startswith("<!doctype html>")
        True
    """
    from markupsafe import Markup

    chart = EffectChart(result.effects, result.margin, result.loss_name)
    height = _HEAD + _ROW * len(result.effects)
    # The SVG is our own: its text is drawn as paths, so it holds no name as text.
    picture = Markup(to_svg(chart.plot, width=7.5, height=height))  # noqa: S704
    write_atomically(Path(path), render("ablation.html", result=result, chart=picture))
