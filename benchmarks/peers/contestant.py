"""One peer on one table with one seed, in the peer's own environment: trains, predicts the test rows, and
leaves
its predictions and its seconds of the processor.

    python contestant.py PEER TABLE SEED THREADS OUT.npz

TABLE has train.csv, test.csv and meta.yaml. Nothing of the advisor is imported but for the peer `advisor`.
All others are given the same frame: numbers, and categories as they stand in the training rows.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

Scores = tuple[np.ndarray, list[str]]
"""Probabilities (rows, classes) with the classes as text, or predictions (rows,) and no classes."""
TREE_LEVELS = 255
"""HistGradientBoosting takes at most so many levels of a category."""


class Table:
    """The frames of a table. x, y: of the training rows; new: the test rows without the target."""

    def __init__(self, folder: Path) -> None:
        meta = yaml.safe_load((folder / "meta.yaml").read_text())
        target, self.of_classes = meta["target"], meta["task"] != "regression"
        train, test = (_read(folder / name) for name in ("train.csv", "test.csv"))
        known = train[target].notna()
        y = train.loc[known, target]
        self.y = (y.astype(str) if self.of_classes else y.astype(float)).to_numpy()
        self.x = train.loc[known].drop(columns=target)
        self.new = test.drop(columns=target, errors="ignore")
        for name in self.x.columns:
            if pd.api.types.is_bool_dtype(self.x[name]) or not pd.api.types.is_numeric_dtype(self.x[name]):
                levels = pd.CategoricalDtype(sorted(self.x[name].dropna().astype(str).unique()))
                for frame in (self.x, self.new):
                    frame[name] = frame[name].astype(str).where(frame[name].notna()).astype(levels)
            else:
                self.new[name] = pd.to_numeric(self.new[name], errors="coerce").astype(float)
                self.x[name] = self.x[name].astype(float)
        self.categories = [name for name in self.x.columns if self.x[name].dtype == "category"]
        self.numbers = [name for name in self.x.columns if name not in self.categories]

    def filled(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The frames with the median where a number is missing: for peers that take none."""
        middle = self.x[self.numbers].median().fillna(0.0)
        return self.x.fillna(middle), self.new.fillna(middle)


def _read(path: Path) -> pd.DataFrame:
    # a level named None or NA is a level
    return pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)


def advisor(folder: Path, table: Table, seed: int, threads: int) -> Scores:
    """The recommendation alone, as `advisor train` makes it."""
    import advisor as package

    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    with tempfile.TemporaryDirectory() as out:
        run = package.train(
            folder / "train.csv", target, test=folder / "test.csv", seed=seed, out=Path(out) / "run",
            progress=False,
        )  # fmt: skip
    model = run.model
    if not table.of_classes:
        return model.predict(folder / "test.csv"), []
    return model.predict_proba(folder / "test.csv"), [str(label) for label in model.schema.classes]


def _fitted(model, table: Table, x=None, new=None) -> Scores:
    x, new = (table.x, table.new) if x is None else (x, new)
    model.fit(x, table.y)
    if not table.of_classes:
        return np.asarray(model.predict(new), float).reshape(-1), []
    return np.asarray(model.predict_proba(new), float), [str(label) for label in model.classes_]


def mlp(folder: Path, table: Table, seed: int, threads: int) -> Scores:
    """scikit-learn's MLP at its defaults on imputed, scaled and one-hot columns, a number to predict
    scaled."""
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    inputs = ColumnTransformer(
        [
            ("numbers", numbers, table.numbers),
            ("categories", OneHotEncoder(handle_unknown="ignore"), table.categories),
        ]
    )
    if table.of_classes:
        return _fitted(make_pipeline(inputs, MLPClassifier(random_state=seed)), table)
    network = TransformedTargetRegressor(MLPRegressor(random_state=seed), transformer=StandardScaler())
    return _fitted(make_pipeline(inputs, network), table)


def boosting(folder: Path, table: Table, seed: int, threads: int) -> Scores:
    """scikit-learn's HistGradientBoosting at its defaults, categories as such."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    x, new = table.x.copy(), table.new.copy()
    for name in table.categories:
        if len(x[name].cat.categories) > TREE_LEVELS:
            x[name], new[name] = x[name].cat.codes.astype(float), new[name].cat.codes.astype(float)
    kind = HistGradientBoostingClassifier if table.of_classes else HistGradientBoostingRegressor
    return _fitted(kind(random_state=seed, categorical_features="from_dtype"), table, x, new)


def realmlp(folder: Path, table: Table, seed: int, threads: int) -> Scores:
    """RealMLP with the tuned defaults of its authors (pytabkit), one network; of classes stopped by the log
    loss and
    without label smoothing, as they advise where probabilities are judged."""
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    options = {"random_state": seed, "device": "cpu", "n_threads": threads}
    if not table.of_classes:
        return _fitted(RealMLP_TD_Regressor(**options), table, *table.filled())
    network = RealMLP_TD_Classifier(val_metric_name="cross_entropy", use_ls=False, **options)
    return _fitted(network, table, *table.filled())


def tabm(folder: Path, table: Table, seed: int, threads: int) -> Scores:
    """TabM at pytabkit's defaults: 32 heads on shared weights; of classes stopped by the log loss."""
    from pytabkit import TabM_D_Classifier, TabM_D_Regressor

    options = {"random_state": seed, "device": "cpu", "n_threads": threads}
    if not table.of_classes:
        return _fitted(TabM_D_Regressor(**options), table, *table.filled())
    return _fitted(TabM_D_Classifier(val_metric_name="cross_entropy", **options), table, *table.filled())


PEERS: dict[str, Callable[[Path, Table, int, int], Scores]] = {
    "advisor": advisor,
    "mlp": mlp,
    "boosting": boosting,
    "realmlp": realmlp,
    "tabm": tabm,
}
IMPORTS = {
    "advisor": ("advisor.workflows.final", "torch"),
    "realmlp": ("pytabkit", "torch"),
    "tabm": ("pytabkit", "torch"),
}
"""Imported before the seconds are counted."""


def _seconds() -> float:
    """Of the processor, of this process and of those that it has waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    peer, folder, seed, threads, out = sys.argv[1:]
    for name in (*IMPORTS.get(peer, ()), "sklearn.ensemble"):
        __import__(name)
    table = Table(Path(folder))
    np.random.seed(int(seed))
    begun, at = _seconds(), time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores, classes = PEERS[peer](Path(folder), table, int(seed), int(threads))
    wall = time.monotonic() - at
    np.savez(out, scores=scores, classes=np.array(classes, str), seconds=_seconds() - begun, wall=wall)


if __name__ == "__main__":
    main()
