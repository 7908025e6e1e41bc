"""What short trainings come to, with and without a change, as facts: whether it helps is for rules to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from advisor.checks.findings.case import Case, Measure, MeasuredEffect, measuring
from advisor.checks.findings.losses import chance_loss
from advisor.checks.findings.scale import scaled
from advisor.checks.findings.settings import rates_of
from advisor.checks.findings.structure import BENDING, hidden_bends
from advisor.checks.findings.trials import STEPS, ShortTraining, pick_rows
from advisor.checks.tracing import trace
from advisor.facts.module_schema import EXPERIMENTS

STILL = 0.02
"""Share of the loss that must change in 30 steps for a curve to say anything."""
FACTORS_UP, FACTORS_DOWN = (10.0, 100.0, 1e3, 1e4), (0.1, 0.01)
"""Of the learning rate, in a range test."""
LONGER = 8
"""Times the steps."""


def _plain(case: Case) -> ShortTraining | None:
    """The training as it is."""
    return case.trials.at() if case.trials is not None else None


@measuring("trials.possible", "trials.rows")
def _possible(case: Case) -> Mapping[str, Any]:
    if case.trials is None:
        return {"trials.possible": False}
    return {"trials.possible": True, "trials.rows": len(case.trials.target)}


@measuring(
    *("trials.start", "trials.loss", "trials.peak", "trials.steps", "trials.runs_away", "trials.gone"),
    "trials.over_constant",
)
def _as_it_is(case: Case) -> Mapping[str, Any]:
    here = _plain(case)
    if here is None or not here.losses or not math.isfinite(here.losses[0]):
        return {}
    start, call = here.losses[0], case.passed.loss_call
    assert case.trials is not None
    constant = None if call is None else chance_loss(call, case.trials.target)
    return {
        "trials.start": start,
        "trials.loss": here.last,
        "trials.peak": max(here.losses),
        "trials.steps": len(here.losses) - 1,
        "trials.runs_away": not math.isfinite(here.last),
        "trials.gone": (start - here.last) / start if start > 0 else 1.0,
        "trials.over_constant": here.last / constant if constant else None,
    }


# Each experiment is one training of a copy; its curve is asked for again by the finding that shows it, which
# ``Trials`` keeps by the experiment's name.


def _scaled_inputs(case: Case) -> ShortTraining | None:
    assert case.trials is not None
    standard = (scaled(case.trials.inputs[0]), *case.trials.inputs[1:])
    return case.trials.run(inputs=standard)


def _scaled_target(case: Case) -> ShortTraining | None:
    assert case.trials is not None
    return case.trials.run(target=_standard_target(case))


def _standard_target(case: Case) -> torch.Tensor:
    """The target of the trials, of mean 0 and deviation 1 over the batch."""
    assert case.trials is not None and case.target is not None
    mean = case.target.mean(dim=0)
    return (case.trials.target - mean) / case.target.std(dim=0, correction=0).clamp(min=1e-12)


def _straightened(case: Case) -> ShortTraining | None:
    assert case.trials is not None
    modules = {name for name, part in case.module.named_modules() if type(part) in BENDING}
    names = {step.module for step in hidden_bends(case)} & modules
    if not names:
        return None

    def straighten(module: nn.Module) -> None:
        for name in names:
            parent = module.get_submodule(name.rpartition(".")[0]) if "." in name else module
            setattr(parent, name.rpartition(".")[2], nn.ReLU())

    return case.trials.run(changed=straighten)


def _no_dropout(case: Case) -> ShortTraining | None:
    def switch_off(module: nn.Module) -> None:
        for part in module.modules():
            if isinstance(part, nn.modules.dropout._DropoutNd):
                part.p = 0.0

    assert case.trials is not None
    return case.trials.run(changed=switch_off)


def _no_decay(case: Case) -> ShortTraining | None:
    assert case.trials is not None
    return case.trials.at(decay=0.0)


def _lower_rate(case: Case) -> ShortTraining | None:
    return _lower(case)[1]


def _higher_rate(case: Case) -> ShortTraining | None:
    found = _higher(case)
    return None if found is None else found[1]


def _longer(case: Case) -> ShortTraining | None:
    return _held_out(case, LONGER)[0]


RUNS: Mapping[str, Callable[[Case], ShortTraining | None]] = {
    "scaled_inputs": _scaled_inputs,
    "scaled_target": _scaled_target,
    "straightened": _straightened,
    "no_dropout": _no_dropout,
    "no_decay": _no_decay,
    "lower_rate": _lower_rate,
    "higher_rate": _higher_rate,
    "longer": _longer,
}


def made(case: Case, name: str) -> ShortTraining | None:
    """The training of an experiment; made once. None without targets or time, or where it raised."""
    if case.trials is None or (name in ("lower_rate", "higher_rate") and case.optimizer is None):
        return None
    return case.trials.once(name, lambda: RUNS[name](case))


def curves_of(case: Case, name: str) -> MeasuredEffect | None:
    """Both curves of an experiment, for its finding."""
    changed = made(case, name)
    without = _held_out(case, 1)[0] if name == "longer" else _plain(case)
    if without is None or changed is None:
        return None
    label = EXPERIMENTS[name]
    if name in ("lower_rate", "higher_rate"):
        label = f"at {_rate_of(case, name)}"
    return MeasuredEffect(label, without.losses, changed.losses)


def _rate_of(case: Case, name: str) -> str:
    factor = _lower(case)[0] if name == "lower_rate" else (_higher(case) or (1.0,))[0]
    return rates_of(case, factor)


def _ends_at(name: str) -> Measure:
    """The loss at the end of an experiment."""

    def run(case: Case) -> Mapping[str, Any]:
        changed = made(case, name)
        return {} if changed is None else {f"{name}.loss": changed.last}

    return Measure((f"{name}.loss",), run)


@measuring("scaled_inputs.tried", "scaled_inputs.loss", "scaled_inputs.still")
def _inputs(case: Case) -> Mapping[str, Any]:
    changed = made(case, "scaled_inputs")
    if changed is None:
        return {"scaled_inputs.tried": False}
    curves = [run.losses for run in (_plain(case), changed) if run is not None and run.losses]
    still = all(math.isfinite(c[-1]) and abs(c[-1] - c[0]) < STILL * abs(c[0]) for c in curves)
    return {"scaled_inputs.tried": True, "scaled_inputs.loss": changed.last, "scaled_inputs.still": still}


@measuring("scaled_target.over_constant")
def _target(case: Case) -> Mapping[str, Any]:
    call, target = case.passed.loss_call, case.target
    if case.trials is None or call is None or target is None or not target.is_floating_point():
        return {}
    constant = chance_loss(call, _standard_target(case))
    changed = made(case, "scaled_target") if constant else None
    return {"scaled_target.over_constant": changed.last / constant} if changed and constant else {}


# ----------------------------------------------------------------------------------------- learning rate


def _lower(case: Case) -> tuple[float, ShortTraining | None]:
    """A tenth or a hundredth of the rate, whichever ends lower."""
    assert case.trials is not None
    found = [(factor, run) for factor in FACTORS_DOWN if (run := case.trials.at(factor)) is not None]
    return min(found, key=lambda pair: pair[1].last, default=(FACTORS_DOWN[-1], None))


def _higher(case: Case) -> tuple[float, ShortTraining, float] | None:
    """The lowest of some higher rates that takes at least half as much of the loss away as the best of them;
    the most that any takes away."""
    here = _plain(case)
    if here is None or case.trials is None or not here.losses or here.losses[0] <= 0:
        return None
    start, gone = here.losses[0], list[tuple[float, ShortTraining, float]]()
    for factor in FACTORS_UP:
        run = case.trials.at(factor)
        if run is not None and math.isfinite(run.last):
            gone.append((factor, run, (start - run.last) / start))
    if not gone:
        return None
    most = max(share for _, _, share in gone)
    factor, run, _ = next((one for one in gone if one[2] >= most / 2), gone[0])
    return factor, run, most


@measuring("lower_rate.loss", "lower_rate.peak", "lower_rate.rate")
def _at_lower(case: Case) -> Mapping[str, Any]:
    if case.trials is None or case.optimizer is None:
        return {}
    factor, run = _lower(case)
    found: dict[str, Any] = {"lower_rate.rate": rates_of(case, factor)}
    if run is not None and run.losses:
        found |= {"lower_rate.loss": run.last, "lower_rate.peak": max(run.losses)}
    return found


@measuring("higher_rate.best_gone", "higher_rate.gone", "higher_rate.rate")
def _at_higher(case: Case) -> Mapping[str, Any]:
    found = _higher(case) if case.optimizer is not None else None
    if found is None:
        return {}
    factor, run, most = found
    start = run.losses[0]
    return {
        "higher_rate.best_gone": most,
        "higher_rate.gone": (start - run.last) / start,
        "higher_rate.rate": rates_of(case, factor),
    }


@measuring("later.loss")
def _later(case: Case) -> Mapping[str, Any]:
    """A plateau at the start may be over soon."""
    if case.trials is None:
        return {}
    most = LONGER * STEPS
    run = case.trials.run(steps=min(case.steps or most, most))
    return {} if run is None else {"later.loss": run.last}


@measuring("died.increase", "died.share", "died.before", "died.layer", "died.after")
def _dying(case: Case) -> Mapping[str, Any]:
    """N5: units that live at the start and are dead after some steps."""
    short = _plain(case)
    if short is None or not math.isfinite(short.last):
        return {}
    before = {s.module: s.dead or 0.0 for s in case.passed.watched()}
    try:
        after = trace(short.module, *case.inputs, training=case.training)
    except (RuntimeError, ValueError):  # a module that takes one pass only
        return {}
    increase = {s.module: (s.dead or 0.0) - before.get(s.module, 1.0) for s in after.watched()}
    if not increase:
        return {"died.increase": 0.0}
    worst = max(increase, key=lambda name: increase[name])
    return {
        "died.increase": increase[worst],
        "died.share": increase[worst] + before.get(worst, 1.0),
        "died.before": before.get(worst),
        "died.layer": [worst],
        "died.after": len(short.losses) - 1,
    }


# ----------------------------------------------------------------------------------------- steps


@measuring("longer.held_out", "longer.held_out_planned", "longer.steps")
def _steps(case: Case) -> Mapping[str, Any]:
    """N26: the loss of held-out rows where training ends, and after some times the steps."""
    if case.trials is None or case.steps is None:
        return {}
    planned, longer = _held_out(case, 1), _held_out(case, LONGER)
    return {
        "longer.held_out_planned": planned[1],
        "longer.held_out": longer[1],
        "longer.steps": LONGER * case.steps,
    }


def _held_out(case: Case, times: int) -> tuple[ShortTraining | None, float | None]:
    """A training on two rows of three for some times the planned steps, and the loss of the third."""
    trials = case.trials
    if trials is None or case.steps is None:
        return None, None
    size = len(trials.target)
    cut = 2 * size // 3
    first, last = torch.arange(cut), torch.arange(cut, size)
    steps = times * case.steps
    run = trials.once(
        f"{steps} steps on {cut} rows",
        lambda: trials.run(
            steps=steps,
            inputs=tuple(pick_rows(i, first, size) for i in trials.inputs),
            target=trials.target[:cut],
        ),
    )
    if run is None:
        return None, None
    held = tuple(pick_rows(i, last, size) for i in trials.inputs)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            return run, float(trials.loss(run.module(*held), trials.target[cut:]))
        except (RuntimeError, ValueError):  # a loss that takes only batches of the training's size
            return run, None


MEASURES: tuple[Measure, ...] = (
    *(_possible, _as_it_is, _inputs, _target, _at_lower, _at_higher, _later, _dying, _steps),
    *(_ends_at("straightened"), _ends_at("no_dropout"), _ends_at("no_decay")),
)
