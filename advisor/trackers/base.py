"""What a tracker is told, and what it must do: one protocol for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from advisor import __version__

if TYPE_CHECKING:
    from advisor.runs.advice import Advice
    from advisor.runs.folder import RunFolder
    from advisor.runs.model import Model
    from advisor.runs.result import RunReport
    from advisor.search.events import TrialEnd

Configuration = Mapping[str, Any]
Points = Sequence[tuple[int, float]]
"""(epoch, loss), losses finite."""
VALIDATION, TRAINING = "validation_loss", "training_loss"
"""The names of the curves of a trial."""
VALUE = "loss"
"""The name of the number that a trial is judged by."""
Outcome = Literal["finished", "failed", "killed"]
"""The field's three ends of a run. A pruned or an interrupted trial was killed."""
OUTCOMES: Mapping[TrialEnd, Outcome] = {
    "complete": "finished",
    "pruned": "killed",
    "discarded": "killed",
    "diverged": "failed",
    "failed": "failed",
    "quarantined": "failed",
}


@dataclass(frozen=True)
class TrackedRun:
    """A run that begins. name: of its folder. data: of the data set. configuration: the recommendation."""

    name: str
    data: str
    target: str
    task: str
    version: str
    configuration: Configuration

    @classmethod
    def of(cls, run: RunFolder, advice: Advice) -> Self:
        """A run of this folder."""
        data = advice.data
        configuration = dict(advice.recommendation.configuration)
        return cls(run.path.name, data.name, data.schema.target, data.schema.task, __version__, configuration)


@dataclass(frozen=True)
class TrackedTrial:
    """A trial that begins. origin: the name that it was enqueued under, or "search"."""

    number: int
    origin: str
    configuration: Configuration


@dataclass(frozen=True)
class TrackedEnd:
    """A trial that has ended. value: its loss, None where there is none that is finite."""

    number: int
    end: TrialEnd
    value: float | None
    training: Points = ()

    @property
    def outcome(self) -> Outcome:
        """How the field calls this end."""
        return OUTCOMES[self.end]


@dataclass(frozen=True)
class TrackedResult:
    """A run that has ended, all of its files written.

    files: the report and result.json. model, model_folder: None where the models are the user's.
    """

    report: RunReport
    files: Sequence[Path]
    model: Model | None = None
    model_folder: Path | None = None

    @classmethod
    def of(cls, run: RunFolder, report: RunReport, model: Model | None) -> Self:
        """What lies in this folder."""
        return cls(report, (run.report_html, run.result), model, None if model is None else run.model)


class Tracker(Protocol):
    """What a tracker must do. The calls come one at a time, from a thread of its own; it may raise."""

    def begin(self, run: TrackedRun) -> None:
        """Once, before anything else. A run that is resumed begins anew."""

    def trial(self, trial: TrackedTrial) -> None:
        """A trial begins; one that was given out again begins once."""

    def losses(self, number: int, points: Points) -> None:
        """Validation losses of a trial, as they come in."""

    def ended(self, end: TrackedEnd) -> None:
        """A trial has ended."""

    def finish(self, result: TrackedResult | None) -> None:
        """The run has ended; None: it was interrupted."""


def metrics_of(report: RunReport) -> dict[str, float]:
    """The numbers that a run comes to, by name: the loss to expect with its interval, and the network's
    scores on the test rows."""
    estimate = report.estimate
    found: dict[str, Any] = {
        "expected_loss": estimate.mean,
        "expected_loss_low": estimate.low,
        "expected_loss_high": estimate.high,
    }
    for one in (report.test.results or ())[:1]:
        for name in ("loss", "accuracy", "balanced_accuracy", "average_precision", "r2"):
            found[f"test_{name}"] = getattr(one, name)
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
