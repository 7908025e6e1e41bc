"""Advice before you tune a neural network, and the tuning: rules with reasons, Optuna asks, Ray runs.

The public names load what they need when they are first used: importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.advice import measure, recommend
    from advisor.errors import DataFormWarning, UserError
    from advisor.image_paths import image_root
    from advisor.inspection import inspect
    from advisor.models import load_model
    from advisor.trial import Outcome, SignalRows, Trial
    from advisor.tuning import finish, fit, tune

try:
    __version__ = version("tuning-advisor")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "image_root": "advisor.image_paths",
    "measure": "advisor.advice",
    "recommend": "advisor.advice",
    "inspect": "advisor.inspection",
    "finish": "advisor.tuning",
    "fit": "advisor.tuning",
    "tune": "advisor.tuning",
    "load_model": "advisor.models",
    "DataFormWarning": "advisor.errors",
    "Outcome": "advisor.trial",
    "SignalRows": "advisor.trial",
    "Trial": "advisor.trial",
    "UserError": "advisor.errors",
}
__all__ = [
    "DataFormWarning", "Outcome", "SignalRows", "Trial", "UserError", "__version__", "finish", "fit", "image_root", "inspect",
    "load_model", "measure", "recommend", "tune",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'advisor' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
