"""A scikit-learn model as an objective: it has no epochs to report, and returns its validation loss.

advisor tune sklearn:breast_cancer --target target --trials 20 --working-dir
examples --objective sklearn_model:objective
"""

from __future__ import annotations

import warnings

from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

import advisor


def objective(trial: advisor.Trial) -> float:
    c = trial.configuration
    model = MLPClassifier(
        hidden_layer_sizes=[c["width"]] * c["hidden_layers"],
        activation="tanh" if c["activation"] in ("tanh", "sigmoid") else "relu",
        learning_rate_init=c["learning_rate"],
        alpha=c["weight_decay"],
        batch_size=min(c["batch_size"], trial.train.height),
        max_iter=c["epochs"],
        random_state=trial.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is a parameter here, not a limit
        model.fit(trial.inputs(trial.train), trial.targets(trial.train))
    return log_loss(trial.targets(trial.validation), model.predict_proba(trial.inputs(trial.validation)))
