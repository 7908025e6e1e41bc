"""What can be tuned: one protocol, of which our networks are one implementation and a user's own training
code is another. Nothing above this folder asks which of them runs.

Imports nothing heavy: an objective is chosen before Ray starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from advisor.documents import UNSET, Unset
from advisor.executors.base import Executor, Factory, Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from advisor.dataset import Dataset
    from advisor.evaluation.judge import Judge
    from advisor.evaluation.judgement import DecisionOffer, Estimate, MetricReport
    from advisor.networks.pretrained.start import Start
    from advisor.objectives.jobs import TrainingJob
    from advisor.runs.advice import Advice
    from advisor.runs.folder import RunFolder
    from advisor.runs.model import Model
    from advisor.runs.result import FinalReport, ObjectiveReport
    from advisor.search.events import Listener
    from advisor.search.resources import Pace, Sizing
    from advisor.tasks import Task

Configuration = Mapping[str, Any]
Work = Callable[[Configuration], float]


@dataclass(frozen=True)
class AdvisedRows:
    """What is trained on: the advice, and the training rows as its plan wants them. start: the weights that
    training begins with; None draws them."""

    advice: Advice
    train: Dataset
    start: Start | None = field(default=None, kw_only=True)

    @property
    def judge(self) -> Judge | None:
        """The user's metric for these rows; None: the loss decides."""
        from advisor.evaluation.judge import Judge

        metric, train = self.advice.reading.judged_by, self.train
        return None if metric is None else Judge.of(metric, train.task, train.classes, train.target)


@dataclass(frozen=True)
class RunData(AdvisedRows):
    """What a run is about: advice, training rows, its folder.
    spanning: whether its trials span GPUs."""

    folder: RunFolder
    spanning: bool = False


@dataclass(frozen=True)
class TrialSetup:
    """What a search must know of an objective's trials.

    job: (configuration, place in the budget, whether its networks are kept) -> what is trained; those that
        have no networks of ours keep none.
    refuse: why a configuration cannot be trained, or None.
    work: of an epoch, comparable between configurations; 0 where nothing is known.
    final_work: how many times as long as its trial a configuration takes in the final.
    partitions: as often each finalist is trained.
    sizing: what is known of memory; None where it cannot be trained in smaller parts.
    value_of: what the objective returned -> the trial's value; None: the best loss that it reported.
    limited: a job that ends itself after this many seconds; None where jobs cannot.
    """

    job: Callable[[Configuration, int, bool], TrainingJob]
    refuse: Callable[[Configuration], str | None]
    work: Work
    final_work: Work
    partitions: int
    sizing: Sizing | None = None
    value_of: Callable[[Any], float] | None = None
    limited: Callable[[Job, float], Job] | None = None


@dataclass(frozen=True)
class FinalRequest:
    """What a search leaves to the final, and what the final may use.

    entries: name -> configuration, the recommendation first. searched: name -> its loss in the search.
    first: what the recommendation's own trial returned, where it ran here. pace, sizing: what was learnt.
    deadline: on time.monotonic's clock; None is no limit.
    with_trees: whether the winner may be blended with boosted trees. trees_until: as deadline, for these.
    on_done: told how many of how many trainings have ended.
    """

    entries: Mapping[str, Configuration]
    searched: Mapping[str, float | None]
    runner: Executor
    pace: Pace
    sizing: Sizing | None = None
    first: Any = None
    deadline: float | None = None
    with_trees: bool = False
    trees_until: float | None = None
    stopped: Callable[[], bool] = lambda: False
    on_done: Callable[[int, int], None] = lambda done, trainings: None


@dataclass(frozen=True)
class FinalOutcome:
    """What a final comes to.

    loss: what the losses in it are, in words. estimate: of the winner.
    tested: scores of all test rows, the winner's as "network", the incumbent's by its name; none without
        test rows. shares: of these what each class's probability is divided by before the largest is taken,
        where that is not the most likely class.
    model: None where the models are the user's; these are told of in ``objective``.
    metric: what the user's metric says. offers: what other decisions would give, where a class is rare.
    """

    final: FinalReport
    loss: str
    estimate: Estimate
    tested: Mapping[str, NDArray[np.float64]]
    shares: Mapping[str, Sequence[float]] = field(default_factory=dict)
    model: Model | None = None
    objective: ObjectiveReport | Unset = UNSET
    metric: MetricReport | Unset = UNSET
    offers: Sequence[DecisionOffer] = ()


class Objective(Protocol):
    """What ``tune`` tunes. The methods are called in this order."""

    @property
    def name(self) -> str | None:
        """What a run remembers it by; None is our networks."""

    @property
    def imports(self) -> Sequence[str]:
        """Modules that a worker imports while the data are read."""

    @property
    def spans_gpus(self) -> bool:
        """Whether one of its trials may be trained by several GPUs."""

    def loss_name(self, task: Task) -> str:
        """What progress calls the losses that it reports."""

    def is_finished(self, run: RunFolder) -> bool:
        """Whether a run with a result has all that a final leaves."""

    def model_of(self, run: RunFolder) -> Model | None:
        """The model of a finished run; None where the models are the user's."""

    def processes(self, given: RunData) -> int:
        """How many GPUs a trial spans, where trials may: as the recommendation does."""

    def worker(self, given: RunData, processes: int) -> tuple[Factory, Any]:
        """What runs its jobs, and what all of them share. processes: that a trial may be trained by."""

    def sent(self) -> AbstractContextManager[None]:
        """While it is sent to workers: what of it cannot be is a UserError."""

    def trials(self, given: RunData) -> TrialSetup:
        """What the search must know of its trials."""

    def watch(self, given: RunData, tell: Listener, note: Callable[[str], None]) -> Listener:
        """A listener of the search that tells ``tell`` everything. note: told what a user should know."""

    def final(self, given: RunData, request: FinalRequest) -> FinalOutcome:
        """Train the finalists on fresh splits and judge them. FinalStopped when it was asked to stop,
        AllFailed when no finalist came through."""
