"""A run as its user holds it: what came out, its trials as a table, and plots.

Plots are matplotlib figures, returned and not shown: Optuna's and scikit-learn's own where they have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.documents import UNSET
from advisor.errors import UserError
from advisor.evaluation.judgement import Diagnosis
from advisor.notebook import html_table
from advisor.runs.result import InterruptedReport, RunReport, TrialReport

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.figure import Figure

    from advisor.runs.model import Model

Curve = Sequence[tuple[float, float]]
"""(epoch, loss)."""
MAIN_TRIALS = 5
"""A notebook shows this many trials, the best."""
MOST_AXES = 6
"""Parameters beside each other that can still be told apart."""


@dataclass(frozen=True)
class RunResult:
    """A finished (or interrupted) run. report: what result.json holds, typed; ``document`` is the same as a
    mapping. model: None when interrupted, and where the models are the user's."""

    folder: Path
    report: RunReport | InterruptedReport
    model: Model | None

    @property
    def document(self) -> dict[str, Any]:
        """What result.json holds; of an interrupted run, what would be its beginning."""
        return self.report.to_dict()

    @property
    def interrupted(self) -> bool:
        """Whether the search or the final was stopped."""
        return isinstance(self.report, InterruptedReport)

    def __repr__(self) -> str:
        if isinstance(self.report, InterruptedReport):
            return f"<RunResult {self.folder}: interrupted, no model>"
        from advisor.report.verdict import deciding

        by = deciding(self.report)
        estimate, loss = by.estimate, by.words
        expected = f"{loss} {estimate.mean:.3g} expected ({estimate.low:.3g} to {estimate.high:.3g})"
        winner = self.report.final.winner
        winner = winner if winner.startswith("trial") else f"the {winner}"
        return f"<RunResult {self.folder}: {winner} won, {expected}>"

    def _repr_html_(self) -> str:
        if isinstance(self.report, InterruptedReport):
            return html_table(f"Run {self.folder}", (), (), ["Interrupted: no model yet."])
        from advisor.report.verdict import verdict

        done = [(one.value, one) for one in self.report.trials if one.value is not None]
        best = sorted(done, key=lambda found: found[0])[:MAIN_TRIALS]
        rows = [(one.number, one.origin, float(value), one.epochs or None) for value, one in best]
        headers = ("Trial", "Origin", self._loss, "Epochs")
        return html_table(f"Run {self.folder}", headers, rows, verdict(self.report, ()))

    def _of_search(self) -> Sequence[TrialReport]:
        if not self.report.trials:
            raise UserError(f"{self.folder} holds no search: `advisor.tune` makes one")
        return self.report.trials

    @property
    def _predictions(self) -> Diagnosis:
        """What result.json says of the predictions for the test rows."""
        found = UNSET if isinstance(self.report, InterruptedReport) else self.report.test.predictions
        return found or Diagnosis()

    def _missing(self, wanted: str) -> UserError:
        return UserError(
            f"{self.folder} has no {wanted} of test rows: it is drawn for classes, where rows were tested"
        )

    def _study(self) -> optuna.Study:
        from optuna.trial import TrialState, create_trial

        from advisor.runs.folder import RunFolder
        from advisor.search.storage.journal import new_study
        from advisor.search.trials import end_of
        from advisor.workflows.status import study_of

        self._of_search()
        trials = study_of(RunFolder(self.folder)).get_trials(deepcopy=False)
        study: optuna.Study = new_study()
        # those that are not drawn keep their places: a trial has its number in every plot
        failed = create_trial(state=TrialState.FAIL)
        study.add_trials(
            [one if one.state.is_finished() and end_of(one) == "complete" else failed for one in trials]
        )
        return study

    def trials_dataframe(self) -> pd.DataFrame:
        """A row for each trial: number, origin, end (complete, pruned, failed ...), value (its loss), epochs,
        seconds, and a column for each parameter."""
        import pandas as pd

        rows = [
            {
                "number": one.number,
                "origin": one.origin,
                "end": one.end,
                "value": one.value,
                "epochs": None if one.epochs is UNSET else one.epochs,
                "seconds": None if one.seconds is UNSET else one.seconds,
            }
            | {f"params_{name}": value for name, value in one.configuration.items()}
            for one in self._of_search()
        ]
        return pd.DataFrame(rows).set_index("number")

    def plot_history(self) -> Figure:
        """The loss of every trial and the best so far, in their order."""
        return self._of_optuna("plot_optimization_history", target=None)  # with one it draws no best value

    def plot_parallel_coordinates(self, params: Sequence[str] | None = None) -> Figure:
        """Parameters and loss of every trial as a line across axes. params: by default at most 6, those that
        explain most of the search's differences, where that is known, else those that differ."""
        return self._of_optuna("plot_parallel_coordinate", params=params or self._telling())

    def plot_slice(self, params: Sequence[str] | None = None) -> Figure:
        """The loss of every trial against each parameter. params: as in ``plot_parallel_coordinates``."""
        return self._of_optuna("plot_slice", params=params or self._telling())

    def plot_importance(self) -> Figure:
        """How much of the differences in loss each parameter explains."""
        figure = self._of_optuna("plot_param_importances")
        figure.set_layout_engine("constrained")  # else long names of parameters are cut
        return figure

    def _telling(self) -> list[str]:
        """The parameters that tell most of the complete trials, as Optuna calls them."""
        from advisor.rules.recommendation import FIRST_CHOICES

        study = self._study()
        done = [one for one in study.get_trials(deepcopy=False) if one.state.name == "COMPLETE"]
        names = {name for one in done for name in one.params}
        several = [name for name in names if len({one.params.get(name) for one in done}) > 1]
        importances = self.report.search.importances if self.report.search else {}

        def order(name: str) -> tuple[float, bool, str]:
            return -importances.get(name, 0.0), name not in FIRST_CHOICES, name

        return sorted(several, key=order)[:MOST_AXES]

    def _of_optuna(self, name: str, **options: Any) -> Figure:
        import warnings

        import optuna.visualization.matplotlib as plots

        study = self._study()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Optuna's plots are experimental
            try:
                named = {"target": _value, "target_name": self._loss} | options
                return _figure(lambda: getattr(plots, name)(study, **named))
            except (ValueError, RuntimeError) as error:
                raise UserError(f"{self.folder}: {name} cannot be drawn: {error}") from None

    @property
    def _loss(self) -> str:
        return self.report.setup.loss

    def plot_learning_curves(self) -> Figure:
        """The validation loss after each epoch, of every trial, or of the training without a search; dashed
        the training loss, where it is kept (not of pruned trials, nor in runs of 0.1.0). The recommendation
        and the best trials have names, the others are grey."""
        named, others = self._curves()

        def draw() -> Any:
            import matplotlib.pyplot as plt
            from matplotlib.ticker import MaxNLocator

            axes = plt.subplots(layout="constrained")[1]
            for points in others:
                axes.plot(*zip(*points, strict=True), color="0.7", linewidth=0.7)
            for name, (validation, training) in named.items():
                [line] = axes.plot(*zip(*validation, strict=True), label=name, linewidth=1.4)
                if training:
                    axes.plot(*zip(*training, strict=True), "--", color=line.get_color(), linewidth=1)
            trained = any(training for _, training in named.values())
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("epoch")
            axes.set_ylabel(f"{self._loss} (dashed: of training)" if trained else f"validation {self._loss}")
            axes.figure.legend(loc="outside upper left", ncols=3)
            return axes

        return _figure(draw)

    def _curves(self) -> tuple[dict[str, tuple[Curve, Curve]], list[Curve]]:
        """Name -> (epoch, loss) of validation and of training, the latter empty where it is not kept; and the
        validation of all other trials."""
        if isinstance(self.report, RunReport) and self.report.curve:
            own = self.report
            alone = [list(enumerate(losses or (), start=1)) for losses in (own.curve, own.train_curve)]
            return {"training": (alone[0], alone[1])}, []
        if not self.report.search:
            return {}, []
        from advisor.report.view import shown_trials

        shown = shown_trials(self.report.search)
        known = {one.number for one in shown.values()}
        named: dict[str, tuple[Curve, Curve]] = {
            name: (one.curve, one.train_curve or ()) for name, one in shown.items() if one.curve
        }
        return named, [one.curve for one in self.report.trials if one.curve and one.number not in known]

    def plot_confusion_matrix(self) -> Figure:
        """The test rows of each class, by the class that was predicted."""
        counts = self._predictions.confusion
        if not counts:
            raise self._missing("confusion")
        from sklearn.metrics import ConfusionMatrixDisplay

        def draw() -> Any:
            import numpy as np

            display = ConfusionMatrixDisplay(np.asarray(counts), display_labels=self.report.setup.classes)
            return display.plot().ax_

        return _figure(draw)

    def plot_calibration(self) -> Figure:
        """How often predictions of a probability were right, against that probability; of the test rows."""
        calibration = self._predictions.calibration
        if not calibration:
            raise self._missing("calibration")
        bins = [one for one in calibration.bins if one.rows]
        from sklearn.calibration import CalibrationDisplay

        def draw() -> Any:
            import numpy as np

            said, was = np.array([one.probability for one in bins]), np.array([one.right for one in bins])
            return CalibrationDisplay(was, said, said).plot(name=str(self.report.setup.data.name)).ax_

        return _figure(draw)


def _value(trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.value or 0.0)


def _figure(draw: Callable[[], Any]) -> Figure:
    """The figure of what was drawn, which pyplot forgets: else a notebook would show it twice.

    Optuna sets a style for all figures of the program; it ends with the drawing.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    before = set(plt.get_fignums())
    try:
        with plt.rc_context():
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
    from advisor.runs.remote import local_copy
    from advisor.runs.result import read_result

    folder = RunFolder.open(local_copy(run))
    folder.need(folder.result, "train or tune it first")
    report = read_result(folder)
    return RunResult(folder.path, report, load_model(folder.path) if folder.model.is_dir() else None)
