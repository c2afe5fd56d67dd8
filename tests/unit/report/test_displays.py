import xml.etree.ElementTree as ET

import numpy as np
from matplotlib.figure import Figure

from poise.report import GapChart, LearningCurves
from poise.report._displays import to_svg

from ._results import make_candidate, make_result

SVG = "{http://www.w3.org/2000/svg}"


def new_axes():
    return Figure().add_subplot()


def test_curves_show_training_and_validation_loss_by_epoch():
    candidate = make_candidate("bare", num_epochs=8)
    ax = LearningCurves(candidate, "log loss").plot(new_axes())
    lines = {line.get_label(): line for line in ax.get_lines()}
    for label, name in (("training", "train_loss"), ("validation", "val_loss")):
        x, y = lines[label].get_data()
        np.testing.assert_array_equal(x, np.arange(1, 9))
        np.testing.assert_allclose(y, [getattr(record, name) for record in candidate.history])
    assert ax.get_title() == "bare"
    assert ax.get_ylabel() == "log loss"


def test_curves_mark_the_epoch_whose_weights_predict():
    ax = LearningCurves(make_candidate("bare"), "log loss").plot(new_axes())
    assert [4, 4] in [list(line.get_xdata()) for line in ax.get_lines()]


def test_the_chart_shows_both_losses_and_the_interval_of_every_candidate():
    candidates = make_result().candidates
    ax = GapChart(candidates, "log loss").plot(new_axes())
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()]
    points = [tuple(float(number) for number in dots.get_offsets()[0]) for dots in ax.collections]
    for row, one in enumerate(candidates):
        assert ([one.train_loss, one.test_loss.value], [row, row]) in drawn
        assert ([one.test_loss.low, one.test_loss.high], [row, row]) in drawn
        assert (one.train_loss, row) in points
        assert (one.test_loss.value, row) in points


def test_the_chart_names_the_candidates_from_the_top_and_marks_the_chosen():
    ax = GapChart(make_result().candidates, "log loss").plot(new_axes())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bare", "cocktail (chosen)", "HistGradientBoosting"]
    assert ax.yaxis_inverted()


def test_a_picture_is_an_svg_whose_text_is_drawn_as_paths():
    text = to_svg(LearningCurves(make_candidate("bare"), "log loss").plot, width=3, height=2)
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.findall(f".//{SVG}path")
    assert not root.findall(f".//{SVG}text")


def test_the_same_result_gives_the_same_picture():
    first, second = (to_svg(GapChart(make_result().candidates, "loss").plot, width=3, height=2) for _ in range(2))
    assert first == second
