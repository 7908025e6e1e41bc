"""One configuration on some splits: losses epoch by epoch, then the fitted
stack. The loop stands whole in ``train``.

Nothing here assumes that it owns the process: configuration, data, seed and device are arguments, no global
random generator is read or seeded, and no thread count is set.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.dataset import Dataset, Features, Signals, Task
from advisor.errors import UserError
from advisor.networks.convolutional import SignalNetwork
from advisor.networks.plan import plan_of
from advisor.networks.tables import ColumnScale, InputShape, TableNetwork
from advisor.splits import Split
from advisor.training.augmentation import Mix
from advisor.training.class_balance import SYNTHETIC, ClassBalance
from advisor.training.cross_fitting import HeldOut
from advisor.training.cuda_graphs import RecordedPass, RecordedStep
from advisor.training.data_parallel import ALONE, Ranks
from advisor.training.preprocessing import Inputs, Preprocessor
from advisor.training.signal_inputs import SignalInputs, SignalPreprocessor, SignalShape, prepare_signals

HEAD_SHARE = 0.1
"""Share of the epochs in which balanced_head trains the head alone; about that
of Kang et al. 2020 (10 beside 90)."""
LARGEST_POWER = 50.0
"""No target is e^50 times its own median; a diverging network may say so."""
RECORDED = frozenset({"adam", "adamw"})
"""Optimizers whose step can be recorded on a GPU; the others read the learning
rate, or count steps, on the host."""
RMS_SMOOTHING = 0.99
ONE_CYCLE_RISE = 0.3
"""Share of the steps in which one_cycle rises to its peak, from peak / 25; it
ends at peak / 10,000 (Smith 2018)."""


@dataclass(frozen=True)
class Epoch:
    """Mean losses over the members after an epoch; ``number`` counts from 1.

    Classification: cross-entropy in nats, the training loss with label smoothing. Regression: squared error
    in the target's unit squared; the training loss in that of the squeezed target, where it is squeezed.
    """

    number: int
    train_loss: float
    validation_loss: float


@dataclass(frozen=True)
class TableInputs:
    """A table's rows under every split's own preprocessing; row r of split s lies at s * rows + r."""

    preprocessors: tuple[Preprocessor, ...]
    shape: InputShape
    rows: int
    numeric: Tensor
    indicators: Tensor
    codes: Tensor

    @property
    def place(self) -> torch.device:
        """Where rows are looked up."""
        return self.numeric.device

    def inputs(self, batch: Tensor, member_split: Tensor) -> list[Tensor]:
        """Row numbers (members, rows) and each member's split -> what the network
        reads, each (members, rows, columns)."""
        index = (batch.to(self.place) + member_split.to(self.place).unsqueeze(1) * self.rows).flatten()
        return [
            t.index_select(0, index).view(*batch.shape, -1)
            for t in (self.numeric, self.indicators, self.codes)
        ]


Prepared = TableInputs | SignalInputs
Network = TableNetwork | SignalNetwork


@dataclass(frozen=True)
class Fitted:
    """A trained stack: the weights of each member at its own best epoch.

    validation_losses: each member's loss at that epoch.
    held_out_rows, held_out: the rows that validated, and for each the mean over the members that did not
        train on it: class probabilities (rows, classes), or predictions (rows,).
    cross_fitted: the same, but each member at the epoch that other validating rows chose (``held_out.py``).
    phases: for how many epochs the whole of each member, and then its head alone, had been trained at its
        best epoch. A loaded model has none of these.
    target_knee: see ``squeezed``; target_mean and target_scale are those of the
        squeezed target, target_range of the plain.
    """

    configuration: Mapping[str, Any]
    task: Task
    outputs: int
    shape: InputShape | SignalShape
    preprocessors: tuple[Preprocessor, ...] | tuple[SignalPreprocessor, ...]
    member_split: tuple[int, ...]
    state: Mapping[str, Tensor]
    target_mean: NDArray[np.float64]
    target_scale: NDArray[np.float64]
    target_range: NDArray[np.float64]
    target_knee: NDArray[np.float64]
    best_epochs: tuple[int, ...]
    validation_losses: tuple[float, ...]
    held_out_rows: NDArray[np.int64]
    held_out: NDArray[np.float64]
    cross_fitted: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    phases: tuple[tuple[int, int], ...] = ()

    def predict(self, features: Features | Signals, device: str = "cpu") -> NDArray[np.float64]:
        """Mean over the members: class probabilities (rows, classes), or
        predictions (rows,) in the target's unit."""
        network = self._network(device)
        shape = (len(features), self.outputs) if self.task != "regression" else (len(features),)
        result, per_pass = np.zeros(shape), network.rows_per_pass
        split = torch.tensor(self.member_split)
        for start in range(0, len(features), per_pass):
            part = features.part(slice(start, start + per_pass))
            everyone = torch.arange(len(part)).expand(len(split), -1)
            inputs = self._prepared(part, device).inputs(everyone, split)
            with torch.no_grad():
                out = network(*inputs)
            result[start : start + len(part)] = self._scores(out).mean(axis=0)
        return result

    def _prepared(self, part: Features | Signals, device: str) -> Prepared:
        if isinstance(part, Signals):
            return SignalInputs(self.preprocessors, part, device)  # type: ignore[arg-type]
        assert isinstance(self.shape, InputShape)
        inputs = [p.transform(part) for p in self.preprocessors]  # type: ignore[union-attr]
        stacked = (t.to(device) for t in _stack(inputs, self.shape))
        return TableInputs((), self.shape, len(part), *stacked)

    def _network(self, device: str) -> Network:
        bins = self.state.get("numbers.left")
        network = _network_of(
            self.configuration,
            self.shape,
            self.outputs,
            members=len(self.member_split),
            generator=torch.Generator(),
            # only the shape counts here: the saved edges are loaded with the weights
            bins=None if bins is None else torch.zeros(bins.shape[0], bins.shape[3] + 1, bins.shape[2]),
        )
        network.load_state_dict(dict(self.state))
        return network.to(device).eval()

    def _scores(self, out: Tensor) -> NDArray[np.float64]:
        return scores(
            out, self.task, self.target_mean, self.target_scale, self.target_range, self.target_knee
        )


def scores(
    out: Tensor,
    task: Task,
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    limits: NDArray[np.float64],
    knee: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Network outputs (members, rows, outputs) as probabilities, or as predictions within the range of each
    member's training target, limits (members, 2)."""
    if task != "regression":
        return out.double().softmax(dim=2).cpu().numpy()
    values = out[:, :, 0].double().cpu() * torch.from_numpy(scale)[:, None] + torch.from_numpy(mean)[:, None]
    plain = stretched(values, torch.from_numpy(knee)[:, None]).numpy()
    return np.asarray(np.clip(plain, limits[:, :1], limits[:, 1:]))


def squeezed(values: Tensor, knee: Tensor) -> Tensor:
    """sign(y) log(1 + |y| / knee): about linear below the knee, a logarithm far above it;
    the values alone for a knee of 0."""
    return torch.where(
        knee > 0, values.sign() * (values.abs() / torch.where(knee > 0, knee, 1.0)).log1p(), values
    )


def stretched(values: Tensor, knee: Tensor) -> Tensor:
    """The inverse of ``squeezed``; what would overflow stays finite."""
    return torch.where(knee > 0, values.sign() * knee * values.abs().clamp(max=LARGEST_POWER).expm1(), values)


def prepare(
    configuration: Mapping[str, Any], data: Dataset, splits: Sequence[Split], device: str = "cpu"
) -> Prepared:
    """Fit each split's preprocessing on its training rows and transform all rows with it.

    UserError for a treatment of rare classes that such data do not allow.
    """
    if isinstance(data.features, Signals):
        if configuration["class_balance"] in SYNTHETIC:
            raise UserError(
                f"class_balance {configuration['class_balance']} makes up rows of a table; for images and "
                "sequences take "
                "oversample, which draws rows that augmentation then changes"
            )
        return prepare_signals(configuration, data.features, splits, device)
    preprocessors = tuple(Preprocessor.fit(data.features, split.train, configuration) for split in splits)
    inputs = [p.transform(data.features) for p in preprocessors]
    counts = np.max([p.embedded_counts for p in preprocessors], axis=0)
    shape = InputShape(
        numeric=inputs[0].numeric.shape[1],
        indicators=max(i.indicators.shape[1] for i in inputs),
        code_counts=tuple(int(c) for c in counts),
    )
    numeric, indicators, codes = (t.to(device) for t in _stack(inputs, shape))
    return TableInputs(preprocessors, shape, len(data), numeric, indicators, codes)


def _stack(inputs: Sequence[Inputs], shape: InputShape) -> tuple[Tensor, Tensor, Tensor]:
    """The splits' inputs one after another; a split that knows fewer levels has its
    one-hot columns padded with zeros."""
    padded = [np.pad(i.indicators, ((0, 0), (0, shape.indicators - i.indicators.shape[1]))) for i in inputs]
    numeric = torch.from_numpy(np.concatenate([i.numeric for i in inputs]))
    codes = torch.from_numpy(np.concatenate([i.codes for i in inputs]))
    return numeric, torch.from_numpy(np.concatenate(padded)), codes


def train(
    configuration: Mapping[str, Any],
    data: Dataset,
    splits: Sequence[Split],
    *,
    seed: int,
    members: int = 1,
    device: str = "cpu",
    prepared: Prepared | None = None,
    micro_batch: int | None = None,
    until: tuple[int, int] | None = None,
    used: Callable[[], float] = lambda: 0.0,
    ranks: Ranks = ALONE,
) -> Generator[Epoch, None, Fitted]:
    """Train ``members`` networks per split, all at once; yields after every epoch, returns the fitted stack.

    prepared: the result of ``prepare`` for the same data, splits and input
        parameters, when the caller keeps it.
    micro_batch: rows of a step that are in memory at once; their gradients are added up, so the batch stays
        what it is. (Batch normalization then sees the micro-batch, and chance draws in another order.) None
        is the whole batch. A member whose validation loss has not improved for ``patience`` epochs has
        stopped; training ends with the last one.
    until: instead of that, so many epochs of the plan, and so many of the head alone where the plan has them
        (see ``Fitted.phases``), and the last weights are kept: the validating rows then choose nothing, and
        may be training rows (``splits.everything``).
    used: the share of the time for this training that is gone. From 1 on it ends with the step
        under way, and each member keeps its best epoch, of which the last may be a part of
        one; the schedule is never behind it.
    ranks: the processes that share the batches; each calls this with the same arguments and returns the
        same stack. UserError when there are more of them than a batch has rows. (Batch normalization
        sees a process's part of the batch.)
    """
    c = configuration
    prepared = prepared or prepare(c, data, splits, device)
    member_split = [s for s in range(len(splits)) for _ in range(members)]
    generator = torch.Generator().manual_seed(seed)
    noise_seed = int(torch.randint(2**62, (), generator=generator)) + ranks.rank
    noise = torch.Generator(device).manual_seed(noise_seed)
    rows = MemberRows(c, data, splits, member_split, device, micro_batch, ranks)
    rows.find_neighbours(prepared)
    network = build(c, prepared, rows, generator).to(device)
    forward, optimizer = pass_and_optimizer(network, c, noise, ranks, recorded=micro_batch is None)
    best = _Best(network, len(member_split), int(c["patience"]), keep_last=until is not None)

    steps = rows.steps(int(c["batch_size"]))
    # Batches are drawn alike by all processes; what is drawn for a process's own rows must not come between.
    changes = generator if ranks.world == 1 else torch.Generator().manual_seed(noise_seed)
    decoupled = rows.balance is not None and rows.balance.kind == "balanced_head"
    of_head = min(max(1, round(HEAD_SHARE * int(c["epochs"]))), int(c["epochs"]) - 1) if decoupled else 0
    whole = int(c["epochs"]) - of_head
    total = steps * whole
    for epoch in range(1, (whole if until is None else min(whole, until[0])) + 1):
        network.train()
        train_loss = torch.zeros((), device=device)
        for step, batch in enumerate(
            rows.batches(steps, generator, prepared.place), start=(epoch - 1) * steps
        ):
            optimizer.zero_grad()
            for part, share in rows.parts(batch):
                inputs, mix = rows.training_inputs(prepared, part, changes)
                out = forward(*inputs)
                loss = share * rows.loss(out, part, mix, label_smoothing=float(c["label_smoothing"]))
                loss.sum().backward()  # type: ignore[no-untyped-call]  # a sum: members' gradients don't mix
                train_loss += (loss.detach() * rows.unit).mean()
            optimizer.step(learning_rate(c, max(step, used() * total), total))
            if used() >= 1:
                break
        taken = step + 1 - (epoch - 1) * steps
        ranks.same_buffers(network)
        validation = rows.validate(network, prepared, best.going(epoch))
        best.update(network, validation, epoch)
        yield Epoch(epoch, float(ranks.mean(train_loss)) / taken, float(validation.mean()))
        if best.all_stopped(epoch) or not torch.isfinite(validation).any() or used() >= 1:
            break

    of_whole, of_head = best.epochs.tolist(), of_head if until is None else min(of_head, until[1])
    if of_head:
        of_head_epochs = range(epoch + 1, epoch + 1 + of_head)
        yield from _train_head(c, network, prepared, rows, best, steps, of_head_epochs, generator, used)
    network.load_state_dict(best.state)
    held_out_rows, held_out, cross_fitted = rows.held_out(network, prepared)
    return Fitted(
        configuration=dict(c),
        task=data.task,
        outputs=rows.outputs,
        shape=prepared.shape,
        preprocessors=prepared.preprocessors,
        member_split=tuple(member_split),
        state={name: tensor.cpu() for name, tensor in best.state.items()},
        target_mean=rows.mean,
        target_scale=rows.scale,
        target_range=rows.range,
        target_knee=rows.knee,
        best_epochs=tuple(best.epochs.tolist()),
        phases=tuple(zip(of_whole, (best.epochs - epoch).clamp(min=0).tolist(), strict=True)),
        validation_losses=tuple(best.losses.tolist()),
        held_out_rows=held_out_rows,
        held_out=held_out,
        cross_fitted=cross_fitted,
    )


def _train_head(
    configuration: Mapping[str, Any],
    network: Network,
    prepared: Prepared,
    rows: MemberRows,
    best: _Best,
    steps: int,
    epochs: range,
    generator: torch.Generator,
    used: Callable[[], float],
) -> Generator[Epoch, None, None]:
    """Train the head once more on balanced rows, all below it fixed (note N18);
    ``best`` keeps what validates better."""
    assert rows.balance is not None
    network.load_state_dict(best.state)
    rows.balance = rows.balance.of_the_head()
    best.patience = epochs.stop  # who had stopped goes on
    network.requires_grad_(False)
    head = network.head_parameters()
    for parameter in head:
        parameter.requires_grad_(True)
    optimizer = Optimizer(configuration, network, head)
    forward = rows.ranks.parallel(network)
    for epoch in epochs:
        if used() >= 1:
            return
        network.eval()  # what is fixed should not drop units or move its statistics
        train_loss = torch.zeros((), device=rows.device)
        for batch in rows.batches(steps, generator, prepared.place):
            optimizer.zero_grad()
            for part, share in rows.parts(batch):
                loss = share * rows.loss(forward(*rows.inputs(prepared, part)), part)
                loss.sum().backward()  # type: ignore[no-untyped-call]
                train_loss += loss.detach().mean()
            optimizer.step(float(configuration["learning_rate"]))
        validation = rows.validate(network, prepared, best.going(epoch))
        best.update(network, validation, epoch)
        yield Epoch(epoch, float(rows.ranks.mean(train_loss)) / steps, float(validation.mean()))


def learning_rate(configuration: Mapping[str, Any], step: float, total: int) -> float:
    """The rate at ``step`` of ``total``: linear warm-up, then constant or cosine to 0; or one_cycle."""
    peak, schedule = float(configuration["learning_rate"]), configuration["schedule"]
    done = step / max(1, total)
    if schedule == "one_cycle":
        if done < ONE_CYCLE_RISE:
            return _cosine(peak / 25, peak, done / ONE_CYCLE_RISE)
        return _cosine(peak, peak / 1e4, (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    warmup = float(configuration["warmup"])
    if done < warmup:
        return peak * (step + 1) / (warmup * total + 1)
    return peak if schedule == "constant" else _cosine(peak, 0.0, (done - warmup) / (1 - warmup))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


class MemberRows:
    """Which rows each member trains and validates on, and the targets as the network sees them."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        data: Dataset,
        splits: Sequence[Split],
        member_split: Sequence[int],
        device: str,
        micro_batch: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.micro_batch, self.ranks = micro_batch, ranks
        self.task, self.rows, self.device = data.task, len(data), device
        self.classification = data.task != "regression"
        self.outputs = len(data.classes) if self.classification else 1
        self.target = torch.from_numpy(np.array(data.target)).to(device)
        self.train = [torch.from_numpy(np.array(splits[s].train)) for s in member_split]
        self.member_split, self._configuration = torch.tensor(member_split, device=device), configuration
        members = len(member_split)
        self.mean, self.scale, self.range = np.zeros(members), np.ones(members), np.zeros((members, 2))
        self.knee = np.zeros(members)
        if not self.classification:
            values = np.asarray(data.target, dtype=np.float64)
            # each member's own: the other splits' training rows are rows that this one validates on
            trained = [values[splits[s].train] for s in member_split]
            self.range = np.array([(own.min(), own.max()) for own in trained])
            if configuration["target_transform"] == "log":
                self.knee = np.array(
                    [float(np.median(np.abs(own))) or float(np.abs(own).max()) for own in trained]
                )
            seen = [
                squeezed(torch.from_numpy(o), torch.tensor(k)).numpy()
                for o, k in zip(trained, self.knee, strict=True)
            ]
            self.mean = np.array([own.mean() for own in seen])
            deviation = np.array([own.std() for own in seen])
            self.scale = np.where(deviation > 0, deviation, 1.0)
        arrays = (self.mean, self.scale, self.knee)
        self._mean, self._scale, self._knee = (torch.from_numpy(a).to(device)[:, None] for a in arrays)
        self.unit = self._scale.squeeze(1).square()  # of a member's training loss; 1 for classification
        widest = max(self.ranks.world, *(len(splits[s].validation) for s in member_split))
        # members validate on equally many columns, processes on one at least; the
        # padding repeats row 0 with weight 0
        self.validation = torch.zeros(members, widest, dtype=torch.int64)
        self.weight = torch.zeros(members, widest, dtype=torch.float64)
        for m, s in enumerate(member_split):
            count = len(splits[s].validation)
            self.validation[m, :count] = torch.from_numpy(np.array(splits[s].validation))
            own = np.ones(count) if data.weights is None else data.weights[splits[s].validation]
            self.weight[m, :count] = torch.from_numpy(own / max(own.sum(), 1e-300))
        self._kept = HeldOut(self.weight)

        self.balance: ClassBalance | None = None
        if self.classification:
            self.balance = ClassBalance(configuration, self._counts(), device)

    def _counts(self) -> Tensor:
        """Training rows of each member's classes, (members, classes)."""
        return torch.stack([torch.bincount(self.target.cpu()[t], minlength=self.outputs) for t in self.train])

    def prior(self) -> Tensor | None:
        """Logarithms of each member's class shares, with one row added to each
        class; nothing for regression."""
        if not self.classification:
            return None
        counts = self._counts()
        return ((counts + 1.0) / (counts + 1.0).sum(dim=1, keepdim=True)).log()

    def steps(self, batch_size: int) -> int:
        return max(1, round(max(len(t) for t in self.train) / batch_size))

    def batches(self, steps: int, generator: torch.Generator, place: torch.device) -> Sequence[Tensor]:
        """Row numbers (members, batch) of each step, on ``place``: a fresh permutation per
        member, cut into nearly equal batches.

        Equal batches instead of a small last one: batch normalization of a single row is undefined. A member
        with fewer rows than the largest goes on with its first ones.
        """
        length = max(len(t) for t in self.train)
        orders = []
        for member, own in enumerate(self.train):
            if self.balance is None:
                order = own[torch.randperm(len(own), generator=generator)]
            else:
                order = own[self.balance.order(member, self.target.cpu()[own], generator)]
            orders.append(order.repeat(-(-length // len(own)))[:length])
        return torch.stack(orders).to(place).tensor_split(steps, dim=1)

    def parts(self, batch: Tensor) -> list[tuple[Tensor, float]]:
        """Nearly equal pieces (members, rows) of at most ``micro_batch`` rows,
        with each one's share of the batch.

        With several processes those of this one's part, as many as in any other (their gradients are averaged
        piece by piece), and the share is so many times as large as a mean over the processes takes from it.
        """
        rows, world = batch.shape[1], self.ranks.world
        if rows < world:
            raise UserError(
                f"a batch of {rows} rows cannot be shared by {world} processes: take a larger batch_size"
            )
        most = -(-rows // world)
        pieces = 1 if self.micro_batch is None else min(-(-most // self.micro_batch), rows // world)
        own = self.ranks.share(batch).tensor_split(pieces, dim=1)
        return [(part, world * part.shape[1] / rows) for part in own]

    def inputs(self, prepared: Prepared, batch: Tensor) -> list[Tensor]:
        return prepared.inputs(batch, self.member_split)

    def find_neighbours(self, prepared: Prepared) -> None:
        """Once before training, for what interpolates between rows."""
        if self.balance is not None and isinstance(prepared, TableInputs):
            start = self.member_split.unsqueeze(1) * self.rows
            self.balance.prepare(self.train, self.target.cpu(), prepared.numeric, prepared.indicators, start)

    def training_inputs(
        self, prepared: Prepared, batch: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], Mix | None]:
        """What the network reads in a step of training, with rows made up, changed
        or mixed as the configuration asks."""
        if isinstance(prepared, SignalInputs):
            return prepared.training_inputs(batch, self.member_split, self._configuration, generator)
        inputs = self.inputs(prepared, batch)
        if self.balance is None:
            return inputs, None
        target, start = self.target[batch.to(self.device)], self.member_split.unsqueeze(1) * self.rows
        return self.balance.synthesize(inputs, batch, target, prepared.numeric, start, generator), None

    def loss(
        self, out: Tensor, batch: Tensor, mix: Mix | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Mean loss of each member; regression in units of the standardized target."""
        if mix is not None:
            own = self.loss(out, batch, label_smoothing=label_smoothing)
            return mix.loss(
                own, self.loss(out, batch[:, mix.partner.to(batch.device)], label_smoothing=label_smoothing)
            )
        target = self.target[batch.to(self.device)]
        if self.balance is not None:
            return self.balance.losses(out, target, label_smoothing).mean(dim=1)
        return (out[:, :, 0] - self.standardized(target).to(out.dtype)).square().mean(dim=1)

    def standardized(self, target: Tensor) -> Tensor:
        """A regression target (members or 1, rows) as each member's network sees it, (members, rows)."""
        return (squeezed(target, self._knee) - self._mean) / self._scale

    def validate(self, network: Network, prepared: Prepared, going: Tensor) -> Tensor:
        """Validation loss of each member, in the target's unit squared for
        regression; what is not finite counts as inf.

        going (members,): who still trains.
        """
        network.eval()
        by_row, outs = [], []
        for batch, out in self._evaluate(network, prepared):
            target = self.target[batch.to(self.device)]
            if self.classification:
                losses = F.cross_entropy(out.flatten(0, 1), target.flatten(), reduction="none").view(
                    target.shape
                )
            else:
                values = stretched(out[:, :, 0].double() * self._scale + self._mean, self._knee)
                losses = (values - target).square()
            by_row.append(losses.double().cpu())
            outs.append(out.cpu())
        losses_by_row = self.ranks.gathered(by_row)
        self._kept.update(losses_by_row, self.ranks.gathered(outs), going)
        total = (losses_by_row * self.weight).sum(dim=1)
        return torch.where(torch.isfinite(total), total, torch.inf)

    def held_out(
        self, network: Network, prepared: Prepared
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The validating rows in ascending order, and for each the mean score of the members that validated
        on it: of this network, and at the epochs that other validating rows chose."""
        network.eval()
        out = self.ranks.gathered([part.cpu() for _, part in self._evaluate(network, prepared)])
        real, counts = self.weight.numpy() > 0, np.zeros(self.rows)
        np.add.at(counts, self.validation.numpy()[real], 1)
        rows = np.flatnonzero(counts)
        means = []
        for own in (out, self._kept.merged(out)):
            values = scores(own, self.task, self.mean, self.scale, self.range, self.knee)
            sums = np.zeros((self.rows, self.outputs))
            np.add.at(sums, self.validation.numpy()[real], values.reshape(*own.shape[:2], self.outputs)[real])
            mean = sums[rows] / counts[rows, None]
            means.append(mean if self.classification else mean[:, 0])
        return rows, means[0], means[1]

    def _evaluate(self, network: Network, prepared: Prepared) -> Generator[tuple[Tensor, Tensor], None, None]:
        """This process's part of the validating rows and the network's outputs for them, piece by piece."""
        per_pass = min(network.rows_per_pass, self.micro_batch or network.rows_per_pass)
        with torch.no_grad():
            for batch in torch.split(self.ranks.share(self.validation), per_pass, dim=1):
                yield batch, network(*self.inputs(prepared, batch))


def build(
    configuration: Mapping[str, Any], prepared: Prepared, rows: MemberRows, generator: torch.Generator
) -> Network:
    """The network as training begins with it, on the CPU; where its output layer
    starts at zero, at the class shares."""
    members_per_split = len(rows.train) // len(prepared.preprocessors)
    bins = None
    if isinstance(prepared, TableInputs) and configuration["numeric_embedding"] == "piecewise_linear":
        edges = np.stack([p.bins for p in prepared.preprocessors]).astype(np.float32)
        bins = torch.from_numpy(edges).repeat_interleave(members_per_split, dim=0)
    return _network_of(
        configuration,
        prepared.shape,
        rows.outputs,
        members=len(rows.train),
        generator=generator,
        bins=bins,
        prior=rows.prior(),
    )


def pass_and_optimizer(
    network: Network,
    configuration: Mapping[str, Any],
    noise: torch.Generator,
    ranks: Ranks = ALONE,
    *,
    recorded: bool = True,
) -> tuple[Callable[..., Tensor], Optimizer]:
    """A training's pass through the network, called with its inputs, and its optimizer.

    noise: on the network's device; the pass draws from it.
    recorded: on a GPU both may be recorded (``recorded.py``), since a step has a single pass.
    """
    forward = _forward_of(network, configuration, noise, ranks)
    if not recorded or noise.device.type != "cuda" or ranks.world > 1:
        return forward, Optimizer(configuration, network)
    replayed = RecordedPass(forward, network, noise, compiled=bool(configuration.get("compiled")))
    return replayed, Optimizer(configuration, network, recorded=replayed)


def _forward_of(
    network: Network, configuration: Mapping[str, Any], noise: torch.Generator, ranks: Ranks
) -> Callable[..., Tensor]:
    """The pass as the configuration wants it on a GPU; on a CPU the network as it is."""
    if noise.device.type != "cuda":
        alone = ranks.parallel(network)
        return lambda *inputs: alone(*inputs, noise)
    if configuration.get("memory_format") == "channels_last" and isinstance(network, SignalNetwork):
        network.channels_last = True
    if configuration.get("compiled") and isinstance(network, SignalNetwork):
        # else the networks of earlier trials count against the number of recompilations
        torch.compiler.reset()
        network.compiled = torch.compile(SignalNetwork.features)
    parallel: Callable[..., Tensor] = ranks.parallel(network)
    half = configuration.get("precision") == "mixed"

    def forward(*inputs: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            out = parallel(*inputs, noise)
        return out.float()

    return forward


def _network_of(
    configuration: Mapping[str, Any],
    shape: InputShape | SignalShape,
    outputs: int,
    *,
    members: int,
    generator: torch.Generator,
    bins: Tensor | None = None,
    prior: Tensor | None = None,
) -> Network:
    if isinstance(shape, SignalShape):
        plan = plan_of(configuration, shape.channels, shape.size)
        return SignalNetwork(plan, outputs, members=members, generator=generator, prior=prior)
    return TableNetwork(
        configuration, shape, outputs, members=members, generator=generator, bins=bins, prior=prior
    )


class Optimizer:
    """A torch optimizer with what it lacks: a decoupled L2 for all but Adam, a
    proximal L1, clipping member by member."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        network: Network,
        parameters: Sequence[nn.Parameter] | None = None,
        recorded: RecordedPass | None = None,
    ) -> None:
        """recorded: the pass that the gradients come from, where it is one."""
        c, name = configuration, configuration["optimizer"]
        self.parameters = list(network.parameters()) if parameters is None else list(parameters)
        chosen = {id(p) for p in self.parameters}
        self.decayed = [weight for weight in network.decayed() if id(weight) in chosen]
        self.clip, self.l1 = float(c["gradient_clip"]), float(c["l1"])
        self.decay = 0.0 if name == "adam" else float(c["weight_decay"])
        betas, momentum = (0.9, float(c["beta2"])), float(c["momentum"])
        groups = self._groups(
            network, float(c["weight_decay"]) if name == "adam" else 0.0, float(c.get("column_scale_rate", 0))
        )
        # the rate is set before every step; foreach and fused variants differ in speed alone
        make = {
            "adamw": lambda: torch.optim.AdamW(groups, betas=betas, weight_decay=0.0, fused=True),
            "adam": lambda: torch.optim.Adam(groups, betas=betas, fused=True),
            "nadam": lambda: torch.optim.NAdam(groups, betas=betas),
            "rmsprop": lambda: torch.optim.RMSprop(groups, alpha=RMS_SMOOTHING, momentum=momentum),
            "adagrad": lambda: torch.optim.Adagrad(groups),
            "adadelta": lambda: torch.optim.Adadelta(groups),
            "sgd": lambda: torch.optim.SGD(
                groups, lr=1.0, momentum=momentum, nesterov=momentum > 0, fused=True
            ),
        }
        with _without_dynamo():
            self.optimizer: torch.optim.Optimizer = make[name]()  # type: ignore[no-untyped-call]
        self._step = inspect.unwrap(type(self.optimizer).step)
        self._recorded = RecordedStep(recorded) if recorded and name in RECORDED else None

    def _groups(self, network: Network, l2: float, scale_rate: float) -> list[dict[str, Any]]:
        """Adam's classic L2, added to the gradient, on the penalized weights
        only; factors of columns learn faster."""
        penalized = {id(p) for p in self.decayed} if l2 else set()
        scales = {id(m.factor) for m in network.modules() if isinstance(m, ColumnScale)}
        of_group = [
            ({"weight_decay": l2}, [p for p in self.parameters if id(p) in penalized]),
            ({}, [p for p in self.parameters if id(p) not in penalized | scales]),
            ({"rate": scale_rate}, [p for p in self.parameters if id(p) in scales]),
        ]
        return [{"params": parameters, **settings} for settings, parameters in of_group if parameters]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, rate: float) -> None:
        """Apply the gradients that were added up since ``zero_grad``."""
        if self._recorded is None:
            self._apply(rate)
        else:
            self._recorded(self._apply, rate)

    def _apply(self, rate: float | Tensor) -> None:
        """The step itself;
        rate: a tensor where it is recorded."""
        if self.clip:
            self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate", 1.0)
            group["capturable"] = isinstance(rate, Tensor)
        with torch.no_grad():
            self._step(self.optimizer)
            if self.decay:
                # or a number
                torch._foreach_mul_([*self.decayed], 1 - rate * self.decay)  # type: ignore[arg-type]
            if self.l1:
                for weight in self.decayed:
                    weight.copy_(weight.sign() * (weight.abs() - rate * self.l1).clamp_(min=0.0))

    def _clip(self) -> None:
        """Scale each member's gradient to a norm of at most ``clip``: one norm over
        the stack would couple the members."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norms = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0).sqrt()
        factor = (self.clip / (norms + 1e-12)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Optimizers are made without loading torch._dynamo, which takes a process 1.3 s and 80 MB.

    Every method of ``torch.optim.Optimizer`` loads it when it is first called, to hide itself from
    torch.compile; we compile no optimizer. Of ``step`` we call what it wraps, in place of ``zero_grad``
    stands a line of ours, and for ``add_param_group`` we put beside the function, while we make an optimizer,
    what torch would keep there (torch/_compile.py). A torch that does all this otherwise loads it as ever.
    """
    plain = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if plain is None or hasattr(plain, "__dynamo_disable"):
        yield
        return
    setattr(plain, "__dynamo_disable", plain)
    try:
        yield
    finally:
        delattr(plain, "__dynamo_disable")


class _Best:
    """The best weights of each member so far, by validation loss (note N3), and who has stopped.

    keep_last: nobody stops, and the last weights with a finite loss are the best.
    """

    def __init__(self, network: nn.Module, members: int, patience: int, *, keep_last: bool) -> None:
        self.patience, self.keep_last = patience, keep_last
        self.losses = torch.full((members,), torch.inf, dtype=torch.float64)
        self.epochs = torch.zeros(members, dtype=torch.int64)
        self.state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def update(self, network: nn.Module, losses: Tensor, epoch: int) -> None:
        # a member that has stopped stays stopped: else it would keep training because its neighbours do
        better = torch.isfinite(losses) if self.keep_last else (losses < self.losses) & self.going(epoch)
        if not better.any():
            return
        self.losses[better], self.epochs[better] = losses[better], epoch
        now, own = list(network.state_dict().values()), list(self.state.values())
        with torch.no_grad():
            if better.all():
                torch._foreach_copy_(own, now)
                return
            which = better.nonzero().squeeze(1).to(now[0].device)
            for kept, tensor in zip(own, now, strict=True):
                kept.index_copy_(0, which, tensor.index_select(0, which))

    def going(self, epoch: int) -> Tensor:
        """Which members (members,) have not stopped before this epoch."""
        return (epoch - self.epochs <= self.patience) | self.keep_last

    def all_stopped(self, epoch: int) -> bool:
        return not self.keep_last and bool((epoch - self.epochs >= self.patience).all())
