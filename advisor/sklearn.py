"""Estimators in the form of scikit-learn: fit, predict, and all that is built on these.

Knows the workflows and scikit-learn. Nothing else imports it: scikit-learn is slow to load.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from advisor.data.columns.cells import is_mark
from advisor.data.options import MAX_SEED
from advisor.errors import DataFormWarning, UserError
from advisor.rules import shipped
from advisor.rules.provenance import ledger
from advisor.runs.result import RunReport

if TYPE_CHECKING:
    import pandas as pd

    from advisor.facts.schema import Facts
    from advisor.rules.book import Rule
    from advisor.rules.recommendation import Recommendation
    from advisor.runs.advice import Advice, Kept
    from advisor.runs.model import Model

    Matrix = NDArray[Any] | pd.DataFrame | pl.DataFrame

TARGET, WEIGHT, GROUP = "target", "sample weight", "group"
"""What the columns beside X are called in the table that is read, or a free name that begins so."""


@dataclass(frozen=True)
class FitReport:
    """The report of a fit: shows itself in a notebook.
    report: what a run's result.json holds, typed; ``result`` is the same as a mapping."""

    recommendation: Recommendation
    facts: Facts
    rules: tuple[Rule, ...]
    report: RunReport

    @property
    def result(self) -> dict[str, Any]:
        """What a run's result.json holds."""
        return self.report.to_dict()

    def __repr__(self) -> str:
        return f"<FitReport: {' '.join(self.verdict())}>"

    def _repr_html_(self) -> str:
        from html import escape

        return f'<iframe srcdoc="{escape(self.to_html())}" style="width:100%;height:40em;border:0"></iframe>'

    def verdict(self) -> list[str]:
        """What came out, in a few sentences."""
        from advisor.report.verdict import verdict

        return list(verdict(self.report, self.recommendation.findings))

    def to_html(self) -> str:
        """The page that a run folder holds as report.html."""
        from advisor.report.page import render_html

        return str(render_html(*self._parts()))

    def to_markdown(self) -> str:
        """The same as Markdown."""
        from advisor.report.page import render_markdown

        return str(render_markdown(*self._parts()))

    def _parts(self) -> tuple[Any, ...]:
        base = shipped.base_space(self.recommendation.kind)
        reasons = ledger(self.recommendation, self.facts.values, self.rules, base)
        return self.recommendation, self.facts, self.report, reasons


class _AdvisorEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What the classifier and the regressor share."""

    def __init__(
        self,
        trials: int = 0,
        *,
        time_limit: float | None = None,
        with_trees: bool = False,
        metric: str | Callable[..., float] | None = None,
        cost: str | Path | Mapping[Any, Mapping[Any, float]] | None = None,
        categorical_features: Sequence[Any] | None = None,
        epochs: int | None = None,
        fixed: Mapping[str, Any] | None = None,
        rules: Sequence[str | Path] = (),
        without: Sequence[str] = (),
        out: str | Path | None = None,
        random_state: int | np.random.RandomState | None = 0,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.trials = trials
        self.time_limit = time_limit
        self.with_trees = with_trees
        self.metric = metric
        self.cost = cost
        self.categorical_features = categorical_features
        self.epochs = epochs
        self.fixed = fixed
        self.rules = rules
        self.without = without
        self.out = out
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # ------------------------------------------------------------------------------------------ scikit-learn

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.non_deterministic = False
        return tags

    def fit(
        self,
        X: Matrix,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> Self:
        """Recommend for the rows, train what is recommended or search around it, and keep the model.

        X: (rows, columns), an array, a sparse matrix, a pandas or polars frame; the numbers of an array are
            quantities, the columns of a frame are read as a table's: dates, categories, texts, empty cells.
        y: (rows,).
        sample_weight: (rows,), how much each row counts in training and validation; 0 leaves it out.
        groups: (rows,), rows of one group validate together.
        ValueError for what the caller can fix.
        """
        rows, target = self._checked(X, y)
        frame = self._frame(rows)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, frame, ensure_non_negative=True)
            if len(np.unique(target[sample_weight > 0])) < 2:
                raise ValueError(
                    "the rows of weight above 0 have only 1 class or value: at least 2 are needed"
                )
        if groups is not None:
            check_consistent_length(frame, groups)
            groups = [f"g{label}" for label in np.asarray(groups).tolist()]
        beside = {TARGET: target, WEIGHT: sample_weight, GROUP: groups}
        named = {role: _free(role, frame.columns) for role, cells in beside.items() if cells is not None}
        frame = frame.assign(**{name: beside[role] for role, name in named.items()})
        try:
            self._fit_table(frame, named)
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def _rows(self, X: Any, *, reset: bool) -> Any:
        """X as it is given where it is a frame, else as an array that was checked."""
        if hasattr(X, "columns"):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if not len(X) or not X.shape[1]:
                raise ValueError(
                    f"found a frame of shape {X.shape}: at least 1 row and 1 column are required"
                )
            return X
        checked = validate_data(
            self, X, reset=reset, accept_sparse=True, dtype=None, ensure_all_finite="allow-nan"
        )
        return checked.toarray() if hasattr(checked, "toarray") else checked

    def _frame(self, rows: Any) -> pd.DataFrame:
        import pandas as pd

        if not hasattr(rows, "columns"):
            return pd.DataFrame(rows, columns=[f"x{number}" for number in range(rows.shape[1])])
        frame = rows if isinstance(rows, pd.DataFrame) else rows.to_pandas()
        return frame.reset_index(drop=True).set_axis(_texts(frame.columns), axis="columns")

    def _categorical(self, names: Sequence[str]) -> list[str]:
        """The columns of ``categorical_features``: names, positions or a mask."""
        given = self.categorical_features
        if given is None:
            return []
        listed = list(np.asarray(given).ravel().tolist())
        if len(listed) == len(names) and all(isinstance(one, bool) for one in listed):
            return [name for name, chosen in zip(names, listed, strict=True) if chosen]
        chosen = [names[one] if isinstance(one, int) and one < len(names) else str(one) for one in listed]
        if strange := [one for one in chosen if one not in names]:
            raise ValueError(f"categorical_features names {strange[0]!r}, which is not a column of X")
        return chosen

    # ----------------------------------------------------------------------------------------------- the work

    def _task(self) -> str:
        raise NotImplementedError

    def _costs(self) -> Any:
        """The costs by what the classes are called in the table that is read."""
        if not isinstance(self.cost, Mapping):
            return self.cost
        if not all(isinstance(row, Mapping) for row in self.cost.values()):
            raise ValueError("cost is no mapping of mappings: {true class: {predicted class: cost}}")
        return {
            _label(truth): {_label(said): value for said, value in row.items()}
            for truth, row in self.cost.items()
        }

    def _fit_table(self, frame: pd.DataFrame, named: Mapping[str, str]) -> None:
        from advisor.runs.advice import read_run
        from advisor.workflows.tune import train, train_in_memory, tune

        features = [name for name in frame.columns if name not in named.values()]
        types = dict.fromkeys(self._categorical(features), "categorical")
        if not hasattr(self, "feature_names_in_") and self._all_numbers(frame[features]):
            types = dict.fromkeys(features, "numeric") | types
        fixed = dict(self.fixed or {}) | ({} if self.epochs is None else {"epochs": self.epochs})
        options: dict[str, Any] = {
            "test_fraction": 0,
            "task": self._task(),
            "kind": "table",
            "types": types,
            "fixed": fixed,
            "rules": list(self.rules),
            "without": list(self.without),
            "seed": int(check_random_state(self.random_state).randint(MAX_SEED)),
            "join_spellings": False,
            "weight_column": named.get(WEIGHT),
            "group_column": named.get(GROUP),
            "metric": self.metric,
            "cost": self._costs(),
        }
        if isinstance(self.random_state, int | np.integer):
            options["seed"] = int(self.random_state)
        if not self.trials and self.out is None:
            quick = train_in_memory(
                *(frame, named[TARGET], self.time_limit, bool(self.verbose), options),
                with_trees=self.with_trees,
            )
            self._keep(*quick)
            return
        with tempfile.TemporaryDirectory(prefix="advisor-") as scratch:
            out = Path(self.out) if self.out is not None else Path(scratch) / "run"
            options |= {"time_limit": self.time_limit, "with_trees": self.with_trees}
            options |= {"progress": bool(self.verbose)}
            if not self.trials:
                run = train(frame, named[TARGET], out=out, **options)
            else:
                alone = self.n_jobs in (None, 1)
                where = {"executor": "in-process"} if alone else {"workers": _jobs(int(self.n_jobs or 1))}
                run = tune(frame, named[TARGET], out=out, trials=self.trials, **where, **options)
            if run.model is None:
                raise UserError("the search was stopped before there was a model: fit again")
            assert isinstance(run.report, RunReport), "what has a model has its whole report"
            self._keep(read_run(run.folder), run.model, run.report)

    def _keep(self, advice: Advice | Kept, model: Model, result: RunReport) -> None:
        self.model_ = model
        self.recommendation_ = advice.recommendation
        self.report_ = FitReport(advice.recommendation, advice.facts, advice.rules, result)

    @staticmethod
    def _all_numbers(frame: pd.DataFrame) -> bool:
        return all(kind.kind in "biuf" for kind in frame.dtypes)

    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Probabilities (rows, the model's classes) or predictions (rows,)."""
        check_is_fitted(self)
        frame = self._frame(self._rows(X, reset=False))
        try:
            with warnings.catch_warnings():
                if not self.verbose:
                    warnings.simplefilter("ignore", DataFormWarning)
                return self.model_.scores(self.model_.read(frame))
        except UserError as error:
            raise ValueError(str(error)) from error


class AdvisorClassifier(ClassifierMixin, _AdvisorEstimator):  # type: ignore[misc]
    """A neural network for rows with classes: the advisor's recommendation, trained, or a search around it.

    trials: 0 trains what is recommended; else this many configurations are tried, the recommendation first.
    time_limit: seconds for the training, or for search and final together.
    with_trees: also fit boosted trees; where their blend with the networks is better on held-out rows, the
        blend is the model.
    metric: what decides in place of the loss, and which class is predicted: the name of a scorer ("f1",
        "roc_auc", "pinball:0.9"), or a function (truth, predictions) -> number, or a scorer.
    cost: true class -> predicted class -> what that costs, or a file with it.
    categorical_features: names, positions or a mask of columns whose values are names, not quantities.
    epochs: at most this many; None leaves them to the rules. fixed: parameter -> the value that must stand.
    rules: further folders of rules, without: ids of rules to leave out.
    out: the run folder, with report and model; None keeps nothing on disk.
    random_state: a number makes every fit the same.
    n_jobs: trials at once, by Ray; None and 1 run them in this process, -1 is one for each core.
    verbose: 1 shows progress on stderr and warnings about the form of new rows.

    After ``fit``: ``classes_`` (sorted), ``n_features_in_``, ``feature_names_in_`` (of frames),
    ``recommendation_`` (``why``, ``space``), ``report_`` (shows itself in a notebook) and ``model_``.

    >>> from advisor.sklearn import AdvisorClassifier
    >>> AdvisorClassifier().fit(X_train, y_train).predict_proba(X_test)  # doctest: +SKIP
    """

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        rows = self._rows(X, reset=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        check_consistent_length(rows, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if rows.shape[0] == 1:
            raise ValueError("n_samples=1: a network needs more than 1 sample, of 2 classes")
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has 1 class only, {self.classes_[0]!r}: a classifier needs at least 2 classes"
            )
        return rows, np.asarray(self._labels(), dtype=object)[codes]

    def _labels(self) -> list[str]:
        """What the classes are called in the table that is read."""
        labels = [_label(one) for one in self.classes_.tolist()]
        return labels if len(set(labels)) == len(labels) else [f"class {n}" for n in range(len(labels))]

    def _task(self) -> str:
        return "binary" if len(self.classes_) == 2 else "multiclass"

    def predict_proba(self, X: Matrix) -> NDArray[np.float64]:
        """Probabilities (rows, classes), in the order of ``classes_``; 0 for a class of a single row."""
        scores = self._scores(X)
        place = {label: number for number, label in enumerate(self._labels())}
        result = np.zeros((len(scores), len(self.classes_)))
        result[:, [place[label] for label in self.model_.schema.classes]] = scores
        return result

    def predict(self, X: Matrix) -> NDArray[Any]:
        """The class of each row, (rows,): the most likely one, or as the metric asks for."""
        scores = self._scores(X)
        decided = self.model_.task.decided(scores, self.model_.shares)
        place = {label: number for number, label in enumerate(self._labels())}
        own = np.array([place[label] for label in self.model_.schema.classes])
        return np.asarray(self.classes_[own[decided]])


class AdvisorRegressor(RegressorMixin, _AdvisorEstimator):  # type: ignore[misc]
    """A neural network for rows with a number to predict; arguments and attributes: ``AdvisorClassifier``.

    >>> from advisor.sklearn import AdvisorRegressor
    >>> AdvisorRegressor(trials=40, time_limit=600).fit(X_train, y_train).predict(X_test)  # doctest: +SKIP
    """

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        rows = self._rows(X, reset=True)
        y = column_or_1d(y, warn=True)
        check_consistent_length(rows, y)
        if rows.shape[0] == 1:
            raise ValueError("n_samples=1: a network needs more than 1 sample")
        return rows, check_array(y, ensure_2d=False, dtype=np.float64)

    def _task(self) -> str:
        return "regression"

    def predict(self, X: Matrix) -> NDArray[np.float64]:
        """A number for each row, in the target's unit, (rows,)."""
        return self._scores(X)


def _label(value: Any) -> str:
    if isinstance(value, str):
        plain = bool(value) and value == value.strip() and not is_mark(pl.Series([value])).any()
        return value if plain else f"class {value!r}"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else f"class {value}"


def _texts(names: Any) -> list[str]:
    """Names of columns as text, each once."""
    texts: list[str] = []
    for number, name in enumerate(names):
        text = str(name)
        texts.append(text if text not in texts else f"{text} ({number})")
    return texts


def _free(name: str, taken: Any) -> str:
    return next(one for one in (name, *(f"{name} {n}" for n in range(2, len(taken) + 3))) if one not in taken)


def _jobs(jobs: int) -> int:
    return jobs if jobs > 0 else max(1, len(os.sched_getaffinity(0)) + 1 + jobs)
