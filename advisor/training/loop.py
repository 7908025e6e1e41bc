"""One configuration on some splits: losses epoch by epoch, then the fitted
stack. The loop stands whole in ``train_epochs``.

Nothing here assumes that it owns the process: configuration, data, seed and device are arguments, no global
random generator is read or seeded, and no thread count is set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advisor.dataset import Dataset, Features, Signals
from advisor.networks.cosine import INNER, CosineNetwork, is_cosine
from advisor.networks.network import Network
from advisor.networks.pretrained.start import Start
from advisor.splits import Split
from advisor.tasks import Task
from advisor.training.batches import MemberRows
from advisor.training.class_balance import TEACHER, Lesson, student_of
from advisor.training.data_parallel import ALONE, Ranks
from advisor.training.modalities import Prepared, Shape, Statistics, inputs_of, prepare
from advisor.training.optimizer import Optimizer, learning_rate, pass_and_optimizer
from advisor.training.targets import TARGETS, TargetScale

HEAD_SHARE = 0.1
"""Share of the epochs in which classifier_retraining trains the head alone; about that
of Kang et al. 2020 (10 beside 90)."""
STUDENT_SEED = 1 << 40
"""Added to a training's seed for a student, so that it does not begin as its teacher did."""


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
class Fitted:
    """A trained stack: the weights of each member at its own best epoch.

    validation_losses: each member's loss at that epoch.
    held_out_rows, held_out: the rows that validated, and for each the mean over the members that did not
        train on it: class probabilities (rows, classes), or predictions (rows,).
    cross_fitted: the same, but each member at the epoch that other validating rows chose (``HeldOut``).
    phases: for how many epochs the whole of each member, and then its head alone, had been trained at its
        best epoch; of a student, it and its teacher. A loaded model has none of these.
    similarity: (rows,), of the same rows to the class that each resembles most, where a cosine classifier
        tells it: the mean cosine of those members. recall_at_1: in what share of the validating rows the
        training row with the nearest embedding has the same class.
    target_knee: see ``squeezed``; target_mean and target_scale are those of the
        squeezed target, target_range of the plain.
    """

    configuration: Mapping[str, Any]
    task: Task
    outputs: int
    shape: Shape
    preprocessors: tuple[Statistics, ...]
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
    similarity: NDArray[np.float64] | None = None
    recall_at_1: float | None = None

    def predict(self, features: Features | Signals, device: str = "cpu") -> NDArray[np.float64]:
        """Mean over the members: class probabilities (rows, classes), or
        predictions (rows,) in the target's unit; of masks probabilities (rows, classes, height, width), of
        boxes those that were found (rows, MOST_FOUND, 6)."""
        network = self.network(device)
        decode = TARGETS[self.task.target].scores
        pieces = [
            self.task.averaged(decode(network(*inputs), self.target_scaling))
            for inputs in self._passes(network, features, device)
        ]
        return np.concatenate(pieces or [np.zeros(self.task.score_shape(0, self.outputs))])

    def similarities(self, features: Features | Signals, device: str = "cpu") -> NDArray[np.float64]:
        """Of a cosine classifier: each row's cosine with the class that it resembles most, the mean over the
        members, (rows,)."""
        network = self._cosine(device)
        pieces = [
            network.cosines(network(*inputs)).amax(dim=2).mean(dim=0).double().cpu().numpy()
            for inputs in self._passes(network, features, device)
        ]
        return np.concatenate(pieces or [np.zeros(0)])

    def embeddings(self, features: Features | Signals, device: str = "cpu") -> Tensor:
        """Of a cosine classifier: of unit length, (members, rows, embedding), on the CPU."""
        network = self._cosine(device)
        pieces = [network.embed(*inputs).cpu() for inputs in self._passes(network, features, device)]
        return torch.cat(pieces, dim=1)

    def _cosine(self, device: str) -> CosineNetwork:
        network = self.network(device)
        if not isinstance(network, CosineNetwork):
            raise ValueError("only a cosine classifier has embeddings")
        return network

    def _passes(
        self, network: Network, features: Features | Signals, device: str
    ) -> Generator[list[Tensor], None, None]:
        """The inputs of the network for new rows, piece by piece, without gradients."""
        inputs_type = inputs_of(features.kind, self.configuration)
        split = torch.tensor(self.member_split)
        for start in range(0, len(features), network.rows_per_pass):
            part = features.part(slice(start, start + network.rows_per_pass))
            everyone = torch.arange(len(part)).expand(len(split), -1)
            new_rows = inputs_type.of_new_rows(self.preprocessors, self.shape, part, device)
            with torch.no_grad():
                yield new_rows.inputs(everyone, split)

    def network(self, device: str) -> Network:
        """The trained stack of networks, in evaluation mode."""
        bins = self.shape.saved_bins({name.removeprefix(INNER): own for name, own in self.state.items()})
        members, generator = len(self.member_split), torch.Generator()
        network = network_of(self.shape, self.configuration, self.outputs, members, generator, bins)
        network.load_state_dict(dict(self.state))
        return network.to(device).eval()

    @property
    def target_scaling(self) -> TargetScale:
        """What the members' outputs are turned back by."""
        return TargetScale(self.target_mean, self.target_scale, self.target_range, self.target_knee)


def train_epochs(
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
    start: Start | None = None,
) -> Generator[Epoch, None, Fitted]:
    """Train ``members`` networks per split, all at once; yields after every epoch, returns the fitted stack.

    prepared: the result of ``prepare`` for the same data, splits and input
        parameters, when the caller keeps it.
    micro_batch: rows of a step that are in memory at once; their gradients are added up, so the batch stays
        what it is. (Batch normalization then sees the micro-batch, and chance draws in another order.) None
        is the whole batch. A member whose validation loss has not improved for ``patience`` epochs has
        stopped; training ends with the last one.
    until: instead of that, so many epochs of the plan, and so many of the head alone, or of a teacher, where
        the plan has them (see ``Fitted.phases``), and the last weights are kept: the validating rows then
        choose nothing, and may be training rows (``splits.everything``).
    start: the weights that training begins with; None draws them.
    used: the share of the time for this training that is gone. From 1 on it ends with the step
        under way, and each member keeps its best epoch, of which the last may be a part of
        one; the schedule is never behind it.
    ranks: the processes that share the batches; each calls this with the same arguments and returns the
        same stack. UserError when there are more of them than a batch has rows. (Batch normalization
        sees a process's part of the batch.)
    """
    c = configuration
    prepared = prepared or prepare(c, data, splits, device, start)
    member_split = [s for s in range(len(splits)) for _ in range(members)]
    generator = torch.Generator().manual_seed(seed)
    noise_seed = int(torch.randint(2**62, (), generator=generator)) + ranks.rank
    noise = torch.Generator(device).manual_seed(noise_seed)
    rows = MemberRows(c, data, splits, member_split, device, micro_batch, ranks)
    if rows.balance is not None and rows.balance.kind == TEACHER:
        # Fitted keeps the student's own width, so that a network of this shape can be built again
        c, whole_time = student_of(c), used
        teacher = train_epochs(
            {**configuration, "class_balance": "none"},
            data,
            splits,
            seed=seed,
            members=members,
            device=device,
            prepared=prepared,
            micro_batch=micro_batch,
            until=None if until is None else (max(1, until[1]), 0),
            used=lambda: min(1.0, 2 * whole_time()),
            ranks=ranks,
            start=start,
        )
        rows.lesson = _lesson(teacher, rows, prepared)
        generator = torch.Generator().manual_seed(seed + STUDENT_SEED)
        used = _second_half(whole_time)
    rows.find_neighbours(prepared)
    network = build(c, prepared, rows, generator)
    network = begin_with(start, network, prepared, data, member_split).to(device)
    forward, optimizer = pass_and_optimizer(network, c, noise, ranks, recorded=micro_batch is None)
    best = _Best(network, len(member_split), int(c["patience"]), keep_last=until is not None)

    steps = rows.steps(int(c["batch_size"]))
    # Batches are drawn alike by all processes; what is drawn for a process's own rows must not come between.
    changes = generator if ranks.world == 1 else torch.Generator().manual_seed(noise_seed)
    decoupled = rows.balance is not None and rows.balance.kind == "classifier_retraining"
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
                inputs, change = rows.training_inputs(prepared, part, changes)
                out = forward(*inputs)
                loss = share * rows.loss(out, part, change, label_smoothing=float(c["label_smoothing"]))
                loss.sum().backward()  # type: ignore[no-untyped-call]  # a sum: members' gradients don't mix
                train_loss += (loss.detach() * rows.learnt.unit).mean()
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
    of_heads = (best.epochs - epoch).clamp(min=0).tolist()
    return Fitted(
        configuration=dict(c),
        task=data.task,
        outputs=rows.outputs,
        shape=prepared.shape,
        preprocessors=prepared.preprocessors,
        member_split=tuple(member_split),
        state={name: tensor.cpu() for name, tensor in best.state.items()},
        target_mean=rows.learnt.scale.mean,
        target_scale=rows.learnt.scale.scale,
        target_range=rows.learnt.scale.range,
        target_knee=rows.learnt.scale.knee,
        best_epochs=tuple(best.epochs.tolist()),
        phases=tuple(zip(of_whole, rows.lesson.epochs if rows.lesson else of_heads, strict=True)),
        validation_losses=tuple(best.losses.tolist()),
        held_out_rows=held_out_rows,
        held_out=held_out,
        cross_fitted=cross_fitted,
        similarity=rows.similarity(network, prepared),
        recall_at_1=None if until else rows.recall_at_1(network, prepared),
    )


def _lesson(teacher: Generator[Epoch, None, Fitted], rows: MemberRows, prepared: Prepared) -> Lesson:
    """What the networks of each split say together, once they are trained. A network of another split has
    trained on rows that validate this one's student, so it teaches nothing here.

    Their epochs are not reported: a curve is the student's.
    """
    while True:
        try:
            next(teacher)
        except StopIteration as end:
            fitted: Fitted = end.value
            break
    splits, device = len(fitted.preprocessors), rows.device
    members = len(fitted.member_split) // splits
    network = fitted.network(device)
    said = []
    with torch.no_grad():
        for part in torch.split(torch.arange(rows.rows), network.rows_per_pass):
            out = network(*rows.inputs(prepared, part.expand(len(fitted.member_split), -1))).float()
            logs = out.log_softmax(dim=2).unflatten(0, (splits, members))
            said.append(logs.logsumexp(dim=1) - math.log(members))
    counts = rows.learnt.counts
    assert counts is not None
    logs = torch.cat(said, dim=1)
    return Lesson(logs, rows.train[::members], rows.member_split, counts[::members], fitted.best_epochs)


def _second_half(used: Callable[[], float]) -> Callable[[], float]:
    """The share of the second half of the time that is gone."""
    return lambda: max(0.0, 2 * used() - 1)


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
    rows.learnt.balance = rows.balance.of_the_head()
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


def build(
    configuration: Mapping[str, Any], prepared: Prepared, rows: MemberRows, generator: torch.Generator
) -> Network:
    """The network as training begins with it, on the CPU; where its output layer
    starts at zero, at the class shares."""
    members = len(rows.train)
    bins, prior = prepared.bins(configuration, members // len(prepared.preprocessors)), rows.learnt.prior()
    return network_of(prepared.shape, configuration, rows.outputs, members, generator, bins, prior)


def network_of(
    shape: Shape,
    configuration: Mapping[str, Any],
    outputs: int,
    members: int,
    generator: torch.Generator,
    bins: Tensor | None = None,
    prior: Tensor | None = None,
) -> Network:
    """The network that a configuration means for inputs of this shape, with its classifier."""
    if not is_cosine(configuration):
        return shape.network(
            configuration, outputs, members=members, generator=generator, bins=bins, prior=prior
        )
    dim = int(configuration["embedding_dim"])
    inner = shape.network(configuration, dim, members=members, generator=generator, bins=bins)
    return CosineNetwork(configuration, inner, outputs, members=members, generator=generator)


def begin_with(
    start: Start | None, network: Network, prepared: Prepared, data: Dataset, member_split: Sequence[int]
) -> Network:
    """A network on the CPU with the weights that training begins with; without any, as it was drawn."""
    if start is not None:
        network.begin_with(start, [prepared.labels(data.features, split) for split in member_split])
    return network


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
