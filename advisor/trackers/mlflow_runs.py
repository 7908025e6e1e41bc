"""MLflow: a parent run with a nested run for each trial, the model as a pyfunc, the report as an artifact."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from advisor import __version__
from advisor.kinds import Kind
from advisor.runs.model import Model
from advisor.trackers.base import (
    TRAINING,
    VALIDATION,
    VALUE,
    Configuration,
    Outcome,
    Points,
    TrackedEnd,
    TrackedResult,
    TrackedRun,
    TrackedTrial,
    metrics_of,
)

MOST_PARAMETERS, MOST_METRICS = 100, 1000
"""In one request: MLflow's own limits."""
STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
MILLISECONDS = 1000
SERVED = "advisor.trackers.mlflow_model"
"""The module that MLflow loads the model by."""


class MlflowTracker:
    """``place`` is a tracking URI (a server's address, ``sqlite:///FILE``, a folder); "" is MLflow's own
    setting (MLFLOW_TRACKING_URI). The experiment has the data set's name, unless MLFLOW_EXPERIMENT_NAME
    names another."""

    def __init__(self, place: str) -> None:
        self._uri = place
        self._trials: dict[int, str] = {}

    def begin(self, run: TrackedRun) -> None:
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # else it tells of every table that it makes
        warnings.filterwarnings("ignore", ".*An input example was not provided")
        self._uri = self._uri or mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(tracking_uri=self._uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.data)
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"target": run.target, "task": run.task, "advisor": run.version}
        self._parent = self._start(run.name, run.configuration, tags)

    def trial(self, trial: TrackedTrial) -> None:
        tags = {"mlflow.parentRunId": self._parent, "origin": trial.origin}
        self._trials[trial.number] = self._start(f"trial {trial.number}", trial.configuration, tags)

    def losses(self, number: int, points: Points) -> None:
        self._log(self._trials[number], VALIDATION, points)

    def ended(self, end: TrackedEnd) -> None:
        run = self._trials.pop(end.number)
        self._log(run, TRAINING, end.training)
        if end.value is not None:
            self._log(run, VALUE, [(0, end.value)])
        self._client.set_tag(run, "end", end.end)
        self._client.set_terminated(run, STATUS[end.outcome])

    def finish(self, result: TrackedResult | None) -> None:
        for run in self._trials.values():
            self._client.set_terminated(run, STATUS["killed"])
        if result is None:
            self._client.set_terminated(self._parent, STATUS["killed"])
            return
        for name, value in metrics_of(result.report).items():
            self._log(self._parent, name, [(0, value)])
        for file in result.files:
            self._client.log_artifact(self._parent, str(file))
        if result.model is not None and result.model_folder is not None:
            self._log_model(result.model, str(result.model_folder))
        self._client.set_terminated(self._parent, STATUS["finished"])

    def _start(self, name: str, configuration: Configuration, tags: Mapping[str, str]) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id
        parameters = [Param(key, str(value)) for key, value in configuration.items()]
        for part in _parts(parameters, MOST_PARAMETERS):
            self._client.log_batch(run, params=part)
        return str(run)

    def _log(self, run: str, name: str, points: Points) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * MILLISECONDS)
        for part in _parts([Metric(name, value, now, step) for step, value in points], MOST_METRICS):
            self._client.log_batch(run, metrics=part)

    def _log_model(self, model: Model, folder: str) -> None:
        """As a pyfunc in the parent run. Only MLflow's functions with an active run can log one, and these
        know one tracking URI for the process: it is put back."""
        import mlflow

        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(self._uri)
        try:
            with mlflow.start_run(run_id=self._parent):
                mlflow.pyfunc.log_model(
                    name="model",
                    loader_module=SERVED,
                    data_path=folder,
                    signature=signature_of(model),
                    pip_requirements=[f"tuning-advisor=={__version__}"],
                )
        finally:
            mlflow.set_tracking_uri(before)


def signature_of(model: Model) -> Any:
    """What the model takes and gives, as MLflow's ``ModelSignature``.

    A table's numbers are doubles; other columns are of any type, as ``predict`` reads dates, flags and
    categories in several forms. Images and series are arrays. The output is the class, or the number.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    output = "double"
    if model.task.of_classes:
        kinds = {"i": "long", "u": "long", "f": "double", "b": "boolean"}
        output = kinds.get(np.asarray(model.classes).dtype.kind, "string")
    return ModelSignature(
        inputs=Schema(INPUTS[model.schema.kind](model.schema)), outputs=Schema([ColSpec(output)])
    )


def _columns(schema: Any) -> list[Any]:
    from mlflow.types import ColSpec
    from mlflow.types.schema import AnyType

    used = schema.of_type("numeric", "categorical", "boolean", "datetime", "text")
    had = {name: one.stored for name, one in schema.usual.items()}
    specs = [
        ColSpec(
            "double" if column.type == "numeric" and had.get(column.name) == "numbers" else AnyType(),
            column.name,
            required=column.type == "numeric" and had.get(column.name) == "numbers",
        )
        for column in used
    ]
    time_column = [] if schema.time is None else [ColSpec(AnyType(), schema.time.name, required=False)]
    return specs + time_column


def _tensor(dtype: str) -> Callable[[Any], list[Any]]:
    def specs(schema: Any) -> list[Any]:
        from mlflow.types import TensorSpec

        grid = tuple(schema.size)
        channels = () if schema.channels == 1 else (schema.channels,)
        last = len(grid) > 1 or schema.channels_last
        return [TensorSpec(np.dtype(dtype), (-1, *grid, *channels) if last else (-1, *channels, *grid))]

    return specs


INPUTS: Mapping[Kind, Callable[[Any], list[Any]]] = {
    "table": _columns,
    "image": _tensor("uint8"),
    "sequence": _tensor("float32"),
}


def _parts(entries: Sequence[Any], most: int) -> list[Sequence[Any]]:
    return [entries[start : start + most] for start in range(0, len(entries), most)]
