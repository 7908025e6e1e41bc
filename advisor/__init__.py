"""Advice before you tune a neural network, and the tuning: rules with reasons, Optuna asks, Ray runs.

The public names load what they need when they are first used: importing the package costs nothing.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.checks.inspection import inspect
    from advisor.client import connect
    from advisor.data.signals.image_paths import image_root
    from advisor.errors import DataFormWarning, UserError
    from advisor.objectives.trial import Outcome, SignalRows, Trial
    from advisor.runs.model import load_model
    from advisor.workflows.recommend import measure, recommend
    from advisor.workflows.tune import finish, train, tune

    __version__: str

_HOMES = {
    "connect": "advisor.client",
    "image_root": "advisor.data.signals.image_paths",
    "measure": "advisor.workflows.recommend",
    "recommend": "advisor.workflows.recommend",
    "inspect": "advisor.checks.inspection",
    "finish": "advisor.workflows.tune",
    "train": "advisor.workflows.tune",
    "tune": "advisor.workflows.tune",
    "load_model": "advisor.runs.model",
    "DataFormWarning": "advisor.errors",
    "Outcome": "advisor.objectives.trial",
    "SignalRows": "advisor.objectives.trial",
    "Trial": "advisor.objectives.trial",
    "UserError": "advisor.errors",
}
RENAMED = {"fit": "train"}
"""Old names of public functions: they still work, with a note."""
__all__ = [
    "DataFormWarning",
    "Outcome",
    "SignalRows",
    "Trial",
    "UserError",
    "__version__",
    "connect",
    "finish",
    "image_root",
    "inspect",
    "load_model",
    "measure",
    "recommend",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in RENAMED:
        warnings.warn(f"advisor.{name} is now advisor.{RENAMED[name]}", FutureWarning, stacklevel=2)
        name = RENAMED[name]
    if name not in _HOMES:
        raise AttributeError(f"module 'advisor' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tuning-advisor")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"
