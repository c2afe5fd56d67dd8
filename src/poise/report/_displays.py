"""Pictures of a fit, each an object that draws itself on an axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poise._text import visible
from poise.estimators import Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAIN, _HELD_OUT = "#7a869a", "#c2410c"


@dataclass(frozen=True)
class LearningCurves:
    """Training and validation loss by epoch, both in eval mode, for one network.

    Args:
        candidate: With a history.
        loss_name: For the axis.
    """

    candidate: Candidate
    loss_name: str

    def plot(self, ax: Axes) -> Axes:
        """Draw on `ax`; the epoch whose weights predict is marked."""
        epochs = [record.epoch for record in self.candidate.history]
        for values, color, label in (
            ([record.train_loss for record in self.candidate.history], _TRAIN, "training"),
            ([record.val_loss for record in self.candidate.history], _HELD_OUT, "validation"),
        ):
            ax.plot(epochs, values, color=color, label=label, linewidth=1.6)
        ax.axvline(self.candidate.best_epoch, color="#555555", linewidth=1, linestyle=":")
        ax.set_title(visible(self.candidate.name), fontsize=10, parse_math=False)
        ax.set_xlabel("epoch")
        ax.set_ylabel(self.loss_name)
        ax.legend(frameon=False, fontsize=8)
        return ax


@dataclass(frozen=True)
class GapChart:
    """Training loss and test loss with its interval for every candidate; the distance between them is the gap.

    Args:
        candidates: In the order of the rows, from the top.
        loss_name: For the axis.
    """

    candidates: Sequence[Candidate]
    loss_name: str

    def plot(self, ax: Axes) -> Axes:
        """Draw on `ax`, one row a candidate."""
        for row, one in enumerate(self.candidates):
            ax.plot([one.train_loss, one.test_loss.value], [row, row], color="#cccccc", linewidth=3, zorder=1)
            ax.plot([one.test_loss.low, one.test_loss.high], [row, row], color=_HELD_OUT, linewidth=1, zorder=2)
            ax.scatter([one.train_loss], [row], color=_TRAIN, zorder=3, label="training" if row == 0 else None)
            ax.scatter([one.test_loss.value], [row], color=_HELD_OUT, zorder=3, label="test" if row == 0 else None)
        labels = [visible(one.name) + (" (chosen)" if one.chosen else "") for one in self.candidates]
        ax.set_yticks(range(len(labels)), labels, parse_math=False)
        ax.invert_yaxis()
        ax.set_xlabel(f"{self.loss_name}, lower is better")
        ax.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        return ax


def to_svg(plot: Callable[[Axes], Axes], *, width: float, height: float) -> str:
    """The picture as an SVG element; text becomes paths, so that no name can become markup.

    Args:
        plot: A display's `plot`.
        width: In inches.
        height: In inches.
    """
    from io import StringIO

    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "poise", "text.usetex": False, "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        ax = plot(figure.add_subplot())
        ax.spines[["top", "right"]].set_visible(False)
        buffer = StringIO()
        # Without a date the same fit gives the same page.
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
