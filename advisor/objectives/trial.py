"""What a user's own objective is given (:class:`Trial`) and may return
(:class:`TrialResult`), and how a worker runs it.

The objective is an ordinary function that calls ``trial.report`` once per epoch; an executor wants
a generator of epochs. So each call runs in a thread of its own that stands still between two
reports: only one of them runs at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
import queue
import shutil
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from advisor.data.modalities import AnyData, AnySchema
from advisor.data.tables.features import encode
from advisor.data.tables.schema import TableSchema
from advisor.dataset import Dataset, Features, Signals
from advisor.errors import UserError, did_you_mean
from advisor.executors.base import Job
from advisor.importing import OwnFolder, import_own, split_name
from advisor.kinds import TaskName
from advisor.objectives.jobs import TrainingJob
from advisor.objectives.networks import splits_of
from advisor.tasks import task_of
from advisor.training.preprocessing import Preprocessor

if TYPE_CHECKING:
    import polars as pl

    from advisor.training.signal_inputs import SignalPreprocessor

MOST_LEVELS = 64
"""``Trial.inputs`` leaves out a category with more levels: one column for each would be mostly zeros."""

Array = NDArray[Any]


class ArrayRows:
    """Some rows of images or sequences, read when they are asked for: ``len(rows)``,
    ``rows[indices]``, ``rows[a:b]``."""

    def __init__(self, signals: Signals, chosen: Array, target: Array | None = None) -> None:
        self._signals, self._chosen, self._target = signals, chosen, target

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, which: Array | Sequence[int] | slice) -> ArrayRows:
        return ArrayRows(self._signals, self._chosen[which], self._target)

    @property
    def values(self) -> Array:
        """As they were read: images uint8 (rows, channels, height, width); sequences float32 (rows, channels,
        length), NaN where a point is missing or a sequence has ended."""
        return self._signals.values[self._chosen]

    @property
    def target(self) -> Array:
        """Class codes int64 or numbers float64, (rows,). ValueError where the
        target is not to be seen: of test rows."""
        if self._target is None:
            raise ValueError("these rows have no target: test rows are scored, and their targets stay hidden")
        return self._target[self._chosen]


class Configuration(Mapping[str, Any]):
    """A trial's parameters by name. Remembers which were read, in :attr:`read`;
    going through all of them reads all."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """KeyError that names the nearest parameter when there is none of that name."""
        if name not in self._values:
            raise KeyError(f"there is no parameter '{name}'{did_you_mean(str(name), self._values)}")
        self.read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values  # Mapping's own looks the value up, which would count as reading it


@dataclass(frozen=True)
class TrialResult:
    """What an objective returns when it can say more than the validation loss.

    loss: the validation loss, lower is better.
    scores: of the rows of ``trial.validation`` in their order: class probabilities (rows, classes), or
        predictions (rows,) for regression; the final then compares row by row.
    predict: rows (without their target) -> scores of those rows; the final then scores
        the test rows with it, in the worker.
    """

    loss: float
    scores: Any = None
    predict: Callable[[Any], Any] | None = None


class TrialStopped(BaseException):
    """Raised by ``Trial.report`` when the trial is pruned or the search ends.
    Not an Exception: let it pass."""


class Trial:
    """One configuration on one split of the data.

    configuration: the parameters. train, validation: a table's rows as polars frames, the target column
    included; those of images and sequences as ArrayRows. target, task, classes: its name; binary, multiclass
    or regression; the labels in code order, () for regression. seed: of this trial, for whatever is random in
    it. device: "cuda" where the worker has a GPU, else "cpu". final: whether this is the final on fresh
    splits, where ``TrialResult.scores`` and ``TrialResult.predict`` are looked at.
    """

    def __init__(
        self, shared: ObjectiveData, asked: TrainingJob, split: int, rows: tuple[Array, Array]
    ) -> None:
        self._shared, self._rows = shared, rows
        self._folder = folder_of(Path(shared.checkpoints), asked) / f"split-{split}"
        self._say: Callable[[int, float], None] = lambda epoch, loss: None
        self._last_epoch = 0
        self.configuration = Configuration(asked.configuration)
        self.seed = asked.seed
        self.final = asked.keep
        self.target: str = shared.schema.target
        self.task: TaskName = shared.schema.task
        self.classes: tuple[str, ...] = shared.schema.classes

    @cached_property
    def train(self) -> Any:
        """The training rows of this split: a polars frame or ArrayRows."""
        return self._part(self._rows[0])

    @cached_property
    def validation(self) -> Any:
        """The rows to take the loss of, alike; nothing may be fitted on them."""
        return self._part(self._rows[1])

    @property
    def device(self) -> str:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def folder(self) -> Path:
        """A folder of this trial's own, made when it is first asked for.

        What lies in it is there again when the same trial is run again, after
        its worker died or the search was
        interrupted: save the state here and look for it first. It goes away when the trial has ended;
        of the final, the winner's is kept in the run's folder ``winner``. It survives its machine
        only on a file system that all share.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def report(self, epoch: int, loss: float) -> None:
        """Tell the validation loss of an epoch: 1, 2, 3 and so on. Returns, or
        ends the trial here when it is pruned.

        ValueError when the epoch is not a whole number above the last one, or the loss is not a number. A
        loss that is not finite ends the trial as diverged.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int | np.integer) or epoch <= self._last_epoch:
            raise ValueError(
                f"report(epoch={epoch!r}): epochs must be increasing whole numbers, the last was "
                f"{self._last_epoch}"
            )
        self._last_epoch = int(epoch)
        self._say(int(epoch), checked_loss(loss, "report was given"))

    def inputs(self, rows: pl.DataFrame | ArrayRows) -> NDArray[np.float32]:
        """``rows`` as numbers without gaps, float32; all statistics are of this trial's training rows.

        A table's, (rows, columns): numbers, dates and texts scaled as ``numeric_scaling`` says, missing ones
        as 0 with a column that marks them; categories one-hot. A category with more than MOST_LEVELS levels
        is left out: encode it from the frame. Images (rows, channels, height, width) and sequences (rows,
        channels, length), scaled as ``scaling`` says; where points are missing in training sequences, these
        are filled, 0 at the ends, and a last channel is 1 where a sequence has points.
        """
        if isinstance(rows, ArrayRows):
            return self._signal_inputs(rows)
        schema = cast(TableSchema, self._shared.schema)  # rows that are a frame are a table's
        inputs = self._preprocessor.transform(encode(rows, schema))
        return np.concatenate([inputs.numeric, inputs.indicators], axis=1)

    def targets(self, rows: pl.DataFrame | ArrayRows) -> Array:
        """The targets of ``rows``: int64 codes into ``classes``, or float64
        numbers for regression; shape (rows,)."""
        if isinstance(rows, ArrayRows):
            return rows.target
        target = rows[self.target]
        if not task_of(self.task).of_classes:
            return np.asarray(target.to_numpy(), dtype=np.float64)
        codes = {label: code for code, label in enumerate(self.classes)}
        return np.array([codes[label] for label in target.to_list()], dtype=np.int64)

    def answers(self, rows: pl.DataFrame | ArrayRows) -> Array:
        """The former name of ``targets``."""
        warnings.warn("trial.answers is now trial.targets", FutureWarning, stacklevel=2)
        return self.targets(rows)

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        settings = {
            "numeric_scaling": self.configuration["numeric_scaling"],
            "numeric_embedding": "none",
            "one_hot_max": MOST_LEVELS,
        }
        features = cast(Features, self._shared.data.features)
        if features.trend:  # else what is never read would pass for read
            settings["time_trend"] = self.configuration.get("time_trend", "none")
        return Preprocessor.fit(features, self._rows[0], settings)

    def _signal_inputs(self, rows: ArrayRows) -> NDArray[np.float32]:
        import torch

        from advisor.training.signal_inputs import SignalInputs

        prepared = SignalInputs([self._signal_preprocessor], Signals(rows.values))
        [inputs] = prepared.inputs(torch.arange(len(rows)).unsqueeze(0), torch.zeros(1, dtype=torch.int64))
        return np.asarray(inputs[0].numpy())

    @cached_property
    def _signal_preprocessor(self) -> SignalPreprocessor:
        from advisor.training.signal_inputs import SignalPreprocessor, has_gaps

        signals = cast(Signals, self._shared.data.features)
        settings = {"scaling": self.configuration["scaling"]}
        return SignalPreprocessor.fit(signals, self._rows[0], settings, has_gaps(signals))

    def _part(self, rows: Array) -> pl.DataFrame | ArrayRows:
        data, frame = self._shared.data, self._shared.frame
        return ArrayRows(cast(Signals, data.features), rows, data.target) if frame is None else frame[rows]


def without_target(data: AnyData) -> pl.DataFrame | ArrayRows:
    """The test rows as an objective may see them."""
    inputs = data.test_inputs()
    if data.frame is None:
        return ArrayRows(cast(Signals, inputs), np.arange(len(inputs)))
    return cast("pl.DataFrame", inputs)


def checked_loss(loss: object, who: str) -> float:
    """A loss as a float, also NaN and infinity; ValueError for what is no number."""
    if hasattr(loss, "item") and getattr(loss, "ndim", 1) == 0:
        loss = loss.item()  # a number in a NumPy or torch scalar
    if isinstance(loss, bool) or not isinstance(loss, Real):
        raise ValueError(
            f"{who} {loss!r:.60} ({type(loss).__name__}): expected the validation loss, one number"
        )
    return float(loss)


def folder_of(checkpoints: Path, asked: TrainingJob) -> Path:
    """Where a training keeps its checkpoints: the same folder for the same work, whichever attempt it is."""
    work = [dict(asked.configuration), asked.seed, asked.repeat, asked.keep]
    text = json.dumps(work, sort_keys=True, default=str)
    return checkpoints / hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ObjectiveResult:
    """What comes back from a worker: plain numbers.

    loss: the mean over the splits;
    losses, sizes: of each, and its validation rows.
    validation_share: validation rows per training row, mean over the splits.
    rows, scores: all held-out rows, split after split, and their scores, None unless all splits gave scores.
    test: mean scores of the test rows over the splits, or None.
    read: the parameters that were read.
    """

    loss: float
    losses: tuple[float, ...]
    sizes: tuple[int, ...]
    validation_share: float
    rows: NDArray[np.int64]
    scores: NDArray[np.float64] | None
    test: NDArray[np.float64] | None
    read: tuple[str, ...]


@dataclass(frozen=True)
class ObjectiveData:
    """What all trials of a user's own objective share.

    function: the objective, or its name package.module:function, with the path to import it from.
    data: the training rows. frame: of a table, as they were read; None of images and sequences.
    test: the test rows without their target. seed: of the splits. checkpoints: a folder.
    """

    function: Callable[[Trial], Any] | str
    path: str | None
    data: Dataset
    frame: pl.DataFrame | None
    schema: AnySchema
    test: pl.DataFrame | ArrayRows
    seed: int
    checkpoints: str


class OwnTraining:
    """The factory and the objective for an executor.

    The objective is called once per split of the validation plan; the splits advance together, epoch by
    epoch, so that what is reported is the mean of all of them.
    """

    def __init__(self, shared: ObjectiveData) -> None:
        self._shared = shared
        function = shared.function
        self._function: Callable[[Trial], Any] = (
            import_objective(function, shared.path) if isinstance(function, str) else function
        )

    def __call__(self, job: Job) -> Generator[tuple[int, float], None, ObjectiveResult]:
        shared, asked = self._shared, TrainingJob.of(job)
        splits = splits_of(asked.configuration, shared.data, shared.seed, asked.repeat)
        trials = [Trial(shared, asked, i, (s.train, s.validation)) for i, s in enumerate(splits)]
        calls = [_Call(self._function, trial) for trial in trials]
        wait = True
        try:
            yield from _together(calls)
            result = self._result(trials, calls)
            if not math.isfinite(result.loss):
                yield calls[0].epoch + 1, result.loss  # the search calls that diverged
        except KeyboardInterrupt:
            wait = False  # the second Ctrl-C means at once
            raise
        finally:
            for call in calls:
                call.stop(wait=wait)
        if not asked.keep:
            shutil.rmtree(folder_of(Path(shared.checkpoints), asked), ignore_errors=True)
        return result

    def _result(self, trials: Sequence[Trial], calls: Sequence[_Call]) -> ObjectiveResult:
        outcomes = [call.outcome for call in calls]
        scores = test = None
        sizes = tuple(len(validation) for _, validation in (trial._rows for trial in trials))
        if trials[0].final:
            if all(outcome.scores is not None for outcome in outcomes):
                given = [self._checked(o.scores, n, "scores") for o, n in zip(outcomes, sizes, strict=True)]
                scores = np.concatenate(given)
            new = self._shared.test
            if len(new) and all(outcome.predict is not None for outcome in outcomes):
                predictions = [self._checked(call.predict(new), len(new), "predict") for call in calls]
                test = np.asarray(np.mean(predictions, axis=0))
        return ObjectiveResult(
            loss=float(np.mean([outcome.loss for outcome in outcomes])),
            losses=tuple(outcome.loss for outcome in outcomes),
            sizes=sizes,
            validation_share=float(
                np.mean([len(held) / len(rest) for rest, held in (trial._rows for trial in trials)])
            ),
            rows=np.concatenate([trial._rows[1] for trial in trials]),
            scores=scores,
            test=test,
            read=tuple(sorted(set().union(*(trial.configuration.read for trial in trials)))),
        )

    def _checked(self, scores: Any, rows: int, name: str) -> NDArray[np.float64]:
        """Scores as an array; ValueError unless they are finite, of the right shape, and
        probabilities where they must be."""
        classes = len(self._shared.schema.classes)
        shape = (rows, classes) if classes else (rows,)
        array = np.asarray(scores, dtype=np.float64)
        if array.shape != shape:
            raise ValueError(f"TrialResult.{name} has shape {array.shape}; expected {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"TrialResult.{name} holds numbers that are not finite")
        if classes and (array.min(initial=0.0) < 0 or np.abs(array.sum(axis=1) - 1).max(initial=0.0) > 1e-3):
            raise ValueError(
                f"TrialResult.{name} does not hold probabilities: each row must be at least 0 and sum to 1"
            )
        return array


def _together(calls: Sequence[_Call]) -> Generator[tuple[int, float], None, None]:
    """Advance all calls by a report each and yield the mean of their latest
    losses, until all have returned."""
    epoch = 0
    while any(call.active for call in calls):
        reported = 0
        for call in calls:
            if call.active:
                call.advance()
                reported = max(reported, call.epoch if call.active else 0)
        if reported or not epoch:
            # a split that ended earlier stays in the mean with what it returned
            epoch = max(reported, epoch + 1)
            yield epoch, float(np.mean([call.loss for call in calls]))
    for call in calls:
        call.epoch = epoch


class _Call:
    """An objective on one split, in a thread that runs only while ``advance`` waits for it."""

    def __init__(self, function: Callable[[Trial], Any], trial: Trial) -> None:
        self._function, self._trial = function, trial
        self._go, self._said = threading.Semaphore(0), queue.SimpleQueue[Any]()
        self._thread: threading.Thread | None = None
        self._stopping, self._folder = False, OwnFolder()
        self.active, self.epoch, self.loss = True, 0, math.nan
        self.outcome = TrialResult(math.nan)
        trial._say = self._report

    def advance(self) -> None:
        """Until the next report or the end; raises what the objective raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="objective", daemon=True)
            self._thread.start()
        with self._folder.entered():
            self._go.release()
            said = self._said.get()
        if isinstance(said, TrialResult):
            self.active, self.outcome, self.loss = False, said, said.loss
        elif isinstance(said, BaseException):
            self.active = False
            raise said
        else:
            self.epoch, self.loss = said

    def predict(self, rows: Any) -> Any:
        """With what it returned."""
        assert self.outcome.predict is not None
        with self._folder.entered():
            return self.outcome.predict(rows)

    def stop(self, *, wait: bool) -> None:
        """End it at its next report, and wait for that: two trials must never share a process."""
        if self._thread is None or not self.active:
            return
        self._stopping, self.active = True, False
        with self._folder.entered():
            self._go.release()
            if wait:
                self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._said.put(_outcome(self._function(self._trial)))
        except TrialStopped:
            return
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits in `advance`
            self._said.put(error)

    def _report(self, epoch: int, loss: float) -> None:
        if self._stopping:
            raise TrialStopped
        self._said.put((epoch, loss))
        self._go.acquire()
        if self._stopping:
            raise TrialStopped


def _outcome(returned: Any) -> TrialResult:
    if isinstance(returned, TrialResult):
        return TrialResult(
            checked_loss(returned.loss, "TrialResult.loss is"), returned.scores, returned.predict
        )
    return TrialResult(checked_loss(returned, "the objective returned"))


# ------------------------------------------------------------------------------------------------- finding it


def import_objective(name: str, path: str | None) -> Callable[[Trial], Any]:
    """The function of that name, package.module:function.
    path: a folder to look in first; stays on sys.path.

    UserError when the name has another form, the module cannot be imported or has no such function.
    """
    parts = split_name(name)
    if parts is None:
        raise UserError(f"objective '{name}' is not of the form package.module:function")
    module_name, function_name = parts
    module = import_own(module_name, path, f"objective '{name}'", " (give its folder with --working-dir)")
    function = getattr(module, function_name, None)
    if function is None:
        near = did_you_mean(function_name, [n for n in vars(module) if callable(getattr(module, n))])
        raise UserError(f"objective '{name}': {module_name} has no function '{function_name}'{near}")
    if not callable(function):
        raise UserError(f"objective '{name}' is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]
