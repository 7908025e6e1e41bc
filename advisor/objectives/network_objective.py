"""Our own networks as an objective. What trains them is imported where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from advisor.executors.base import Factory
from advisor.objectives.objective import FinalOutcome, FinalRequest, RunData, TrialSetup

if TYPE_CHECKING:
    from advisor.runs.folder import RunFolder
    from advisor.runs.model import Model
    from advisor.search.events import Listener
    from advisor.tasks import Task


class NetworkObjective:
    """The recommended networks and those that the search finds."""

    name: str | None = None
    imports: Sequence[str] = ("advisor.training.loop",)
    spans_gpus = True

    def loss_name(self, task: Task) -> str:
        return task.loss_name

    def is_finished(self, run: RunFolder) -> bool:
        return run.model.is_dir()

    def model_of(self, run: RunFolder) -> Model | None:
        from advisor.runs.model import load_model

        return load_model(run.model)

    def processes(self, given: RunData) -> int:
        from advisor.objectives.networks import processes_of

        return processes_of(given.advice.recommendation.configuration, len(given.train))

    def worker(self, given: RunData, processes: int) -> tuple[Factory, Any]:
        from advisor.objectives.jobs import WorkerData
        from advisor.objectives.networks import TrainingObjective

        shared = WorkerData(given.train, given.advice.reading.seed, given.start)
        if processes == 1:
            return TrainingObjective, shared
        from advisor.objectives.multi_gpu import SpanningData, SpanningObjective

        return SpanningObjective, SpanningData.of(shared, processes)

    def sent(self) -> AbstractContextManager[None]:
        return nullcontext()

    def trials(self, given: RunData) -> TrialSetup:
        from advisor.objectives.jobs import limited, search_job
        from advisor.objectives.networks import refusal, times_trained, training_sizing, training_work

        train, facts, seed = given.train, given.advice.facts.values, given.advice.reading.seed
        of_trial, of_final = training_work(train)

        def final_work(configuration: Any) -> float:
            known = of_trial(configuration)
            return of_final(configuration) / known if known else int(configuration["final_members"])

        return TrialSetup(
            job=lambda asked, place, kept: search_job(asked, seed, place, keep=kept),
            refuse=lambda asked: refusal(asked, train, facts, spanning=given.spanning),
            work=of_trial,
            final_work=final_work,
            partitions=times_trained(train),
            sizing=training_sizing(train, spanning=given.spanning),
            limited=limited,
        )

    def watch(self, given: RunData, tell: Listener, note: Callable[[str], None]) -> Listener:
        return tell

    def final(self, given: RunData, request: FinalRequest) -> FinalOutcome:
        from advisor.objectives.network_final import hold_network_final

        return hold_network_final(given, request)
