"""Tuning a person's own training function: what the workers get, what is kept of it, and its final.

The search is the same as for our networks; only the final differs, because the models are the
person's: a contender is judged by the held-out scores that the objective returns, or by the
losses that it returns, split by split.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.errors import UserError, in_words
from advisor.evaluation.selection import (
    ALONE,
    BEHIND,
    COVERAGE,
    SIGNIFICANCE,
    Difference,
    Estimate,
    FinalVerdict,
    blocks_of,
    constant_losses,
    decide,
    estimate,
    final_section,
)
from advisor.files import move_folders
from advisor.objectives.final_jobs import AllFailed, Trained
from advisor.objectives.jobs import TrainingJob, search_job
from advisor.objectives.networks import mean_by_row
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
from advisor.runs.advice import Advice
from advisor.runs.folder import RunFolder
from advisor.search.events import Ended, Listener, Progress, SearchEvent, Started
from advisor.tasks import weighted

READ_BEFORE_NOTE = 3
"""Complete trials after which parameters that none of them read are named."""
NAMES_IN_NOTE = 12
FEWEST_SPLITS = 5
"""Losses that a comparison split by split needs; a hold-out plan is repeated so often."""
SAME_LOSS = 0.01
"""Relative difference up to which a returned loss is taken for the mean row loss of the returned scores."""


@dataclass(frozen=True)
class Final:
    """What the final needs of the search.

    entries: name -> configuration, the recommendation first.
    searched: name -> its loss in the search.
    repeats: the fresh partitions.
    train: (partitions, names of entries) -> their results on them.
    job: (name, partition) -> what was trained.
    test: name -> scores of the test rows; what result.json says.
    """

    entries: Mapping[str, Mapping[str, Any]]
    searched: Mapping[str, float | None]
    repeats: Sequence[int]
    train: Callable[[Sequence[int], Sequence[str]], Trained]
    job: Callable[[str, int], TrainingJob]
    test: Callable[[Mapping[str, NDArray[np.float64]]], Mapping[str, Any]]


@dataclass
class OwnObjective:
    """An objective under tuning.
    name: module:function.
    function: itself, or its name where a worker can import it.

    path: the folder that the module is imported from, None when it needs none.
    read: parameters read so far.
    """

    name: str
    function: Any
    path: str | None
    read: set[str] = field(default_factory=set)

    factory = OwnTraining

    @staticmethod
    def value_of(result: ObjectiveResult) -> float:
        """What the search is told: the loss that the objective returned, not the best that it reported."""
        return result.loss

    def shared(self, advice: Advice, train: Dataset, run: RunFolder) -> ObjectiveData:
        """What all trials share."""
        data = advice.data
        return ObjectiveData(
            function=self.function,
            path=self.path,
            data=train,
            frame=data.frame,
            schema=data.schema,
            test=without_target(data),
            seed=advice.reading.seed,
            checkpoints=str(run.checkpoints.resolve()),
        )

    def watch(
        self,
        run: RunFolder,
        recommendation: Recommendation,
        seed: int,
        tell: Listener | None,
        note: Callable[[str], None],
    ) -> Listener:
        """A listener that notes which parameters are read, and removes the checkpoints of trials that ended.

        seed: of the run.
        note: told once, after READ_BEFORE_NOTE complete trials, which searched
            parameters none of them has read.
        """
        folders: dict[int, Path] = {}
        complete = 0

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
            if tell is not None:
                tell(event, progress)

        return listen

    def finish(
        self, document: dict[str, Any], final: Final, advice: Advice, data: Dataset, run: RunFolder
    ) -> None:
        """Judge the finalists and complete the document; what the winner saved
        in the final goes to RUN/winner."""
        trained: list[int] = []

        def train(repeats: Sequence[int], names: Sequence[str]) -> Trained:
            done = final.train(repeats, names)
            trained.extend(repeats[: max(map(len, done.results.values()))])
            self.read.update(*(result.read for several in done.results.values() for result in several))
            return done

        document["objective"] = {"name": self.name}
        tested = judge_results(document, replace(final, train=train), advice, data)
        document["objective"] |= {
            "read": sorted(self.read),
            "never_read": self.never_read(advice.recommendation),
        }
        winner, incumbent = next(iter(tested)), str(document["final"]["incumbent"])
        works = {
            f"repeat-{repeat}": folder_of(run.checkpoints, final.job(winner, repeat)) for repeat in trained
        }
        move_folders(run.winner, works, run.checkpoints)
        document["objective"]["kept"] = run.winner.is_dir()
        scores = {"network": tested[winner]} | ({incumbent: tested[incumbent]} if winner != incumbent else {})
        test = advice.data.dataset("test")
        document["test"] = {"rows": int(test.known.sum()), "origin": advice.data.test_origin}
        if len(test) and all(one is not None for one in scores.values()):
            document["test"] |= final.test({name: one for name, one in scores.items() if one is not None})

    @contextmanager
    def sent(self) -> Iterator[None]:
        """While it is sent to workers: what of it cannot be is one line, in
        place of a dump of the data beside it."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            import ray  # pickled as Ray will; nothing of ours is ever unpickled

            what = (
                None if isinstance(self.function, str) else unsendable(self.function, ray.cloudpickle.dumps)
            )
            if what is None:
                raise
            raise UserError(
                f"the objective {self.name} cannot be sent to a worker, for {what}: make that inside the "
                "function, or put the "
                "function into a module and give its name, package.module:function"
            ) from error

    def never_read(self, recommendation: Recommendation) -> list[str]:
        """The searched parameters that no finished trial has read."""
        return [name for name in searched(recommendation) if name not in self.read]


def searched(recommendation: Recommendation) -> Iterable[str]:
    """The parameters that a search varies."""
    return (name for name, p in recommendation.provenance.items() if "low" in p.final or "choices" in p.final)


def never_read_words(never: Sequence[str], of: int) -> str:
    more = f" and {len(never) - NAMES_IN_NOTE} more" if len(never) > NAMES_IN_NOTE else ""
    return (
        f"the objective never read {len(never)} of {of} searched parameters: "
        f"{', '.join(never[:NAMES_IN_NOTE])}{more}; "
        "the search varies them for nothing: read them from trial.configuration, or fix them with --fixed"
    )


def find(objective: str | Callable[[Trial], Any], working_dir: str | Path | None) -> OwnObjective:
    """The objective by name or as it is. UserError when the folder or the function is not there.

    working_dir: the folder to import from; by default the current one. A function that a worker could not
        import (of the main program, a notebook, inside another function) travels as it is.
    """
    if working_dir is not None and not Path(working_dir).is_dir():
        raise UserError(f"the working folder {working_dir} is not a folder")
    path = str(Path(working_dir or ".").resolve())
    if isinstance(objective, str):
        function = import_objective(objective, path)
        return OwnObjective(
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
    return OwnObjective(
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


# --------------------------------------------------------------------------------- what cannot go to a worker


def unsendable(objective: Any, dumps: Callable[[Any], bytes]) -> str | None:
    """What in a function (or an object that is called) cannot be sent to a worker,
    by name and type; None when all can.

    dumps: pickles, and raises where it cannot. Where several things cannot, it is the first and innermost.
    """
    seen = dict[int, Any]()  # by their ids; kept, so that no two share one

    def inside(thing: Any, path: str) -> str | None:
        if id(thing) in seen or _can(dumps, thing):
            return None
        seen[id(thing)] = thing
        for name, part in _parts(thing, path):
            if found := inside(part, name):
                return found
        return f"{path or 'itself'} ({type(thing).__name__})"

    return inside(objective, "")


def _can(dumps: Callable[[Any], bytes], thing: Any) -> bool:
    try:
        dumps(thing)
    except Exception:  # noqa: BLE001 - whatever a __reduce__ of theirs raises: it cannot
        return False
    return True


def _parts(thing: Any, path: str) -> Iterable[tuple[str, Any]]:
    """What is pickled with a thing, by name: of a function what it uses from outside, of an
    object its attributes and methods."""
    if isinstance(thing, functools.partial):
        yield from [
            (path, thing.func),
            *((f"{path}[{i}]", one) for i, one in enumerate(thing.args)),
            *thing.keywords.items(),
        ]
    elif isinstance(thing, MethodType):
        yield from [(path or "self", thing.__self__), (path, thing.__func__)]
    elif isinstance(thing, FunctionType):
        cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
        used = _global_names(thing.__code__)
        yield from ((name, cell.cell_contents) for name, cell in cells)
        yield from ((name, thing.__globals__[name]) for name in used if name in thing.__globals__)
    elif isinstance(thing, Mapping):
        yield from ((f"{path}[{key!r}]", value) for key, value in thing.items())
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((f"{path}[{i}]", one) for i, one in enumerate(thing))
    elif isinstance(thing, type):
        yield from ((name, one) for name, one in vars(thing).items() if isinstance(one, FunctionType))
    else:
        yield from ((f"{path or 'self'}.{name}", one) for name, one in getattr(thing, "__dict__", {}).items())
        yield (path, type(thing))


def _global_names(code: CodeType) -> list[str]:
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return [*code.co_names, *(name for one in inner for name in _global_names(one))]


# -------------------------------------------------------------------------------------------------- the final


@dataclass(frozen=True)
class _Judged:
    """A contender: its losses, row by row (``rows``) or split by split, and its scores of the test rows."""

    name: str
    configuration: Mapping[str, Any]
    losses: NDArray[np.float64]
    rows: NDArray[np.int64] | None
    trainings: int
    test: NDArray[np.float64] | None


def judge_results(
    document: dict[str, Any], final: Final, advice: Advice, data: Dataset
) -> Mapping[str, NDArray[np.float64] | None]:
    """Train the finalists on fresh splits, decide, complete the document; each one's
    scores of the test rows, winner first."""
    trained = final.train(final.repeats, tuple(final.entries))
    results, failed = {name: list(own) for name, own in trained.results.items()}, dict(trained.failed)
    incumbent = next(iter(results))
    by_row = all(_scores_fit(result, data) for own in results.values() for result in own)
    fewest = min(sum(len(result.losses) for result in own) for own in results.values())
    if not by_row and fewest < FEWEST_SPLITS:
        per_repeat, last = max(1, fewest // len(results[incumbent])), max(final.repeats)
        repeats = range(last + 1, last + 1 + math.ceil((FEWEST_SPLITS - fewest) / per_repeat))
        try:
            more = final.train(repeats, tuple(results))
        except AllFailed:
            more = Trained({}, {})  # what came through before counts
        if more.results:
            failed |= more.failed
            results = {name: own for name, own in results.items() if name not in failed}
            incumbent = next(iter(results))
        if (
            more.results.keys() == results.keys()
        ):  # else the time limit left some out: all keep as many splits
            results = {name: own + more.results[name] for name, own in results.items()}
    judged = [_judged(name, final.entries[name], own, data, by_row) for name, own in results.items()]
    verdict = (
        _decide_by_row(judged, incumbent, data) if by_row else _decide_by_split(judged, incumbent, results)
    )
    winner = next(one for one in judged if one.name == verdict.winner)
    document["loss"] = data.task.loss_name if by_row else "validation loss"
    document["final"] = final_section(
        verdict, [_as_row(one) for one in judged], final.searched, incumbent, failed
    )
    document["estimate"] = asdict(_expected(winner, advice, data, results))
    document["objective"]["compared"] = "row by row" if by_row else "split by split"
    return {one.name: one.test for one in sorted(judged, key=lambda one: one is not winner)}


def not_finite(result: ObjectiveResult) -> str | None:
    """Why a result of the final does not count; None when it does."""
    return None if math.isfinite(result.loss) else f"the objective returned {result.loss}"


def _scores_fit(result: ObjectiveResult, data: Dataset) -> bool:
    """Whether there are scores and the returned loss is their mean row loss: else the
    final must compare what was returned."""
    if result.scores is None:
        return False
    ends = np.cumsum([0, *result.sizes])
    losses = data.task.row_losses(data.target[result.rows], result.scores)
    return all(
        math.isclose(float(losses[a:b].mean()), loss, rel_tol=SAME_LOSS, abs_tol=1e-9)
        for a, b, loss in zip(ends, ends[1:], result.losses, strict=False)
    )


def _judged(
    name: str,
    configuration: Mapping[str, Any],
    results: Sequence[ObjectiveResult],
    data: Dataset,
    by_row: bool,
) -> _Judged:
    trainings = sum(len(result.losses) for result in results)
    tests = [result.test for result in results if result.test is not None]
    test = np.asarray(np.mean(tests, axis=0)) if len(tests) == len(results) else None
    if not by_row:
        return _Judged(
            name, configuration, np.concatenate([r.losses for r in results]), None, trainings, test
        )
    rows, scores = mean_by_row([r.rows for r in results], [r.scores for r in results if r.scores is not None])
    losses = data.task.row_losses(data.target[rows], scores)
    return _Judged(name, configuration, weighted(losses, data.weights_of(rows)), rows, trainings, test)


def _decide_by_row(judged: Sequence[_Judged], incumbent: str, data: Dataset) -> FinalVerdict:
    rows = judged[0].rows
    assert rows is not None
    constant = constant_losses(data.task, data.target, [rows], len(data.classes))
    losses = {one.name: one.losses for one in judged}
    return decide(
        losses,
        incumbent,
        weighted(constant, data.weights_of(rows)),
        blocks=blocks_of(data.groups, data.times, rows),
    )


def _decide_by_split(
    judged: Sequence[_Judged], incumbent: str, results: Mapping[str, Sequence[ObjectiveResult]]
) -> FinalVerdict:
    """The incumbent, unless a challenger's losses are smaller beyond chance: the corrected resampled t-test.

    The splits share training rows, so their losses vary together: the variance of their mean is taken as
    (1 / splits + validation rows / training rows) times that of the differences (Nadeau and Bengio 2003).
    """
    from scipy.stats import t

    challengers = [one for one in judged if one.name != incumbent]
    reference = next(one for one in judged if one.name == incumbent)
    ratio = float(np.mean([result.validation_share for result in results[incumbent]]))
    differences = {}
    for one in challengers:
        paired = one.losses - reference.losses
        error = float(paired.std(ddof=1) * math.sqrt(1 / len(paired) + ratio))
        quantile = float(t.ppf(1 - SIGNIFICANCE / len(challengers), len(paired) - 1))
        differences[one.name] = Difference(
            float(paired.mean()), error, float(paired.mean()) + quantile * error
        )
    better = [one for one in challengers if differences[one.name].high < 0]
    if not better:
        return FinalVerdict(
            incumbent, BEHIND.format(incumbent=in_words(incumbent)) if challengers else ALONE, differences
        )
    winner = min(better, key=lambda one: (float(one.losses.mean()), one.name))
    return FinalVerdict(
        winner.name,
        f"better than {in_words(incumbent)} beyond chance on splits that did not choose it",
        differences,
    )


def _expected(
    winner: _Judged, advice: Advice, data: Dataset, results: Mapping[str, Sequence[ObjectiveResult]]
) -> Estimate:
    """The loss to expect: of the test rows from held-out rows, or of another
    split's rows from the splits' losses."""
    new_rows = max(1, len(advice.data.dataset("test")))
    if winner.rows is not None:
        tail = data.task.unseen_loss(len(winner.losses), len(data.classes))
        blocks = blocks_of(data.groups, data.times, winner.rows)
        return estimate(winner.losses, new_rows, advice.reading.seed, tail, blocks)
    from scipy.stats import t

    losses = winner.losses
    mean = float(losses.mean())
    half = float(
        t.ppf((1 + COVERAGE) / 2, len(losses) - 1) * losses.std(ddof=1) * math.sqrt(1 + 1 / len(losses))
    )
    rows = int(np.mean([size for result in results[winner.name] for size in result.sizes]))
    # Of losses above 0 the lower end is found on the scale of logarithms (the delta method): none is below 0.
    low = mean * math.exp(-half / mean) if (losses > 0).all() else mean - half
    return Estimate(mean, low, mean + half, rows)


def _as_row(one: _Judged) -> dict[str, Any]:
    return {
        "name": one.name,
        "held_out_loss": float(one.losses.mean()),
        "held_out_rows": len(one.losses) if one.rows is not None else None,
        "temperature": 1.0,
        "networks": one.trainings,
        "configurations": [dict(one.configuration)],
    }
