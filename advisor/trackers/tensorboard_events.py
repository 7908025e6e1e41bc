"""TensorBoard: a folder of events for the run and for each trial, with curves and hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.errors import UserError
from advisor.trackers.base import (
    TRAINING,
    VALIDATION,
    VALUE,
    Configuration,
    Points,
    TrackedEnd,
    TrackedResult,
    TrackedRun,
    TrackedTrial,
    metrics_of,
)

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorboardTracker:
    """Events in FOLDER/RUN and FOLDER/RUN/trial-N: ``tensorboard --logdir FOLDER`` shows them, the trials
    side by side under HPARAMS."""

    def __init__(self, place: str) -> None:
        if not place:
            raise UserError("say where TensorBoard's events are to lie: tensorboard:FOLDER")
        self._folder = Path(place)
        self._trials: dict[int, tuple[SummaryWriter, Configuration]] = {}

    def begin(self, run: TrackedRun) -> None:
        self._folder, self._configuration = self._folder / run.name, run.configuration
        self._folder.mkdir(parents=True, exist_ok=True)

    def trial(self, trial: TrackedTrial) -> None:
        writer = _writer(self._folder / f"trial-{trial.number}")
        self._trials[trial.number] = writer, {**trial.configuration, "origin": trial.origin}

    def losses(self, number: int, points: Points) -> None:
        self._write(number, VALIDATION, points)

    def ended(self, end: TrackedEnd) -> None:
        self._write(end.number, TRAINING, end.training)
        writer, configuration = self._trials.pop(end.number)
        value = {} if end.value is None else {VALUE: end.value}
        _add_hparams(writer, {**configuration, "end": end.end}, value)
        writer.close()

    def finish(self, result: TrackedResult | None) -> None:
        for writer, _ in self._trials.values():
            writer.close()
        if result is not None:
            winner = result.report.final.contender(result.report.final.winner)
            with _writer(self._folder) as writer:
                _add_hparams(writer, winner.configurations[0], metrics_of(result.report))

    def _write(self, number: int, name: str, points: Points) -> None:
        writer, _ = self._trials[number]
        for epoch, loss in points:
            writer.add_scalar(name, loss, epoch)
        writer.flush()


def _writer(folder: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def _add_hparams(writer: SummaryWriter, configuration: Configuration, metrics: dict[str, float]) -> None:
    """Hyperparameters and metrics, in the writer's own folder: ``add_hparams`` would make one below it."""
    from torch.utils.tensorboard.summary import hparams

    plain: dict[str, Any] = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in configuration.items()
    }
    for summary in hparams(plain, metrics):  # type: ignore[no-untyped-call]
        writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
    for name, value in metrics.items():
        writer.add_scalar(name, value)
