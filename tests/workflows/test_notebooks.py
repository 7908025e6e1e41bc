"""What objects show in a notebook, what can be asked of them in Python, and the plots of a run."""

import inspect

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import advisor
from advisor.cli.main import cli

TERMINAL = {"dashboard", "serve", "token", "mcp"}
"""Commands that serve until they are ended, or that make keys for these: nothing that a function returns."""
OWN_OBJECTS = {"repair"}
"""Commands that name in text what Python is given as objects: a network, a loss, an optimizer."""
OTHER_NAMES = {"quiet": "progress", "folders": "rules", "changes": "changes"}
OTHER_FUNCTIONS = {"report": "report_of"}
"""``advisor.report`` is a package."""
OF_THE_TERMINAL = {"as_json", "everything", "raw", "image_root", "server"}
"""Options about what is printed and written, which Python leaves to its caller; a server is ``connect``."""


@pytest.fixture(scope="module")
def frame():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(120, 2))
    noise = draw.normal(size=120) / 2
    return pd.DataFrame(values, columns=["a", "<b>"]).assign(y=np.where(values[:, 0] + noise > 0, "p", "n"))


@pytest.fixture(scope="module")
def run(frame, tmp_path_factory):
    fixed = {"epochs": 3, "folds": 2, "batch_size": 32}
    out = tmp_path_factory.mktemp("runs") / "run"
    return advisor.tune(frame, "y", out=out, trials=6, executor="in-process", progress=False, fixed=fixed)


def commands(group, before=""):
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield from (
            commands(command, f"{name}_")
            if hasattr(command, "list_commands")
            else [(before + name.replace("-", "_"), command)]
        )


def test_every_command_is_a_function_with_the_same_options():
    for name, command in commands(cli):
        if name in TERMINAL | OWN_OBJECTS or name.partition("_")[0] in TERMINAL:
            continue
        function = getattr(advisor, OTHER_FUNCTIONS.get(name, name))
        names = (
            {OTHER_NAMES.get(p.name, p.name) for p in command.params}
            - OF_THE_TERMINAL
            - {"set", "keep_ranges"}
        )
        own = set(inspect.signature(function).parameters)
        if name in ("recommend", "predict", "report"):
            names -= {"out"}  # what a function returns is not written
        assert names <= own, (name, names - own)


def test_advice_answers_why_and_what_if(frame):
    rec = advisor.recommend(frame, target="y")
    assert "learning_rate is" in str(rec.why("learning_rate")) and "width" in str(rec.why())
    other = rec.what_if(rows=1e6)
    assert any(one.parameter == "width" for one in other.parameters) and "width" in repr(other)
    assert rec.what_if({"gpu.memory_gb": 80}).moved
    with pytest.raises(advisor.UserError, match="did you mean"):
        rec.why("learning_rat")
    with pytest.raises(advisor.UserError, match="there is no fact 'row'"):
        rec.what_if(row=3)
    assert rec == advisor.recommend(frame[["a", "<b>"]], frame["y"])


def test_a_run_is_asked_by_its_folder(frame, run):
    folder = run.folder
    assert advisor.status(folder).state == "finished" and advisor.stop(folder) == "nobody"
    assert "## Verdict" in advisor.report_of(folder) and advisor.report_of(folder, form="json").startswith(
        "{"
    )
    assert "learning_rate" in advisor.why(folder, "learning_rate")
    assert advisor.what_if(folder, {"rows": 1e6}).parameters and not advisor.diff(folder, folder).parameters
    assert advisor.predict(folder, frame).columns == ["prediction", "probability_n", "probability_p"]
    again = advisor.load_run(folder)
    assert again.document == run.document and (again.model.predict(frame) == run.model.predict(frame)).all()


def test_notebooks_show_short_tables_with_everything_escaped(frame, run):
    rec, facts = advisor.recommend(frame, "y"), advisor.measure(frame, "y")
    for one in (rec, facts, run, *rec.findings):
        shown = one._repr_html_()
        assert len(shown) < 10_000 and "<b>" not in shown
    assert "Because" in rec._repr_html_() and "120" not in run._repr_html_().partition("<table")[0][:20]


def test_trials_are_a_table(run):
    table = run.trials_dataframe()
    assert table.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert {"value", "end", "seconds", "params_learning_rate"} <= set(table.columns)
    assert table["origin"][:2].tolist() == ["recommendation", "library default"]


PLOTS = (
    "history",
    "parallel_coordinates",
    "slice",
    "importance",
    "learning_curves",
    "confusion_matrix",
    "calibration",
)


@pytest.mark.parametrize("plot", PLOTS)
def test_plots_are_figures_that_are_returned_and_not_shown(plot, run):
    import matplotlib.pyplot as plt

    before, style = plt.get_fignums(), dict(plt.rcParams)
    figure = getattr(run, f"plot_{plot}")()
    assert isinstance(figure, Figure) and plt.get_fignums() == before
    assert dict(plt.rcParams) == style, "a program keeps its own style of figures"
    figure.canvas.draw()


def test_plots_keep_the_numbers_of_trials_and_tell_training_from_validation(run):
    complete = run.trials_dataframe().query("end == 'complete'")
    axes = run.plot_history().axes[0]
    drawn = axes.collections[0].get_offsets()[:, 0].tolist()
    assert drawn == complete.index.tolist()
    assert axes.lines, "the best so far"
    lines = run.plot_learning_curves().axes[0].lines
    assert {line.get_linestyle() for line in lines} == {"-", "--"}
    [figure] = [run.plot_parallel_coordinates()]
    assert 2 <= len(figure.axes) <= 9, "not all parameters"


def test_what_a_run_has_not_cannot_be_drawn(frame, tmp_path):
    numbers = frame.assign(y=frame["a"])
    run = advisor.train(numbers, "y", out=tmp_path / "run", progress=False, fixed={"epochs": 2, "folds": 2})
    assert isinstance(run.plot_learning_curves(), Figure)
    for what, says in {"history": "holds no search", "confusion_matrix": "no confusion of test rows"}.items():
        with pytest.raises(advisor.UserError, match=says):
            getattr(run, f"plot_{what}")()
