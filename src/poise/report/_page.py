"""The report page: one file, no scripts, nothing loaded from anywhere."""

from __future__ import annotations

from pathlib import Path

from poise.estimators import FitResult
from poise.report._displays import GapChart, LearningCurves, to_svg
from poise.report._render import render
from poise.train import write_atomically

_MOST_COLUMNS = 1000  # that a page lists


def write_page(result: FitResult, path: str | Path) -> None:
    """Write the report of a fit as one HTML file: escaped, with inline pictures, without scripts.

    Args:
        result: What `fit` returned.
        path: Of the file; replaced at once, never left half-written.

    Example:
        >>> import pathlib, polars, tempfile
        >>> from poise import fit, write_page
        >>> table = polars.DataFrame({"x": list(range(60)), "z": ["a", "b"] * 30})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = pathlib.Path(folder, "report.html")
        ...     write_page(fit(table, target="z", recipe="bare"), page)
        ...     page.read_text(encoding="utf-8").startswith("<!doctype html>")
        True
    """
    from markupsafe import Markup

    networks = [one for one in result.candidates if one.history]
    # The SVG is our own: its text is drawn as paths, so it holds no name as text.
    page = render(
        "template.html",
        result=result,
        most_columns=_MOST_COLUMNS,
        gap_chart=Markup(to_svg(GapChart(result.candidates, result.loss_name).plot, width=7, height=2.8)),  # noqa: S704
        curves=[
            Markup(to_svg(LearningCurves(one, result.loss_name).plot, width=3.15, height=2.3))  # noqa: S704
            for one in networks
        ],
    )
    write_atomically(Path(path), page)
