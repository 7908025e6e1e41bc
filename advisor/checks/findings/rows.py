"""Rows and how they go through: mixed rows, unknown weights, randomness in use, targets that tell nothing,
loaders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from advisor.checks.findings.case import Case, Measure, by, count_distinct, first_tensor, measuring
from advisor.checks.findings.trials import pick_rows
from advisor.checks.gradients import module_gradients
from advisor.checks.tracing import left_as_it_was, trace

GUESS_STEPS = 60
"""Of the network, before it guesses; four times as many the second time."""
SHUFFLES = 20
"""Of the target, for what chance would have."""
CLOSE_ENOUGH = 1e-5
"""Difference of two numbers that come from the same row: other rows change the order of sums."""
PLACES = 200
"""Rows from all over a data set that are looked at for their order."""


@measuring("rows.mixed")
def _mixing(case: Case) -> Mapping[str, Any]:
    """Whether in evaluation mode the output of one row depends on another: a view gone wrong."""
    x = case.inputs[0]
    if not x.is_floating_point():
        return _mixing_of_codes(case)
    if len(x) < 2 or not torch.isfinite(x).all():
        return {}
    watched = x.detach().clone().requires_grad_()
    with left_as_it_was(case.module, training=False), torch.enable_grad():
        out = first_tensor(case.module(watched, *case.inputs[1:]))
        if out is None or not out.dim() or len(out) != len(x) or not out.requires_grad:
            return {}
        weights = torch.randn(out[0].shape, generator=torch.Generator().manual_seed(0)).to(out)
        # the first and the last: a recurrence along the rows knows only those before
        ends = [(out[0] * weights).sum(), (out[-1] * weights).sum()]
        before, after = (
            torch.autograd.grad(end, watched, retain_graph=True, allow_unused=True)[0] for end in ends
        )
    mixed = (before is not None and before[1:].any()) or (after is not None and after[:-1].any())
    return {"rows.mixed": bool(mixed)}


def _mixing_of_codes(case: Case) -> Mapping[str, Any]:
    """Codes have no gradient: the first and the last row are looked at while all others change places."""
    x = case.inputs[0]
    if len(x) < 3:
        return {}

    def ends(codes: Tensor) -> list[Tensor] | None:
        out = first_tensor(case.module(codes, *case.inputs[1:]))
        return [out[0], out[-1]] if out is not None and out.dim() and len(out) == len(x) else None

    with left_as_it_was(case.module, training=False), torch.no_grad():
        kept, again = ends(x), ends(x)
        first, last = ends(torch.cat([x[:1], x[1:].flip(0)])), ends(torch.cat([x[:-1].flip(0), x[-1:]]))
    if kept is None or again is None or first is None or last is None:
        return {}
    if not all(map(torch.equal, kept, again)):
        return {}  # it is random
    same = torch.allclose(kept[0], first[0], atol=CLOSE_ENOUGH) and torch.allclose(
        kept[1], last[1], atol=CLOSE_ENOUGH
    )
    return {"rows.mixed": not same}


@measuring(
    *("derivatives.wrong", "derivatives.wrong_names", "derivatives.unchecked"),
    *("derivatives.unchecked_names", "derivatives.reason"),
)
def _derivatives(case: Case) -> Mapping[str, Any]:
    """N7: gradients of what is written by hand."""
    if not torch.isfinite(case.inputs[0].float()).all():
        return {}
    problems = module_gradients(case.module, *case.inputs)
    told = {name or type(case.module).__name__: text for name, text in problems.items() if text is not None}
    unchecked = {name: text for name, text in told.items() if text.startswith("cannot be")}
    wrong = [name for name in told if name not in unchecked]
    return {
        "derivatives.wrong": len(wrong),
        "derivatives.wrong_names": wrong,
        "derivatives.unchecked": len(unchecked),
        "derivatives.unchecked_names": list(unchecked),
        "derivatives.reason": next(iter(unchecked.values()), ""),
    }


@measuring(
    *("strangers.learning", "strangers.fresh", "strangers.fixed", "strangers.shapes", "strangers.names"),
)
def _registration(case: Case) -> Mapping[str, Any]:
    """Weights that the module does not know, so that nothing trains, moves or saves them."""
    strangers = case.passed.strangers
    learning = [s for s in strangers if s.learns]
    fresh = False
    if learning:
        again = trace(case.module, *case.inputs, training=case.training).strangers
        fresh = not any(one.weight is other.weight for one in learning for other in again)
    told = learning or list(strangers)
    return {
        "strangers.learning": len(learning),
        "strangers.fresh": fresh,
        "strangers.fixed": len(strangers) - len(learning),
        "strangers.shapes": [by(s.shape) for s in told],
        "strangers.names": list(dict.fromkeys(s.module for s in told)),
    }


@measuring("rows.random")
def _random_in_use(case: Case) -> Mapping[str, Any]:
    """Whether evaluation mode returns the same twice; layers that are drawn anew in every pass do not."""
    if not torch.isfinite(case.inputs[0].float()).all() or any(s.learns for s in case.passed.strangers):
        return {}
    with left_as_it_was(case.module, training=False), torch.no_grad():
        one, two = (first_tensor(case.module(*case.inputs)) for _ in range(2))
    if one is None or two is None:
        return {}
    return {"rows.random": one.shape == two.shape and not torch.allclose(one, two, equal_nan=True)}


# ---------------------------------------------------------------------------------------- rows and targets


@measuring("guess.rows")
def _guessed_rows(case: Case) -> Mapping[str, Any]:
    """Rows on which learners may try; none where the target is no column or few, or is constant."""
    trials = case.trials
    if trials is None or case.passed.strangers:
        return {"guess.rows": 0}
    x, y = trials.inputs[0].detach().float(), trials.target
    fits = torch.isfinite(x).all() and torch.isfinite(y.float()).all()
    if not fits or y.dim() > 2 or y.numel() > 8 * len(y) or count_distinct(y) < 2:
        return {"guess.rows": 0}
    return {"guess.rows": len(y)}


def _learner(kind: str) -> Measure:
    """How far one learner is above chance on rows that it did not see."""

    def run(case: Case) -> Mapping[str, Any]:
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.linear_model import Ridge
        from sklearn.neighbors import KNeighborsRegressor

        if case.trials is None:
            return {}
        x, goal = case.trials.inputs[0].detach().float().flatten(1).numpy(), _columns(case.trials.target)
        spread = x.std(axis=0)
        x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        learners = {
            "neighbours": KNeighborsRegressor(5),
            "linear": Ridge(10.0),
            "trees": ExtraTreesRegressor(40, random_state=0, n_jobs=1),
        }
        half, found = len(x) // 2, np.empty_like(goal)
        flat = goal.squeeze(1) if goal.shape[1] == 1 else goal
        for train, test in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
            told = learners[kind].fit(x[train], flat[train]).predict(x[test])
            found[test] = np.asarray(told).reshape(goal[test].shape)
        return {f"guess.{kind}": _above_chance(found, goal, half)}

    return Measure((f"guess.{kind}",), run)


def _columns(y: Tensor) -> np.ndarray[Any, Any]:
    """The target as columns of numbers, classes one-hot."""
    if not y.is_floating_point() and y.dim() == 1:
        return torch.nn.functional.one_hot(y.long()).double().numpy()
    return y.double().reshape(len(y), -1).numpy()


def _above_chance(found: np.ndarray[Any, Any], goal: np.ndarray[Any, Any], half: int) -> float:
    """Deviations above chance by which predictions and targets go together, row by row within each half."""
    totals = []
    for part in (slice(0, half), slice(half, None)):
        f, g = found[part] - found[part].mean(axis=0), goal[part] - goal[part].mean(axis=0)
        size = math.sqrt(float((f**2).sum(axis=1) @ (g**2).sum(axis=1))) or 1.0
        totals.append(float((f * g).sum()) / size)
    return sum(totals) / math.sqrt(len(totals))


def _network(name: str, steps: int) -> Measure:
    """How far the network, trained on one half of the rows, is better on the other than with targets in
    another order."""

    def run(case: Case) -> Mapping[str, Any]:
        trials = case.trials
        if trials is None:
            return {}
        size = len(trials.target)
        half = size // 2
        first, second = torch.arange(half), torch.arange(half, size)
        goal = trials.target[half:]
        trained = trials.run(
            steps=steps,
            inputs=tuple(pick_rows(i, first, size) for i in trials.inputs),
            target=trials.target[:half],
        )
        if trained is None:
            return {}
        try:
            with torch.no_grad():
                out = trained.module.eval()(*(pick_rows(i, second, size) for i in trials.inputs))
                right = float(trials.loss(out, goal))
                orders = (
                    torch.randperm(len(goal), generator=torch.Generator().manual_seed(seed))
                    for seed in range(SHUFFLES)
                )
                wrong = [float(trials.loss(out, goal[order])) for order in orders]
        except (RuntimeError, ValueError):  # a loss that takes only batches of the training's size
            return {}
        return {name: (float(np.mean(wrong)) - right) / (float(np.std(wrong)) or 1.0)}

    return Measure((name,), run)


# ------------------------------------------------------------------------------------------------ loaders


@measuring(
    *("loader.in_order", "loader.classes", "loader.first_classes", "loader.first_share"),
    "loader.class_changes",
)
def _loader(case: Case) -> Mapping[str, Any]:
    """Rows in the order of their classes."""
    loader = case.loader
    if loader is None or not isinstance(loader.sampler, SequentialSampler):
        return {"loader.in_order": False}
    dataset: Any = loader.dataset
    size = len(dataset)
    places = torch.linspace(0, size - 1, min(size, PLACES)).long().tolist()
    targets = [torch.as_tensor(dataset[i][1]) for i in places]
    if targets[0].dim() or targets[0].is_floating_point():
        return {"loader.in_order": True}
    values = torch.stack(targets)
    first = torch.stack([torch.as_tensor(dataset[i][1]) for i in range(min(loader.batch_size or 32, size))])
    count, seen = count_distinct(values), count_distinct(first)
    return {
        "loader.in_order": True,
        "loader.classes": count,
        "loader.first_classes": seen,
        "loader.first_share": seen / max(1, min(count, len(first))),
        "loader.class_changes": int((values[1:] != values[:-1]).sum()),
    }


@measuring("loader.workers", "loader.workers_alike")
def _workers(case: Case) -> Mapping[str, Any]:
    """Workers that all draw the same."""
    if case.loader is None:
        return {"loader.workers": 0}
    workers = case.loader.num_workers
    return {
        "loader.workers": workers,
        "loader.workers_alike": workers > 1 and _equal_seeds(case.loader),
    }


def _equal_seeds(loader: DataLoader[Any]) -> bool:
    """Whether one row, fetched by two workers, is the same where two fetches by one are not."""
    dataset: Any = loader.dataset
    try:
        with torch.random.fork_rng(devices=[]):
            one, two = first_tensor(dataset[0]), first_tensor(dataset[0])
            if one is None or two is None or torch.equal(one, two):
                return False  # nothing random about a row
            twice = DataLoader(
                dataset, sampler=[0, 0], batch_size=1, num_workers=2, worker_init_fn=loader.worker_init_fn
            )
            rows = [first_tensor(batch) for batch in twice]
    except (RuntimeError, TypeError, IndexError, OSError):
        return False
    return len(rows) == 2 and rows[0] is not None and rows[1] is not None and torch.equal(rows[0], rows[1])


INSPECTED_ONLY: tuple[Measure, ...] = (_derivatives, _random_in_use)
"""What takes passes that a loop which is watched is spared."""
MEASURES: tuple[Measure, ...] = (
    *(_derivatives, _registration, _mixing, _random_in_use, _guessed_rows),
    *(_learner("neighbours"), _learner("linear"), _learner("trees")),
    *(_network("guess.network", GUESS_STEPS), _network("guess.network_longer", 4 * GUESS_STEPS)),
    *(_loader, _workers),
)
