"""Rows and how they go through: mixed rows, unknown weights, randomness in use, targets that tell nothing,
loaders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from advisor.checks.findings.case import Case, Check, NetworkFinding, count_distinct, first_tensor, plural
from advisor.checks.findings.losses import by
from advisor.checks.gradients import module_gradients
from advisor.checks.tracing import left_as_it_was, trace

ENOUGH_ROWS = 100
"""For a judgement whether inputs tell anything about the target."""
CLEAR = 2.0
"""Deviations above chance that one of the learners must reach (one-sided level 0.023)."""
LEARNERS_STEPS = 60
FEW_CLASSES = 0.5
"""A batch that has less than this share of the classes, drawn in order, is sorted."""


def _mixing(case: Case) -> Iterator[NetworkFinding]:
    """Whether in evaluation mode the output of one row depends on another: a view gone wrong."""
    x = case.inputs[0]
    if not x.is_floating_point() or len(x) < 2 or not torch.isfinite(x).all():
        return
    watched = x.detach().clone().requires_grad_()
    with left_as_it_was(case.module, training=False), torch.enable_grad():
        out = first_tensor(case.module(watched, *case.inputs[1:]))
        if out is None or not out.dim() or len(out) != len(x) or not out.requires_grad:
            return
        weights = torch.randn(out[0].shape, generator=torch.Generator().manual_seed(0)).to(out)
        # the first and the last: a recurrence along the rows knows only those before
        ends = [(out[0] * weights).sum(), (out[-1] * weights).sum()]
        before, after = (
            torch.autograd.grad(end, watched, retain_graph=True, allow_unused=True)[0] for end in ends
        )
    if (before is not None and before[1:].any()) or (after is not None and after[:-1].any()):
        yield NetworkFinding(
            "warning",
            "rows-mixed",
            "the output of one row depends on other rows, in evaluation mode too",
            (),
            "look for a view, reshape or transpose that puts rows into another axis, a sum or mean over "
            "axis 0; a "
            "recurrent layer may need batch_first=True",
            (),
            "shape",
            "batch_first=True",
        )


def _derivatives(case: Case) -> Iterator[NetworkFinding]:
    """N7: gradients of what is written by hand."""
    if not torch.isfinite(case.inputs[0].float()).all():
        return
    for name, problem in module_gradients(case.module, *case.inputs).items():
        if problem is None:
            continue
        unknown = problem.startswith("cannot be")
        yield NetworkFinding(
            "info" if unknown else "error",
            "gradient-not-checked" if unknown else "gradient-wrong",
            f"the gradient of {name or type(case.module).__name__} "
            + (
                problem if unknown else "is not its derivative by the difference quotient in double precision"
            ),
            (name,),
            "keep the dtype of what comes in" if unknown else "fix its backward, or leave it to autograd",
            ("N7",),
            "gradient",
        )


def _finite(case: Case) -> Iterator[NetworkFinding]:
    """N4: an output that is not finite for inputs that are."""
    out = case.output
    if out is not None and torch.isfinite(case.inputs[0].float()).all() and not torch.isfinite(out).all():
        yield NetworkFinding(
            "error",
            "output-not-finite",
            "the output is not finite for a finite input",
            (),
            "look for a logarithm, a root or a quotient of what may be 0, and for exploding layers",
            ("N4",),
            "output",
        )


def _registration(case: Case) -> Iterator[NetworkFinding]:
    """Weights that the module does not know, so that nothing trains, moves or saves them."""
    strangers = case.passed.strangers
    if not strangers:
        return
    again = {s.identity for s in trace(case.module, *case.inputs, training=case.training).strangers}
    learning = [s for s in strangers if s.learns]
    fresh = learning and not any(s.identity in again for s in learning)
    plain = [s for s in strangers if not s.learns]
    if learning:
        yield NetworkFinding(
            "error",
            "layers-made-in-forward" if fresh else "layers-not-registered",
            f"{plural(len(learning), 'weight')} ({', '.join(by(s.shape) for s in learning[:4])}) work in "
            "the network and "
            "are none of its parameters: "
            + (
                "they are drawn anew in every pass"
                if fresh
                else "no optimizer, no .to(device) and no state_dict finds them"
            ),
            tuple(dict.fromkeys(s.module for s in learning)),
            "make layers in __init__ and keep them as attributes"
            if fresh
            else "keep layers in nn.ModuleList, not in a list",
            (),
            "registration",
            "self.layer = nn.Linear(...)" if fresh else "self.layers = nn.ModuleList(layers)",
        )
    elif plain:
        yield NetworkFinding(
            "warning",
            "weight-is-no-parameter",
            f"{plural(len(plain), 'tensor')} ({', '.join(by(s.shape) for s in plain[:4])}) are multiplied "
            "with as weights "
            "are, and are neither parameters nor buffers: they never learn",
            tuple(dict.fromkeys(s.module for s in plain)),
            "nn.Parameter for what is to be learnt, register_buffer for what is to stay",
            (),
            "registration",
            "self.weight = nn.Parameter(weight)",
        )


def _random_in_use(case: Case) -> Iterator[NetworkFinding]:
    """Whether evaluation mode returns the same twice."""
    if not torch.isfinite(case.inputs[0].float()).all() or any(s.learns for s in case.passed.strangers):
        return
    outputs = []
    with left_as_it_was(case.module, training=False), torch.no_grad():
        for _ in range(2):
            outputs.append(first_tensor(case.module(*case.inputs)))
    one, two = outputs
    if (
        one is not None
        and two is not None
        and one.shape == two.shape
        and not torch.allclose(one, two, equal_nan=True)
    ):
        yield NetworkFinding(
            "warning",
            "random-in-evaluation",
            "two passes in evaluation mode return different numbers: something random does not look at the "
            "mode",
            (),
            "F.dropout needs training=self.training; nn.Dropout does so itself",
            ("N28",),
            "evaluation",
            "F.dropout(x, p, training=self.training)",
        )


# ---------------------------------------------------------------------------------------- rows and targets


def _told_nothing(case: Case) -> Iterator[NetworkFinding]:
    """Whether anything of the target can be learnt from the inputs: rows and targets that were shuffled
    apart cannot."""
    trials, target = case.trials, case.target
    if trials is None or target is None or len(trials.target) < ENOUGH_ROWS or case.passed.strangers:
        return
    x, y = trials.inputs[0].detach().float().flatten(1), trials.target
    if (
        not torch.isfinite(x).all()
        or y.dim() > 2
        or not torch.isfinite(y.float()).all()
        or y.numel() > 8 * len(y)
    ):
        return
    if count_distinct(y) < 2 or _learners_find(x.numpy(), y) or _network_finds(case):
        return
    yield NetworkFinding(
        "warning",
        "target-unrelated",
        f"nothing that was tried on {len(y)} rows (neighbours, a linear model, trees, the network itself) "
        "guesses the "
        "target of other rows better than chance: inputs and targets may have been shuffled apart",
        (),
        "look at some rows beside their targets; shuffle both by the same order",
        ("N26",),
        "target",
        "order = torch.randperm(len(x)); x, y = x[order], y[order]",
    )


def _learners_find(x: np.ndarray[Any, Any], y: Tensor) -> bool:
    """Whether neighbours, a ridge or trees are above chance on rows that they did not see."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor

    goal = _columns(y)
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    half = len(x) // 2
    learners = (KNeighborsRegressor(5), Ridge(10.0), ExtraTreesRegressor(40, random_state=0, n_jobs=1))
    for learner in learners:
        found = np.empty_like(goal)
        for train, test in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
            found[test] = np.asarray(
                learner.fit(x[train], goal[train].squeeze(1) if goal.shape[1] == 1 else goal[train]).predict(
                    x[test]
                )
            ).reshape(goal[test].shape)
        if _above_chance(found, goal, half):
            return True
    return False


def _columns(y: Tensor) -> np.ndarray[Any, Any]:
    """The target as columns of numbers, classes one-hot."""
    if not y.is_floating_point() and y.dim() == 1:
        return torch.nn.functional.one_hot(y.long()).double().numpy()
    return y.double().reshape(len(y), -1).numpy()


def _above_chance(found: np.ndarray[Any, Any], goal: np.ndarray[Any, Any], half: int) -> bool:
    """Whether predictions and targets go together, row by row within each half, beyond chance."""
    totals = []
    for part in (slice(0, half), slice(half, None)):
        f, g = found[part] - found[part].mean(axis=0), goal[part] - goal[part].mean(axis=0)
        size = math.sqrt(float((f**2).sum(axis=1) @ (g**2).sum(axis=1))) or 1.0
        totals.append(float((f * g).sum()) / size)
    return sum(totals) / math.sqrt(len(totals)) > CLEAR


def _network_finds(case: Case) -> bool:
    """Whether the network, trained on one half of the rows, is better on the other than with targets in
    another order."""
    assert case.trials is not None
    trials, half = case.trials, len(case.trials.target) // 2
    size = len(trials.target)
    first = tuple(i[:half] if isinstance(i, Tensor) and len(i) == size else i for i in trials.inputs)
    second = tuple(i[half:] if isinstance(i, Tensor) and len(i) == size else i for i in trials.inputs)
    best: float | None = None
    for steps in (LEARNERS_STEPS, 4 * LEARNERS_STEPS):
        run = trials.run(steps=steps, inputs=first, target=trials.target[:half])
        if run is None:
            return True
        try:
            with torch.no_grad():
                out = run.module.eval()(*second)
                right = float(trials.loss(out, trials.target[half:]))
                wrong = []
                for seed in range(20):
                    order = torch.randperm(size - half, generator=torch.Generator().manual_seed(seed))
                    wrong.append(float(trials.loss(out, trials.target[half:][order])))
        except (RuntimeError, ValueError):
            return True
        deviation = float(np.std(wrong)) or 1.0
        best = max(best or -math.inf, (float(np.mean(wrong)) - right) / deviation)
        if best > CLEAR:
            return True
    return False


# ------------------------------------------------------------------------------------------------ loaders


def _loader(case: Case) -> Iterator[NetworkFinding]:
    """Rows in the order of their classes, and workers that all draw the same."""
    loader = case.loader
    if loader is None:
        return
    if isinstance(loader.sampler, SequentialSampler):
        yield from _sorted_rows(loader)
    if loader.num_workers > 1 and _equal_seeds(loader):
        yield NetworkFinding(
            "warning",
            "workers-alike",
            f"the {loader.num_workers} workers of the loader draw the same random numbers: what is random "
            "about a row "
            "repeats from worker to worker",
            (),
            "leave worker_init_fn away (PyTorch seeds NumPy since 1.9), or seed by the worker",
            (),
            "data",
            "worker_init_fn=lambda worker: np.random.seed(torch.initial_seed() % 2**32)",
        )


def _sorted_rows(loader: DataLoader[Any]) -> Iterator[NetworkFinding]:
    dataset: Any = loader.dataset
    size = len(dataset)
    places = torch.linspace(0, size - 1, min(size, 200)).long().tolist()
    targets = [torch.as_tensor(dataset[i][1]) for i in places]
    if targets[0].dim() or targets[0].is_floating_point():
        return
    values = torch.stack(targets)
    count = count_distinct(values)
    first = torch.stack([torch.as_tensor(dataset[i][1]) for i in range(min(loader.batch_size or 32, size))])
    share = count_distinct(first) / max(1, min(count, len(first)))
    changes = int((values[1:] != values[:-1]).sum())
    if count > 1 and share <= FEW_CLASSES and changes < 2 * count:
        yield NetworkFinding(
            "warning",
            "rows-in-order",
            "the loader goes through the rows in order, and they are sorted by class: a batch has "
            f"{count_distinct(first)} "
            f"of {count} classes",
            (),
            "draw the rows in a random order",
            ("N26",),
            "data",
            "DataLoader(..., shuffle=True)",
        )


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


CHECKS: tuple[Check, ...] = (
    _finite,
    _derivatives,
    _registration,
    _mixing,
    _random_in_use,
    _told_nothing,
    _loader,
)
