"""Charts that answer to the pointer: well-formed, in bounds, nothing of a user's text becomes markup."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.report.plots import (
    Axis,
    DrawnCurve,
    DrawnTrial,
    curve_plot,
    curves_plot,
    dependence_plot,
    heat_overlay,
    history_plot,
    importance_plot,
    pairs_plot,
    parallel_plot,
    slice_plots,
)

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=30)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32)
TRIALS = st.lists(
    st.builds(
        DrawnTrial,
        number=st.integers(0, 500),
        origin=st.sampled_from(["recommendation", "library default", "sampler"]),
        end=st.sampled_from(["complete", "pruned", "failed", "diverged"]),
        value=st.one_of(st.none(), NUMBER),
        values=st.fixed_dictionaries(
            {"rate": st.one_of(st.none(), NUMBER), "norm": st.one_of(TEXT, st.booleans())}
        ),
    ),
    max_size=12,
)


def marks(svg):
    """The chart as elements; every coordinate of a mark lies in the drawing."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for element in root.iter("circle"):
        assert -1 <= float(element.get("cx")) <= width + 1
        assert -1 <= float(element.get("cy")) <= height + 1
    return root


@settings(max_examples=60, deadline=None)
@given(TRIALS, TEXT)
def test_charts_of_any_search_are_well_formed(trials, loss):
    for svg in [
        history_plot(trials, loss),
        parallel_plot(trials, ["rate", "norm"], loss),
        *(svg for _, svg in slice_plots(trials, ["rate", "norm"], loss)),
    ]:
        if svg:
            marks(svg)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=20), TEXT)
def test_charts_of_any_predictions_are_well_formed(pairs, name):
    marks(pairs_plot(pairs, name))
    marks(importance_plot([(name, a, min(a, b), max(a, b)) for a, b in pairs], name))
    places = sorted({float(a) for a, _ in pairs})
    for svg in (
        dependence_plot(name, places, {name: [0.5] * len(places)}, name),
        dependence_plot(name, [f"{name}{i}" for i in range(3)], {"": [0.1, 0.2, 0.3]}, name),
    ):
        if svg:
            marks(svg)


def test_a_text_of_the_data_is_no_markup():
    svg = importance_plot([("<script>alert(1)</script>", 1.0, 0.5, 1.5)], "loss")
    assert "<script" not in svg
    assert marks(svg) is not None


def test_trials_have_whole_numbers_and_say_what_they_are():
    trials = [DrawnTrial(i, "sampler", "complete", 1.0 / (i + 1), {}) for i in range(4)]
    svg = history_plot(trials, "log loss")
    ticks = re.findall(r'text-anchor="middle">([-\d.e]+)</text>', svg)
    assert all(float(tick) == int(float(tick)) for tick in ticks)
    assert 'data-tip="trial 3: 0.25, complete"' in svg


def test_the_best_line_never_rises_and_a_single_bad_trial_does_not_press_the_others_flat():
    values = [0.5, 0.4, 900.0, *([0.45] * 12), 0.3]
    svg = history_plot([DrawnTrial(i, "sampler", "complete", v, {}) for i, v in enumerate(values)], "loss")
    path = [e.get("d") for e in marks(svg).iter("path") if e.get("class") == "best"][-1]  # not the legend
    heights = [float(point.split()[1]) for point in path[1:].split("L")]
    assert heights == sorted(heights)
    assert max(heights) - min(heights) > 50


def test_a_parameter_with_one_value_has_no_axis():
    trials = [
        DrawnTrial(i, "sampler", "complete", float(i), {"rate": 10.0**-i, "norm": "batch"}) for i in range(5)
    ]
    svg = parallel_plot(trials, ["rate", "norm"], "loss")
    assert ">rate<" in svg
    assert ">norm<" not in svg


@pytest.mark.parametrize(("low", "high", "log"), [(0.001, 1, True), (5, 5, False), (-1e15, 1e15, False)])
def test_ticks_lie_within_the_axis(low, high, log):
    axis = Axis.of([low, high], "", log=log)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks())


CURVES = st.lists(st.tuples(st.integers(1, 300).map(float), NUMBER), max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.builds(DrawnCurve, TEXT, CURVES, CURVES), max_size=8), TEXT)
def test_any_learning_curves_are_well_formed(curves, loss):
    svg = curves_plot(curves, loss)
    assert bool(svg) == any(len(one.validation) > 1 for one in curves)
    if svg:
        marks(svg)


def test_learning_curves_have_whole_epochs_and_their_legend_above_them():
    validation = [(1.0, 2.0), (2.0, 1.0), (3.0, 0.9)]
    named = [
        DrawnCurve(f"a training with the long name {i}", validation, [(1.0, 2.5), (2.0, 0.5)])
        for i in range(5)
    ]
    root = marks(curves_plot(named, "log loss"))
    groups = [group for group in root.iter("g") if group.get("class") == "legend"]
    lowest = max(float(text.get("y")) for text in groups[0].iter("text"))
    lines = [path for path in root.iter("path") if path.get("data-tip")]
    assert len(lines) == 10
    heights = [float(point.split()[1]) for path in lines for point in path.get("d")[1:].split("L")]
    assert min(heights) > lowest
    assert max(float(text.get("x")) + 6 * len(text.text) for text in groups[0].iter("text")) < 660
    ticks = re.findall(r'text-anchor="middle">([-\d.e]+)</text>', curves_plot(named, "log loss"))
    assert ticks and all(float(tick) == int(float(tick)) for tick in ticks)


def test_names_of_references_do_not_touch_each_other():
    trials = [
        DrawnTrial(0, "recommendation", "complete", 0.5, {}),
        DrawnTrial(1, "library default", "complete", 0.501, {}),
    ]
    root = marks(history_plot([*trials, DrawnTrial(2, "sampler", "complete", 0.1, {})], "loss"))
    places = [
        float(text.get("y"))
        for text in root.iter("text")
        if text.text in ("recommendation", "library default")
    ]
    assert len(places) == 2 and abs(places[0] - places[1]) >= 12


def test_curves_mark_the_decision_in_use():
    svg = curve_plot([[0, 0], [0.1, 0.8], [1, 1]], (0.1, 0.8), ("ROC", "false positive rate", "recall"), None)
    assert "in use: false positive rate 0.10, recall 0.80" in svg
    marks(svg)


def test_where_nothing_is_looked_at_nothing_is_drawn():
    assert heat_overlay([[0.0, -1.0]]) == ""
    assert heat_overlay([[0.0, 1.0]]).count("<rect") == 1


def test_a_style_that_a_program_has_set_changes_no_page():
    import matplotlib

    from advisor.report.charts import bars

    plain = bars({"learning_rate": 0.7, "width": 0.3}, "share", "Importances")
    with matplotlib.rc_context():
        matplotlib.style.use("ggplot")
        assert bars({"learning_rate": 0.7, "width": 0.3}, "share", "Importances") == plain
        assert matplotlib.rcParams["axes.grid"], "and the program keeps its style"
