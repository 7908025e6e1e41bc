"""One configuration on some splits: losses epoch by epoch, then the fitted
stack. The loop stands whole in ``train_epochs``.

Nothing here assumes that it owns the process: configuration, data, seed and device are arguments, no global
random generator is read or seeded, and no thread count is set.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advisor.dataset import Dataset, Features, Signals
from advisor.networks.network import Network
from advisor.splits import Split
from advisor.tasks import Task
from advisor.training.batches import MemberRows
from advisor.training.data_parallel import ALONE, Ranks
from advisor.training.modalities import Prepared, Shape, Statistics, inputs_of, prepare
from advisor.training.optimizer import Optimizer, learning_rate, pass_and_optimizer
from advisor.training.targets import TARGETS, TargetScale

HEAD_SHARE = 0.1
"""Share of the epochs in which classifier_retraining trains the head alone; about that
of Kang et al. 2020 (10 beside 90)."""


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
        best epoch. A loaded model has none of these.
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

    def predict(self, features: Features | Signals, device: str = "cpu") -> NDArray[np.float64]:
        """Mean over the members: class probabilities (rows, classes), or
        predictions (rows,) in the target's unit; of masks probabilities (rows, classes, height, width), of
        boxes those that were found (rows, MOST_FOUND, 6)."""
        network = self.network(device)
        pieces = [np.zeros(self.task.score_shape(0, self.outputs))] if not len(features) else []
        per_pass, decode = network.rows_per_pass, TARGETS[self.task.target].scores
        inputs_type = inputs_of(features.kind, self.configuration)
        split = torch.tensor(self.member_split)
        for start in range(0, len(features), per_pass):
            part = features.part(slice(start, start + per_pass))
            everyone = torch.arange(len(part)).expand(len(split), -1)
            new_rows = inputs_type.of_new_rows(self.preprocessors, self.shape, part, device)
            inputs = new_rows.inputs(everyone, split)
            with torch.no_grad():
                out = network(*inputs)
            pieces.append(self.task.averaged(decode(out, self.target_scaling)))
        return np.concatenate(pieces)

    def network(self, device: str) -> Network:
        """The trained stack of networks, in evaluation mode."""
        network = self.shape.network(
            self.configuration,
            self.outputs,
            members=len(self.member_split),
            generator=torch.Generator(),
            bins=self.shape.saved_bins(self.state),
        )
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
    return prepared.shape.network(
        configuration,
        rows.outputs,
        members=members,
        generator=generator,
        bins=prepared.bins(configuration, members // len(prepared.preprocessors)),
        prior=rows.learnt.prior(),
    )


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
