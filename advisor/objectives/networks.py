"""What a worker runs: a configuration trained on the splits that the job names.
Torch, but neither Optuna nor Ray.

Torch is loaded where something is trained: a driver that only hands out trials does without those seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.executors.base import Job
from advisor.networks.cost import epoch_seconds
from advisor.networks.geometry import usable_memory
from advisor.objectives.final_jobs import FINAL_REPEATS
from advisor.objectives.jobs import TrainingJob, TrainingResult, WorkerData
from advisor.objectives.objective import Work
from advisor.search.resources import Sizing
from advisor.splits import Split, everything, make_splits
from advisor.tasks import averaged_by_row
from advisor.training.modalities import cost_of, inputs_of, prepare

if TYPE_CHECKING:
    from advisor.training.loop import Fitted
    from advisor.training.modalities import Prepared

KEPT_PREPARATIONS = 4
"""Transformed tables kept per worker; trials differ in few input parameters, and
each entry is a copy of the table."""
LIBRARIES = 2e8
"""Bytes that a process holds on a GPU beside what it trains: cuBLAS's workspaces and what torch rounds up. By
small tables on an H100; where little is predicted, what was seen would else tell of nothing but this."""
_INPUT_PARAMETERS = (
    "numeric_scaling",
    "numeric_embedding",
    "numeric_embedding_bins",
    "one_hot_max",
    "time_trend",
    "calendar_features",
    "scaling",
    "kernel_features",
    "backbone_side",
)
"""What decides the inputs beside their class, of tables (the first six) and of images and sequences."""


class TrainingObjective:
    """The factory and the objective for an executor: trains what a ``TrainingJob`` asks for.

    ``ranks`` may be set to the processes that share each batch of the next job, of which this is one.
    """

    def __init__(self, shared: WorkerData) -> None:
        import torch

        from advisor.training.data_parallel import ALONE

        self.data = shared.data
        self.split_seed, self.start = shared.seed, shared.start
        self.ranks = ALONE
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.train_losses: list[float] = []
        """Of the job that is under way, or of the last one, after each epoch."""
        self.validation_losses: list[float] = []
        """Of the same epochs."""
        self._prepared: dict[Any, Prepared] = {}

    def __call__(self, job: Job) -> Generator[tuple[int, float], None, TrainingResult]:
        from advisor.training.loop import train_epochs

        asked = TrainingJob.of(job)
        splits = self._splits(asked)
        # Processes that share a batch must all stop in the same step, and their clocks differ.
        used = asked.time_used() if self.ranks.world == 1 else lambda: 0.0
        epochs = train_epochs(
            asked.configuration,
            self.data,
            splits,
            seed=asked.seed,
            members=asked.members,
            device=self.device,
            prepared=self._prepare(asked, splits),
            micro_batch=asked.micro_batch,
            until=asked.until,
            used=used,
            ranks=self.ranks,
            start=self.start,
        )
        self.train_losses, self.validation_losses = [], []
        with _device_memory(self.device) as peak:
            while True:
                try:
                    epoch = next(epochs)
                except StopIteration as end:
                    fitted = end.value if asked.keep else None
                    losses = tuple(self.train_losses), tuple(self.validation_losses)
                    return TrainingResult(losses[0], peak(), used() >= 1, fitted, losses[1])
                self.train_losses.append(epoch.train_loss)
                self.validation_losses.append(epoch.validation_loss)
                yield epoch.number, epoch.validation_loss

    def _splits(self, asked: TrainingJob) -> list[Split]:
        if asked.until is not None:
            return [everything(self.data)]
        data = self.data if asked.parts is None else replace(self.data, times=None)
        return splits_of(asked.configuration, data, self.split_seed, asked.repeat)[: asked.parts]

    def _prepare(self, asked: TrainingJob, splits: Sequence[Split]) -> Prepared:
        repeat = asked.repeat if asked.until is None else None
        inputs = inputs_of(self.data.features.kind, asked.configuration)
        known = (asked.configuration.get(name) for name in _INPUT_PARAMETERS)
        key = (repeat, asked.parts, inputs, *known)
        if key not in self._prepared:
            while len(self._prepared) >= KEPT_PREPARATIONS:
                del self._prepared[next(iter(self._prepared))]
            self._prepared[key] = prepare(asked.configuration, self.data, splits, self.device, self.start)
        return self._prepared[key]


@contextmanager
def _device_memory(device: str) -> Iterator[Callable[[], float | None]]:
    """A function that tells the most bytes a job has taken from its GPU, None without one; afterwards
    those that nobody uses are given back.

    Other processes train on the same GPU, and torch keeps what it has once taken.
    """
    if device != "cuda":
        yield lambda: None
        return
    import torch

    torch.cuda.reset_peak_memory_stats()
    try:
        yield lambda: float(torch.cuda.max_memory_reserved())
    finally:
        torch.cuda.empty_cache()


def processes_of(configuration: Mapping[str, Any], rows: int) -> int:
    """How many processes train a trial that may span GPUs, on this many rows.

    At most one to two rows of a batch: batches are nearly equal, up to a third smaller than
    batch_size, and half of the rows may validate.
    """
    return max(
        1,
        min(
            int(configuration.get("gpus_per_trial", 1)), min(int(configuration["batch_size"]), rows // 2) // 2
        ),
    )


def rows_at_once(configuration: Mapping[str, Any], rows: int, spanning: bool) -> int:
    """Of a batch, as many as lie in one process;
    spanning: where several may share it."""
    return -(-int(configuration["batch_size"]) // (processes_of(configuration, rows) if spanning else 1))


def training_sizing(data: Dataset, *, final: bool = False, spanning: bool = False) -> Sizing:
    """What is known of the memory of a trial, or of a stack in the final, before any has run.

    spanning: processes share the batches, and each needs memory for its part. A configuration of another
        family has no prediction (0): what does not fit is then found by halving each time.
    """
    cost = cost_of(data)

    def predict(configuration: Mapping[str, Any], rows: int) -> float:
        splits = _splits(configuration)
        memory = cost.memory(configuration, rows, splits * _members(configuration, final), splits)
        return 0.0 if memory is None else LIBRARIES + memory

    return Sizing(lambda configuration: rows_at_once(configuration, len(data), spanning), predict)


def training_work(data: Dataset) -> tuple[Work, Work]:
    """What an epoch of a trial, and of a stack in the final, takes
    (``cost.epoch_seconds``); 0 of another family."""
    cost = cost_of(data)

    def work(configuration: Mapping[str, Any], final: bool) -> float:
        per_row = cost.per_row(configuration)
        if per_row is None:
            return 0.0
        splits = _splits(configuration)
        held_out = 1 / splits if splits > 1 else float(configuration["validation_fraction"])
        rows = len(data) * (1 - held_out)
        steps = rows / int(configuration["batch_size"])
        seconds = epoch_seconds(steps, rows * splits * _members(configuration, final), *per_row)
        return seconds * (2 if configuration.get("class_balance") == "teacher" else 1)  # it is trained too

    return lambda configuration: work(configuration, False), lambda configuration: work(configuration, True)


def refusal(
    configuration: Mapping[str, Any], train: Dataset, facts: Mapping[str, Any], *, spanning: bool = False
) -> str | None:
    """Why a configuration cannot be trained on such rows and such a machine;
    None when nothing speaks against it."""
    members = (
        int(configuration["folds"])
        if configuration["validation"] == "kfold"
        else int(configuration["final_members"])
    )
    memory = usable_memory(facts, gpu=bool(facts["gpu.count"]))
    rows = rows_at_once(configuration, len(train), spanning)
    return cost_of(train).refusal(configuration, rows, members, memory)


def latest_validate(train: Dataset) -> bool:
    """Whether the latest rows are held out; groups go before times: see make_splits."""
    return train.times is not None and train.groups is None


def times_trained(train: Dataset) -> int:
    """How often a finalist is trained: on each partition, and where later rows validate also on the latest
    split, on all rows, and as often again on rows of all times."""
    return len(FINAL_REPEATS) + (2 + len(FINAL_REPEATS)) * latest_validate(train)


def _splits(configuration: Mapping[str, Any]) -> int:
    return int(configuration["folds"]) if configuration["validation"] == "kfold" else 1


def _members(configuration: Mapping[str, Any], final: bool) -> int:
    """Networks per split."""
    return int(configuration["final_members"]) if final else 1


def splits_of(configuration: Mapping[str, Any], data: Dataset, seed: int, repeat: int) -> list[Split]:
    """The splits that the configuration's validation plan asks for."""
    return make_splits(
        data,
        scheme=configuration["validation"],
        folds=int(configuration["folds"]),
        fraction=float(configuration["validation_fraction"]),
        seed=seed,
        repeat=repeat,
    )


def merged_held_out(
    stacks: Sequence[Fitted], *, cross_fitted: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows that any of the stacks held out, ascending, and each one's mean
    score over the stacks that did.

    One entry per row: a row that two partitions hold out is still one piece of evidence.
    cross_fitted: at the epochs that other rows chose.
    """
    scores = [stack.cross_fitted if cross_fitted else stack.held_out for stack in stacks]
    return averaged_by_row(stacks[0].task, [stack.held_out_rows for stack in stacks], scores)
