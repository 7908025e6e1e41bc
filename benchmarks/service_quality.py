"""What it costs that several trials are out at once, and that proposals are made before their results come.

    python benchmarks/service_quality.py [SEEDS]

Five functions of mixed parameters and three tables (kernel ridge regression, scikit-learn's own sets), 60
trials each: one by one, and with this many out at once (the service makes at most three ahead). Loss is that
of the best trial; a function has a floor of a tenth of its median over the space, as a training loss has one.
Printed: the geometric mean, over functions, tables and seeds, of loss over loss one by one, with its standard
error by seeds. Goes on where it stopped (results/service_quality.jsonl).
"""

from __future__ import annotations

import functools
import math
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from resumable import Row, go_on

TRIALS, DRAWN = 60, 400
OUT = (1, 4, 7)
RESULTS = Path(__file__).parent / "results" / "service_quality.jsonl"
SPACE = {
    **{
        f"x{i}": {"type": "float", "default": 0.5, "low": 0.001, "high": 1.0, "log": i % 2 == 1}
        for i in range(5)
    },
    "depth": {"type": "int", "default": 2, "low": 1, "high": 8},
    "width": {"type": "int", "default": 64, "low": 8, "high": 512, "log": True},
    "kind": {"type": "categorical", "default": "a", "choices": ["a", "b", "c"]},
}
RIDGE = {
    "alpha": {"type": "float", "default": 0.1, "low": 1e-5, "high": 10.0, "log": True},
    "gamma": {"type": "float", "default": 0.1, "low": 1e-4, "high": 10.0, "log": True},
    "degree": {"type": "int", "default": 3, "low": 1, "high": 5},
    "coef0": {"type": "float", "default": 1.0, "low": 0.0, "high": 3.0},
    "power": {"type": "float", "default": 1.0, "low": 0.2, "high": 2.0},
    "kernel": {"type": "categorical", "default": "rbf", "choices": ["rbf", "poly", "laplacian", "linear"]},
}
Loss = Callable[[dict], float]


def _xs(c: dict) -> list[float]:
    return [c[f"x{i}"] for i in range(5)]


def _rest(c: dict) -> float:
    return 0.05 * abs(c["depth"] - 3) + 0.02 * abs(math.log(c["width"] / 64)) + 0.1 * "abc".index(c["kind"])


def bowl(c: dict) -> float:
    valley = {"a": 0.3, "b": 0.5, "c": 0.7}[c["kind"]]
    return sum((x - valley) ** 2 for x in _xs(c)) + _rest(c)


def valley(c: dict) -> float:
    x = _xs(c)
    return sum(5 * (x[i + 1] - x[i] ** 2) ** 2 + (0.8 - x[i]) ** 2 for i in range(4)) + _rest(c)


def ripples(c: dict) -> float:
    return sum((x - 0.4) ** 2 + 0.05 * (1 - math.cos(15 * (x - 0.4))) for x in _xs(c)) + _rest(c)


def rates(c: dict) -> float:
    x = _xs(c)
    return (math.log10(x[1]) + 1.5) ** 2 + (math.log10(x[3]) - math.log10(x[1])) ** 2 + x[0] * x[2] + _rest(c)


def switch(c: dict) -> float:
    x = _xs(c)
    own = {"a": x[0], "b": 1 - x[2], "c": abs(x[4] - 0.5)}[c["kind"]]
    return own + 0.3 * (x[1] - 0.1) ** 2 + 0.1 * abs(c["depth"] - 5) + 0.05 * abs(math.log(c["width"] / 200))


FUNCTIONS = {one.__name__: one for one in (bowl, valley, ripples, rates, switch)}
TABLES = ("diabetes", "wine", "breast_cancer")


@functools.cache
def problem(name: str) -> tuple[dict, Loss]:
    """Its space, and its loss."""
    return (RIDGE, _ridge(name)) if name in TABLES else (SPACE, _floored(FUNCTIONS[name]))


def _floored(function: Loss) -> Loss:
    generator = random.Random(0)
    floor = 0.1 * statistics.median(function(_drawn(generator)) for _ in range(DRAWN))
    return lambda configuration: floor + function(configuration)


def _drawn(generator: random.Random) -> dict:
    drawn: dict = {f"x{i}": generator.uniform(0.001, 1.0) for i in range(5)}
    return drawn | {
        "depth": generator.randint(1, 8),
        "width": generator.randint(8, 512),
        "kind": generator.choice("abc"),
    }


def _ridge(name: str) -> Loss:
    import numpy as np
    from sklearn import datasets
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.preprocessing import StandardScaler

    rows, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(rows))
    rows = StandardScaler().fit_transform(rows)[order]
    target = (target - target.mean())[order] / target.std()
    train, test = slice(0, 120), slice(120, 400)

    def loss(c: dict) -> float:
        options = {"alpha": c["alpha"], "kernel": c["kernel"], "gamma": c["gamma"]}
        if c["kernel"] == "poly":
            options |= {"degree": c["degree"], "coef0": c["coef0"]}
        own = np.sign(rows) * np.abs(rows) ** c["power"]
        found = KernelRidge(**options).fit(own[train], target[train]).predict(own[test])
        return float(np.sqrt(np.mean((found - target[test]) ** 2)))

    return loss


def measure(name: str, out_at_once: int, seed: int) -> Row:
    from advisor.search.plan import SearchPlan
    from advisor.search.storage.database import InMemory
    from advisor.search.study import Complete, Study
    from advisor.spaces.space import Space

    given, loss = problem(name)
    space = Space.from_dict({"format": 1, "parameters": given})
    plan = SearchPlan(space=space, enqueue={}, trials=TRIALS, max_epochs=1, space_text="s", seed=seed)
    study, out = Study(plan, InMemory()), []
    while study.remaining:
        while len(out) < out_at_once and (one := study.ask()) is not None:
            out.append(one)
        one = out.pop(0)
        study.tell(one.number, Complete(loss(dict(one.configuration))))
    return {"problem": name, "out": out_at_once, "seed": seed, "best": study.best.value}


def table_of(rows: list[Row]) -> str:
    best = {(row["problem"], row["out"], row["seed"]): row["best"] for row in rows}
    lines = [
        "| out at once | loss over one by one | standard error | seeds | problems |",
        "|---|---|---|---|---|",
    ]
    for out_at_once in OUT[1:]:
        by_seed: dict[int, list[float]] = {}
        for (name, out, seed), value in best.items():
            if out == out_at_once and (name, 1, seed) in best:
                by_seed.setdefault(seed, []).append(math.log(value / best[name, 1, seed]))
        if len(by_seed) < 2:
            continue
        means = [statistics.mean(logs) for logs in by_seed.values()]
        error = statistics.stdev(means) / math.sqrt(len(means))
        problems = max(map(len, by_seed.values()))
        ratio = math.exp(statistics.mean(means))
        lines.append(f"| {out_at_once} | {ratio:.3f} | {error:.3f} | {len(means)} | {problems} |")
    return "\n".join(lines)


if __name__ == "__main__":
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    names = (*FUNCTIONS, *TABLES)
    todo = [(name, out, seed) for seed in range(seeds) for name in names for out in OUT]
    go_on(RESULTS, "Several trials out at once", ("problem", "out", "seed"), todo, measure, table_of)
