"""Advice before you tune a neural network, and the tuning: rules with reasons, Optuna asks, Ray runs.

The public names load what they need when they are first used: importing the package costs nothing.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.checks.callbacks import keras_callback, lightning_callback
    from advisor.checks.inspection import inspect
    from advisor.checks.repairing import repair
    from advisor.checks.watching import watch
    from advisor.cli.doctor import examine as doctor
    from advisor.client import connect
    from advisor.data.signals.image_paths import image_root
    from advisor.errors import DataFormWarning, UserError
    from advisor.objectives.trial import ArrayRows, Trial, TrialResult
    from advisor.runs.model import load_model
    from advisor.workflows.enrol import enrol
    from advisor.workflows.python.run_result import load_run
    from advisor.workflows.python.verbs import (
        check,
        diff,
        export,
        predict,
        report_of,
        rules_check,
        rules_coverage,
        rules_docs,
        rules_facts,
        rules_list,
        rules_schema,
        rules_show,
        rules_test,
        status,
        stop,
        what_if,
        why,
    )
    from advisor.workflows.python.verbs import leaderboard as compare
    from advisor.workflows.recommend import measure, recommend
    from advisor.workflows.tune import finish, train, tune

    __version__: str

_HOMES = {
    "connect": "advisor.client",
    "image_root": "advisor.data.signals.image_paths",
    "measure": "advisor.workflows.recommend",
    "recommend": "advisor.workflows.recommend",
    "inspect": "advisor.checks.inspection",
    "watch": "advisor.checks.watching",
    "lightning_callback": "advisor.checks.callbacks",
    "keras_callback": "advisor.checks.callbacks",
    "repair": "advisor.checks.repairing",
    "finish": "advisor.workflows.tune",
    "train": "advisor.workflows.tune",
    "tune": "advisor.workflows.tune",
    "load_model": "advisor.runs.model",
    "DataFormWarning": "advisor.errors",
    "TrialResult": "advisor.objectives.trial",
    "ArrayRows": "advisor.objectives.trial",
    "Trial": "advisor.objectives.trial",
    "UserError": "advisor.errors",
    "load_run": "advisor.workflows.python.run_result",
    "rules_list": "advisor.workflows.python.verbs",
    "rules_show": "advisor.workflows.python.verbs",
    "rules_check": "advisor.workflows.python.verbs",
    "rules_test": "advisor.workflows.python.verbs",
    "rules_facts": "advisor.workflows.python.verbs",
    "rules_coverage": "advisor.workflows.python.verbs",
    "rules_docs": "advisor.workflows.python.verbs",
    "rules_schema": "advisor.workflows.python.verbs",
    "doctor": "advisor.cli.doctor:examine",
    "check": "advisor.workflows.python.verbs",
    "status": "advisor.workflows.python.verbs",
    "stop": "advisor.workflows.python.verbs",
    "predict": "advisor.workflows.python.verbs",
    "report_of": "advisor.workflows.python.verbs",
    "why": "advisor.workflows.python.verbs",
    "what_if": "advisor.workflows.python.verbs",
    "diff": "advisor.workflows.python.verbs",
    "export": "advisor.workflows.python.verbs",
    "enrol": "advisor.workflows.enrol",
    "compare": "advisor.workflows.python.verbs:leaderboard",
}
RENAMED = {"fit": "train", "Outcome": "TrialResult", "SignalRows": "ArrayRows"}
"""Old names of public functions: they still work, with a note."""
__all__ = [
    "ArrayRows",
    "DataFormWarning",
    "Trial",
    "TrialResult",
    "UserError",
    "__version__",
    "check",
    "compare",
    "connect",
    "diff",
    "doctor",
    "enrol",
    "export",
    "finish",
    "image_root",
    "inspect",
    "keras_callback",
    "lightning_callback",
    "load_model",
    "load_run",
    "measure",
    "predict",
    "recommend",
    "repair",
    "report_of",
    "rules_check",
    "rules_coverage",
    "rules_docs",
    "rules_facts",
    "rules_list",
    "rules_schema",
    "rules_show",
    "rules_test",
    "status",
    "stop",
    "train",
    "tune",
    "watch",
    "what_if",
    "why",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in RENAMED:
        warnings.warn(f"advisor.{name} is now advisor.{RENAMED[name]}", FutureWarning, stacklevel=2)
        name = RENAMED[name]
    if name not in _HOMES:
        raise AttributeError(f"module 'advisor' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tuning-advisor")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"
