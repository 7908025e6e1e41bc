"""What MLflow loads a logged model by: ``mlflow.pyfunc.load_model`` calls ``_load_pyfunc`` of this module."""

from __future__ import annotations

from typing import Any

from advisor.runs.model import Model, load_model


class ServedModel:
    """A model as MLflow asks for it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, data: Any, params: Any = None) -> Any:
        """A class or a number for each row, as ``Model.predict``."""
        return self.model.predict(data)


def _load_pyfunc(path: str) -> ServedModel:
    return ServedModel(load_model(path))
