"""Weights & Biases: a run for each trial, in a group with the run of the search."""

from __future__ import annotations

import os
from typing import Any

from advisor.errors import UserError, did_you_mean
from advisor.trackers.base import (
    TRAINING,
    VALIDATION,
    VALUE,
    Points,
    TrackedEnd,
    TrackedResult,
    TrackedRun,
    TrackedTrial,
    metrics_of,
)

MODES = ("offline", "online")
EXIT_CODES = {"finished": 0, "failed": 1, "killed": 0}
"""Of a trial's run: a pruned one has done what it was to do."""


class WandbTracker:
    """``offline`` writes into the folder ``wandb`` (or WANDB_DIR), which ``wandb sync`` sends later."""

    def __init__(self, place: str) -> None:
        if place not in MODES:
            meant = did_you_mean(place, MODES)
            raise UserError(f"wandb:{place} is unknown{meant}; expected wandb:offline or wandb:online")
        self._mode: Any = place
        self._trials: dict[int, Any] = {}

    def begin(self, run: TrackedRun) -> None:
        self._project, self._group = run.data, run.name
        config = {**run.configuration, "target": run.target, "task": run.task, "advisor": run.version}
        self._run = self._init(run.name, "search", config)

    def trial(self, trial: TrackedTrial) -> None:
        config = {**trial.configuration, "origin": trial.origin}
        self._trials[trial.number] = self._init(f"{self._group} trial {trial.number}", "trial", config)

    def losses(self, number: int, points: Points) -> None:
        run = self._trials[number]
        for epoch, loss in points:
            run.log({VALIDATION: loss, "epoch": epoch})

    def ended(self, end: TrackedEnd) -> None:
        run = self._trials.pop(end.number)
        for epoch, loss in end.training:
            run.log({TRAINING: loss, "epoch": epoch})
        run.summary.update({"end": end.end} | ({} if end.value is None else {VALUE: end.value}))
        run.finish(exit_code=EXIT_CODES[end.outcome])

    def finish(self, result: TrackedResult | None) -> None:
        import wandb

        for run in self._trials.values():
            run.finish(exit_code=1)
        if result is None:
            self._run.finish(exit_code=1)
            return
        self._run.summary.update(metrics_of(result.report))
        report = wandb.Artifact(f"{self._group}-report", type="report")
        for file in result.files:
            report.add_file(str(file))
        self._run.log_artifact(report)
        if result.model_folder is not None:
            model = wandb.Artifact(f"{self._group}-model", type="model")
            model.add_dir(str(result.model_folder))
            self._run.log_artifact(model)
        self._run.finish()

    def _init(self, name: str, job: str, config: dict[str, Any]) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")  # its settings alone do not silence artifacts
        import wandb

        return wandb.init(
            project=_safe(self._project),
            group=self._group,
            job_type=job,
            name=name,
            config=config,
            mode=self._mode,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )


def _safe(project: str) -> str:
    """A project's name may not hold these."""
    return "".join("-" if sign in "/\\#?%:" else sign for sign in project)
