"""A user's own training code as an objective: what the workers get, and what is kept of it.

The search is the same as for our networks; only the final differs, because the models are the
user's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.errors import UserError
from advisor.executors.base import Factory
from advisor.files import move_folders
from advisor.objectives.custom_final import hold_custom_final
from advisor.objectives.final_jobs import FINAL_REPEATS
from advisor.objectives.jobs import final_job, search_job
from advisor.objectives.objective import FinalOutcome, FinalRequest, RunData, TrialSetup
from advisor.objectives.sending import unsendable
from advisor.objectives.trial import (
    ObjectiveData,
    ObjectiveResult,
    OwnTraining,
    Trial,
    folder_of,
    import_objective,
    without_target,
)
from advisor.rules.recommendation import Recommendation
from advisor.runs.folder import RunFolder
from advisor.runs.result import ObjectiveReport
from advisor.search.events import Ended, Listener, Progress, SearchEvent, Started
from advisor.tasks import Task

if TYPE_CHECKING:
    from advisor.runs.model import Model

READ_BEFORE_NOTE = 3
"""Complete trials after which parameters that none of them read are named."""
NAMES_IN_NOTE = 12


@dataclass
class CustomObjective:
    """An objective under tuning.

    name: module:function.
    function: itself, or its name where a worker can import it.
    path: the folder that the module is imported from, None when it needs none.
    read: parameters read so far.
    """

    name: str
    function: Callable[[Trial], Any] | str
    path: str | None
    read: set[str] = field(default_factory=set)

    imports = ("advisor.objectives.trial",)
    spans_gpus = False

    def loss_name(self, task: Task) -> str:
        """What a user's function returns has no name that we know."""
        return "loss"

    def is_finished(self, run: RunFolder) -> bool:
        """The result is all: the models are the user's."""
        return True

    def model_of(self, run: RunFolder) -> Model | None:
        """There is none of ours."""
        return None

    def processes(self, given: RunData) -> int:
        """A user's function runs in one."""
        return 1

    def worker(self, given: RunData, processes: int) -> tuple[Factory, ObjectiveData]:
        """What runs the function, and what all trials share."""
        data, run = given.advice.data, given.folder
        return OwnTraining, ObjectiveData(
            function=self.function,
            path=self.path,
            data=given.train,
            frame=data.frame,
            schema=data.schema,
            test=without_target(data),
            seed=given.advice.reading.seed,
            checkpoints=str(run.checkpoints.resolve()),
        )

    @contextmanager
    def sent(self) -> Iterator[None]:
        """While it is sent to workers: what of it cannot be is one line, in
        place of a dump of the data beside it."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # pickling runs the user's own __reduce__, which may raise anything
            import ray  # pickled as Ray will; nothing of ours is ever unpickled

            what = (
                None if isinstance(self.function, str) else unsendable(self.function, ray.cloudpickle.dumps)
            )
            if what is None:
                raise
            raise UserError(
                f"the objective {self.name} cannot be sent to a worker because of {what}: create that inside "
                "the function, or put the function into a module and give its name, package.module:function"
            ) from error

    def trials(self, given: RunData) -> TrialSetup:
        """Nothing is known of a user's training but what its trials show; in the final it takes as long."""
        seed = given.advice.reading.seed
        return TrialSetup(
            job=lambda asked, place, kept: search_job(asked, seed, place),
            refuse=lambda asked: None,
            work=lambda asked: 0.0,
            final_work=lambda asked: 1.0,
            partitions=len(FINAL_REPEATS),
            value_of=returned_loss,
        )

    def watch(self, given: RunData, tell: Listener, note: Callable[[str], None]) -> Listener:
        """A listener that notes which parameters are read, and removes the checkpoints of trials that ended.

        note: told once, after READ_BEFORE_NOTE complete trials, which searched
            parameters none of them has read.
        """
        run, recommendation = given.folder, given.advice.recommendation
        seed, complete = given.advice.reading.seed, 0
        folders: dict[int, Path] = {}

        def listen(event: SearchEvent, progress: Progress) -> None:
            nonlocal complete
            if isinstance(event, Started):
                asked = search_job(event.configuration, seed, event.index)
                folders[event.number] = folder_of(run.checkpoints, asked)
            elif isinstance(event, Ended):
                folder = folders.pop(event.number)
                if event.end != "discarded":  # that one is run again, and goes on from there
                    move_folders(run.winner, {}, folder)
                if isinstance(event.result, ObjectiveResult):
                    complete += 1
                    self.read.update(event.result.read)
                    if complete == READ_BEFORE_NOTE and (never := self.never_read(recommendation)):
                        note(never_read_words(never, len(list(searched(recommendation)))))
            tell(event, progress)

        return listen

    def final(self, given: RunData, request: FinalRequest) -> FinalOutcome:
        """Judge the finalists; what the winner saved in the final goes to RUN/winner."""
        recommendation, run = given.advice.recommendation, given.folder
        judged = hold_custom_final(given, request)
        self.read.update(judged.read)
        winner, incumbent = judged.report.winner, judged.report.to_beat
        works = {
            f"repeat-{repeat}": folder_of(
                run.checkpoints, final_job(request.entries[winner], given.advice.reading.seed, repeat)
            )
            for repeat in judged.repeats
        }
        move_folders(run.winner, works, run.checkpoints)
        tested = {"network": judged.tested[winner]}
        if winner != incumbent:
            tested[incumbent] = judged.tested[incumbent]
        scores = {name: one for name, one in tested.items() if one is not None}
        return FinalOutcome(
            judged.report,
            judged.loss,
            judged.estimate,
            scores if len(scores) == len(tested) else {},
            objective=ObjectiveReport(
                name=self.name,
                compared=judged.compared,
                read=tuple(sorted(self.read)),
                never_read=tuple(self.never_read(recommendation)),
                kept=run.winner.is_dir(),
            ),
        )

    def never_read(self, recommendation: Recommendation) -> list[str]:
        """The searched parameters that no finished trial has read."""
        return [name for name in searched(recommendation) if name not in self.read]


def returned_loss(result: ObjectiveResult) -> float:
    """What the search is told: the loss that the objective returned, not the best that it reported."""
    return result.loss


def searched(recommendation: Recommendation) -> Iterable[str]:
    """The parameters that a search varies."""
    return (name for name, p in recommendation.provenance.items() if "low" in p.final or "choices" in p.final)


def never_read_words(never: Sequence[str], of: int) -> str:
    more = f" and {len(never) - NAMES_IN_NOTE} more" if len(never) > NAMES_IN_NOTE else ""
    return (
        f"the objective never read {len(never)} of {of} searched parameters: "
        f"{', '.join(never[:NAMES_IN_NOTE])}{more}; "
        "the search varies them in vain: read them from trial.configuration, or fix them with --fixed"
    )


def find(objective: str | Callable[[Trial], Any], working_dir: str | Path | None) -> CustomObjective:
    """The objective by name or as it is. UserError when the folder or the function is not there.

    working_dir: the folder to import from; by default the current one. A function that a worker could not
        import (of the main program, a notebook, inside another function) travels as it is.
    """
    if working_dir is not None and not Path(working_dir).is_dir():
        raise UserError(f"the working folder {working_dir} is not a folder")
    path = str(Path(working_dir or ".").resolve())
    if isinstance(objective, str):
        function = import_objective(objective, path)
        return CustomObjective(
            objective, objective, _folder_of_module(objective, path) if callable(function) else path
        )
    if not callable(objective):
        raise UserError(
            f"objective is a {type(objective).__name__}: give a function of a trial, or "
            "package.module:function"
        )
    module, name = (
        getattr(objective, "__module__", None),
        getattr(objective, "__qualname__", type(objective).__qualname__),
    )
    full = f"{module}:{name}"
    importable = (
        isinstance(module, str)
        and module != "__main__"
        and name.isidentifier()
        and _is(objective, module, name)
    )
    return CustomObjective(
        full, full if importable else objective, _folder_of_module(full, path) if importable else None
    )


def _is(objective: Any, module: str, name: str) -> bool:
    return getattr(sys.modules.get(module), name, None) is objective


def _folder_of_module(name: str, default: str) -> str:
    """The folder that has to be on a worker's path for the module, as this process found it."""
    module = name.partition(":")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return default
    folder = Path(file).resolve().parent
    levels = module.count(".") + (Path(file).name == "__init__.py")
    return str(folder.parents[levels - 1] if levels else folder)
