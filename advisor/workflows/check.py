"""``advisor check``: the pre-flight of a recommendation, or the inspection of a user's own network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from advisor.checks.findings.case import first_tensor
from advisor.checks.inspection import Inspection, inspect, load_module, load_own, random_input
from advisor.checks.preflight import preflight
from advisor.checks.preflight_result import Preflight
from advisor.checks.repairing import RepairProposal, repair
from advisor.checks.subject import Subject
from advisor.checks.tracing import left_as_it_was
from advisor.errors import UserError, did_you_mean
from advisor.files import write_json
from advisor.objectives.networks import splits_of
from advisor.runs.advice import Advice
from advisor.runs.folder import RunFolder
from advisor.runs.remote import local_copy, mirrored
from advisor.runs.starting import start_of
from advisor.tasks import UNLABELLED
from advisor.workflows.open_run import is_run, open_run, write_advice
from advisor.workflows.recommend import get_advice, reading_of


def advice_for(
    data: str, target: str | None, out: str | None, options: Mapping[str, Any]
) -> tuple[Advice, RunFolder | None]:
    """The advice for some data, or that of a run; a run folder is made only where ``out`` asks for one."""
    data = str(local_copy(data))
    if out is None and not is_run(data):
        return get_advice(data, target, reading_of(options)), None
    advice, run = open_run(data, target, out, options)
    if out is None:
        return advice, None
    with run.in_use(), mirrored(run):
        write_advice(run, advice)
    return advice, run


def check_recommendation(
    data: str, target: str | None, out: str | None, options: Mapping[str, Any], *, seconds: float
) -> Preflight:
    """``preflight`` of the recommendation for some data, or of a run's; kept in the
    run folder where ``out`` names one."""
    advice, run = advice_for(data, target, out, options)
    result = preflight(advice, seconds=seconds, start=start_of(advice))
    if run is not None:
        with run.in_use(), mirrored(run):
            write_json(run.preflight, result.to_dict())
    return result


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "cross-entropy": nn.CrossEntropyLoss,
    "bce": nn.BCELoss,
    "bce-with-logits": nn.BCEWithLogitsLoss,
    "nll": nn.NLLLoss,
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "huber": nn.HuberLoss,
}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad),
        *(torch.optim.Adadelta, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax),
    )
}
USUAL_BATCH, USUAL_EPOCHS = 32, 20
SHOWN_ROWS, REPAIR_ROWS = 128, 2_000
"""Rows that an inspection is given at least: with fewer its short trainings are noise."""


@dataclass(frozen=True)
class TrainingPlan:
    """How a user's own network is trained, as the command line says it.

    loss, optimizer: a name of ``LOSSES`` or ``OPTIMIZERS``, or package.module:name. None is "not said".
    """

    loss: str | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                least = "above 0" if name == "learning_rate" else "at least 1"
                raise UserError(f"--{name.replace('_', '-')} must be {least}, not {value:g}")
        if self.learning_rate is not None and self.optimizer is None:
            raise UserError("--learning-rate needs --optimizer")

    def made_loss(self) -> Callable[..., Tensor] | None:
        """UserError for a name that is none."""
        if self.loss is None:
            return None
        if ":" in self.loss:
            made: Any = load_own(self.loss, "--loss", "or loss of output and target")
            made = made() if isinstance(made, type) else made
            if not callable(made):
                raise UserError(f"--loss {self.loss} is not a function of output and target")
            return made  # type: ignore[no-any-return]
        if self.loss not in LOSSES:
            raise UserError(
                f"--loss {self.loss} is not one of {', '.join(LOSSES)}{did_you_mean(self.loss, LOSSES)}"
            )
        return LOSSES[self.loss]()

    def made_optimizer(self, module: nn.Module) -> torch.optim.Optimizer | None:
        """Over the module's parameters. UserError for a name that is none."""
        if self.optimizer is None:
            return None
        if ":" in self.optimizer:
            made: Any = load_own(self.optimizer, "--optimizer", "a function of the module")(module)
            if not isinstance(made, torch.optim.Optimizer):
                raise UserError(
                    f"--optimizer {self.optimizer} made a {type(made).__name__}: expected an Optimizer"
                )
            return made
        if self.optimizer not in OPTIMIZERS:
            raise UserError(
                f"--optimizer {self.optimizer} is not one of {', '.join(OPTIMIZERS)}"
                f"{did_you_mean(self.optimizer, OPTIMIZERS)}"
            )
        rate = {} if self.learning_rate is None else {"lr": self.learning_rate}
        kind: Any = OPTIMIZERS[self.optimizer]
        optimizer: torch.optim.Optimizer = kind(module.parameters(), **rate)
        return optimizer


def check_module(
    factory: str,
    data: str | None,
    input_shape: str | None,
    training: TrainingPlan,
    target: str | None,
    out: str | None,
    options: Mapping[str, Any],
) -> Inspection:
    """``inspect`` of a user's own network, on a batch of data or on random numbers of a shape."""
    if (data is None) == (input_shape is None):
        raise UserError("--module needs a batch: give either DATA or --input-shape")
    module = load_module(factory)
    if data is not None:
        advice = advice_for(data, target, out, options)[0]
        return inspect_for(module, advice, training, **_rules_of(options))
    if training.loss is not None:
        raise UserError("--loss needs targets: give DATA instead of --input-shape")
    batch = random_input(str(input_shape), training.batch_size or USUAL_BATCH)
    optimizer = training.made_optimizer(module)
    return inspect(module, batch, optimizer=optimizer, epochs=training.epochs, **_rules_of(options))


class _Rules(TypedDict):
    """Rules of a team's own, and shipped ones that it leaves out."""

    rules: Sequence[str]
    without: Sequence[str]


def _rules_of(options: Mapping[str, Any]) -> _Rules:
    return _Rules(rules=options.get("rules") or (), without=options.get("without") or ())


def repair_module(
    factory: str,
    data: str,
    plan: TrainingPlan,
    target: str | None,
    out: str | None,
    options: Mapping[str, Any],
) -> RepairProposal:
    """``repair`` of a user's own network on training rows of some data, prepared as for ``inspect_for``."""
    if plan.loss is None or plan.optimizer is None:
        raise UserError("repair needs --loss and --optimizer, to know how the network is trained now")
    module = load_module(factory)
    rows = _like_output(module, own_rows(advice_for(data, target, out, options)[0], plan, REPAIR_ROWS))
    loss, optimizer = plan.made_loss(), plan.made_optimizer(module)
    assert loss is not None and optimizer is not None
    return repair(
        module,
        rows.inputs,
        rows.target,
        loss=loss,
        optimizer=optimizer,
        epochs=plan.epochs or USUAL_EPOCHS,
        batch_size=rows.batch_size,
        **_rules_of(options),
    )


@dataclass(frozen=True)
class OwnRows:
    """Rows for a user's own network: inputs (rows, ...), target, the batch size, and rows in all."""

    inputs: Tensor
    target: Tensor
    batch_size: int
    count: int


def inspect_for(
    module: nn.Module,
    advice: Advice,
    training: TrainingPlan | None = None,
    *,
    rules: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Inspection:
    """``inspect`` on a batch of a data set's training rows, prepared as recommended.

    The module gets numbers alone: images or series (rows, channels, *size) scaled, a table (rows, columns)
    with categories one-hot. rules, without: as for ``inspect``. UserError when it does not take them.
    """
    training = training or TrainingPlan()
    found = _like_output(module, own_rows(advice, training, SHOWN_ROWS))
    return inspect(
        module,
        found.inputs,
        found.target,
        loss=training.made_loss(),
        optimizer=training.made_optimizer(module),
        epochs=training.epochs,
        rows=found.count,
        batch_size=found.batch_size,
        field_needed=advice.facts.values.get("receptive.needed"),
        rules=rules,
        without=without,
    )


def _like_output(module: nn.Module, rows: OwnRows) -> OwnRows:
    """The target without its column where the module returns a number per row and no column."""
    if rows.target.dim() != 2 or rows.target.shape[1] != 1:
        return rows
    try:
        with left_as_it_was(module, training=False), torch.no_grad():
            out = first_tensor(module(rows.inputs[:2]))
    except Exception:  # noqa: BLE001  # a user's own code may raise anything: the inspection tells it
        return rows
    return replace(rows, target=rows.target.squeeze(1)) if out is not None and out.dim() == 1 else rows


def own_rows(advice: Advice, plan: TrainingPlan, least: int) -> OwnRows:
    """Training rows as a user's own network takes them; at least as many as asked for, where there are."""
    # ten thousand levels at most: a column of more is no category
    plain = dict(advice.recommendation.configuration) | {"one_hot_max": 10_000, "numeric_embedding": "none"}
    data, seed = advice.training_rows(), advice.reading.seed
    subject = Subject.of(plain, data, splits_of(plain, data, seed, 0)[0], seed=seed)
    batch = plan.batch_size or int(plain["batch_size"])
    chosen = subject.first_rows()[:, : max(batch, least)]
    target = subject.target[chosen[0]]
    if target.dim() > 1:  # masks: what torch's losses skip by default
        target = torch.where(target == UNLABELLED, -100, target.long())
    elif not data.classes:
        target = target.unsqueeze(1)
    elif plan.loss is not None and plan.loss.startswith("bce"):
        target = target.float().unsqueeze(1)
    inputs = torch.cat([part for part in subject.inputs(chosen) if part.is_floating_point()], dim=2)[0]
    return OwnRows(inputs, target, batch, len(data))
