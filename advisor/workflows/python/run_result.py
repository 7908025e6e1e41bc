"""A run as its user holds it: what came out, its trials as a table, and plots.

Plots are matplotlib figures, returned and not shown: Optuna's and scikit-learn's own where they have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.errors import UserError
from advisor.notebook import html_table

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.figure import Figure

    from advisor.runs.model import Model

MAIN_TRIALS = 5
"""A notebook shows so many trials, the best."""


@dataclass(frozen=True)
class RunResult:
    """A finished (or interrupted) run. ``document`` is what result.json holds;
    ``model`` is None when interrupted."""

    folder: Path
    document: Mapping[str, Any]
    model: Model | None
    interrupted: bool = False

    def __repr__(self) -> str:
        if self.interrupted:
            return f"<RunResult {self.folder}: interrupted, no model>"
        estimate, loss = self.document["estimate"], self.document["loss"]
        expected = f"{loss} {estimate['mean']:.3g} expected ({estimate['low']:.3g} to {estimate['high']:.3g})"
        winner = str(self.document["final"]["winner"])
        winner = winner if winner.startswith("trial") else f"the {winner}"
        return f"<RunResult {self.folder}: {winner} won, {expected}>"

    def _repr_html_(self) -> str:
        if self.interrupted:
            return html_table(f"Run {self.folder}", (), (), ["Interrupted: no model yet."])
        from advisor.report.page import verdict

        done = [one for one in self._trials() if one["value"] is not None]
        best = sorted(done, key=lambda one: one["value"])[:MAIN_TRIALS]
        rows = [(one["number"], one["origin"], float(one["value"]), one["epochs"]) for one in best]
        headers = ("Trial", "Origin", str(self.document["loss"]), "Epochs")
        return html_table(f"Run {self.folder}", headers, rows, verdict(dict(self.document), ()))

    def _trials(self) -> Sequence[Mapping[str, Any]]:
        trials: Sequence[Mapping[str, Any]] = (self.document.get("search") or {}).get("trials", ())
        return trials

    def _of_search(self) -> Sequence[Mapping[str, Any]]:
        if not self._trials():
            raise UserError(f"{self.folder} holds no search: `advisor.tune` makes one")
        return self._trials()

    def _predictions(self, wanted: str) -> Any:
        """A part of what result.json says of the predictions for the test rows."""
        found = (self.document.get("test") or {}).get("predictions", {}).get(wanted)
        if not found:
            raise UserError(
                f"{self.folder} has no {wanted} of test rows: it is drawn for classes, where rows were tested"
            )
        return found

    def _study(self) -> optuna.Study:
        from advisor.runs.folder import RunFolder
        from advisor.search.storage.journal import new_study
        from advisor.search.trials import end_of
        from advisor.workflows.status import study_of

        self._of_search()
        trials = study_of(RunFolder(self.folder)).get_trials(deepcopy=False)
        study: optuna.Study = new_study()
        study.add_trials([one for one in trials if one.state.is_finished() and end_of(one) == "complete"])
        return study

    def trials_dataframe(self) -> pd.DataFrame:
        """A row for each trial: number, origin, end (complete, pruned, failed ...), value (its loss), epochs,
        seconds, and a column for each parameter."""
        import pandas as pd

        rows = [
            {name: one.get(name) for name in ("number", "origin", "end", "value", "epochs", "seconds")}
            | {f"params_{name}": value for name, value in one["configuration"].items()}
            for one in self._of_search()
        ]
        return pd.DataFrame(rows).set_index("number")

    def plot_history(self) -> Figure:
        """The loss of every trial and the best so far, in their order."""
        return self._of_optuna("plot_optimization_history")

    def plot_parallel_coordinates(self, params: Sequence[str] | None = None) -> Figure:
        """Parameters and loss of every trial as a line across axes."""
        return self._of_optuna("plot_parallel_coordinate", params=params)

    def plot_slice(self, params: Sequence[str] | None = None) -> Figure:
        """The loss of every trial against each parameter."""
        return self._of_optuna("plot_slice", params=params)

    def plot_importance(self) -> Figure:
        """How much of the differences in loss each parameter explains."""
        return self._of_optuna("plot_param_importances")

    def _of_optuna(self, name: str, **options: Any) -> Figure:
        import warnings

        import optuna.visualization.matplotlib as plots

        study = self._study()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Optuna's plots are experimental
            try:
                return _figure(
                    lambda: getattr(plots, name)(study, target=_value, target_name=self._loss, **options)
                )
            except (ValueError, RuntimeError) as error:
                raise UserError(f"{self.folder}: {name} cannot be drawn: {error}") from None

    @property
    def _loss(self) -> str:
        return str(self.document["loss"])

    def plot_learning_curves(self) -> Figure:
        """The validation loss after each epoch, of every trial, or of the training without a search."""
        curves = {f"trial {one['number']}": one["curve"] for one in self._trials() if one["curve"]}
        if "curve" in self.document:
            curves["training"] = list(enumerate(self.document["curve"], start=1))

        def draw() -> Any:
            import matplotlib.pyplot as plt

            axes = plt.subplots(layout="constrained")[1]
            for name, points in curves.items():
                axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
            axes.set_xlabel("epoch")
            axes.set_ylabel(f"validation {self._loss}")
            if len(curves) <= MAIN_TRIALS:
                axes.legend()
            return axes

        return _figure(draw)

    def plot_confusion_matrix(self) -> Figure:
        """The test rows of each class, by the class that was predicted."""
        counts = self._predictions("confusion")
        from sklearn.metrics import ConfusionMatrixDisplay

        def draw() -> Any:
            import numpy as np

            display = ConfusionMatrixDisplay(np.asarray(counts), display_labels=self.document["classes"])
            return display.plot().ax_

        return _figure(draw)

    def plot_calibration(self) -> Figure:
        """How often predictions of a probability were right, against that probability; of the test rows."""
        bins = [one for one in self._predictions("calibration")["bins"] if one["rows"]]
        from sklearn.calibration import CalibrationDisplay

        def draw() -> Any:
            import numpy as np

            said, was = (np.array([one[key] for one in bins]) for key in ("probability", "right"))
            return CalibrationDisplay(was, said, said).plot(name=str(self.document["data"]["name"])).ax_

        return _figure(draw)


def _value(trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.value or 0.0)


def _figure(draw: Callable[[], Any]) -> Figure:
    """The figure of what was drawn, which pyplot forgets: else a notebook would show it twice."""
    import matplotlib.pyplot as plt
    import numpy as np

    before = set(plt.get_fignums())
    try:
        drawn = draw()
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
    axes = np.ravel(np.asarray(drawn, dtype=object))[0]
    figure: Figure = axes.figure
    return figure


def load_run(run: str | Path) -> RunResult:
    """A run that has ended, by its folder or URL. UserError when there is no result in it."""
    from advisor.runs.folder import RunFolder
    from advisor.runs.model import load_model
    from advisor.runs.remote import here
    from advisor.runs.result import read_result

    folder = RunFolder.open(here(run))
    folder.need(folder.result, "train or tune it first")
    document = read_result(folder)
    return RunResult(folder.path, document, load_model(folder.path) if folder.model.is_dir() else None)
