"""Tunes gradient descent on Rosenbrock's valley, with an objective as Optuna's studies have it."""

import os
import sys

import advisor
from advisor.client import RemoteTrial

SPACE = """
format: 1
parameters:
  step: {type: float, low: 1.0e-5, high: 1.0e-2, log: true, default: 1.0e-3}
  momentum: {type: float, low: 0.0, high: 0.99, default: 0.9}
"""


def objective(trial: RemoteTrial) -> float:
    """The height of the valley's floor after 2,000 steps, reported at every 200th."""
    step, momentum = (
        trial.suggest_float("step", 1e-5, 1e-2, log=True),
        trial.suggest_float("momentum", 0, 0.99),
    )
    x, y, u, v = -1.0, 1.0, 0.0, 0.0
    for i in range(1, 2_001):
        dx, dy = -2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)
        u, v = momentum * u - step * dx, momentum * v - step * dy
        x, y = x + u, y + v
        if x * x + y * y > 1e6:
            return 1e6
        if i % 200 == 0:
            trial.report((1 - x) ** 2 + 100 * (y - x * x) ** 2, i // 200)
            if trial.should_prune():
                break
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


if __name__ == "__main__":
    service = advisor.connect(os.environ.get("ADVISOR_URL", "http://127.0.0.1:8571"))
    study = service.create_study(space=SPACE, trials=int(os.environ.get("TRIALS", "12")), epochs=10)
    study.optimize(objective)
    trials = os.environ.get("TRIALS", "12")
    sys.stdout.write(f"best of {trials}: {study.best_value:.4g} with {study.best_params}\n")
