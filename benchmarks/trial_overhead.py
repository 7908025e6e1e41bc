"""What a trial costs beside its training: our loop on warm Ray actors, and Ray
Tune with OptunaSearch and ASHA.

    python benchmarks/trial_overhead.py [--trials 40] [--workers 2]
    # Ray Tune needs: .venv/bin/pip install -c constraints.txt "ray[tune]"

The objective imports torch and reports five numbers, so all that is left is overhead. All runners use one
Ray, whose start is counted apart, and the same number of CPUs, one per trial. Our sampler's time is measured
inside the same search and taken off for the column "beside the sampler"; the parts of the rest are measured
there too. Prints a Markdown table with ratios and appends it to benchmarks/results/trial_overhead.md. What it
must reach: at most 10 ms a trial beside training and sampler, on warm workers with the data shared once.
"""

import argparse
import contextlib
import os
import platform
import tempfile
import time
import warnings
from collections import defaultdict
from datetime import date
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")

import numpy as np
import optuna
import ray

from advisor.executors.ray.executor import RayExecutor
from advisor.files import GrowingFile
from advisor.rules import shipped
from advisor.search.driver import search
from advisor.search.plan import SearchPlan

EPOCHS = 5
RESULTS = Path(__file__).resolve().parent / "results" / "trial_overhead.md"


class SixFloats:
    """The space that Ray Tune searches as well."""

    def suggest(self, trial):
        return {f"x{i}": trial.suggest_float(f"x{i}", 0, 1) for i in range(6)}

    def encode(self, configuration):
        return dict(configuration)


def losses(number):
    return [1.0 / epoch + number % 7 * 1e-3 for epoch in range(1, EPOCHS + 1)]


def factory(shared):
    import torch  # noqa: F401 - what every real objective imports

    def objective(job):
        assert shared.nbytes
        yield from enumerate(losses(job.payload["place"]), start=1)

    return objective


class Stopwatch:
    """Seconds spent in some functions, each counted once when they call each other."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self._inside = set()

    @contextlib.contextmanager
    def on(self, what, owner, *names):
        originals = {name: getattr(owner, name) for name in names}

        def timed(function):
            def call(*args, **kwargs):
                if what in self._inside:
                    return function(*args, **kwargs)
                self._inside.add(what)
                begun = time.perf_counter()
                try:
                    return function(*args, **kwargs)
                finally:
                    self.seconds[what] += time.perf_counter() - begun
                    self._inside.discard(what)

            return call

        for name, function in originals.items():
            setattr(owner, name, timed(function))
        try:
            yield
        finally:
            for name, function in originals.items():
                setattr(owner, name, function)


def ours(space, trials, workers):
    """Seconds of the search on warm workers, and a stopwatch with its parts."""
    executor = RayExecutor(factory, np.zeros(1_000_000), workers=workers)
    watch = Stopwatch()
    try:
        executor.worker_pids()
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            for count in (8, trials):
                plan = SearchPlan(
                    space, {}, trials=count, max_epochs=EPOCHS, make_payload=lambda _, place: {"place": place}
                )
                watch.seconds.clear()
                sampling = (
                    "infer_relative_search_space",
                    "sample_relative",
                    "sample_independent",
                    "after_trial",
                )
                with (
                    watch.on("sampler", optuna.samplers.TPESampler, "__init__", *sampling),
                    watch.on("disk", GrowingFile, "append", "sync"),
                    watch.on("submit", RayExecutor, "submit"),
                    watch.on("poll", RayExecutor, "poll"),
                ):
                    begun = time.perf_counter()
                    search(plan, executor, Path(folder) / f"{count}.journal")
                    seconds = time.perf_counter() - begun
    finally:
        executor.close()
    return seconds, watch.seconds


def trainable(config):
    import torch  # noqa: F401
    from ray import tune

    for loss in losses(int(config["x0"] * 100)):
        tune.report({"loss": loss})


def ray_tune(trials, workers, reuse):
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    with tempfile.TemporaryDirectory() as folder:
        config = tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=trials,
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(),
            max_concurrent_trials=workers,
            reuse_actors=reuse,
        )
        run = tune.RunConfig(storage_path=folder, verbose=0)
        space = {f"x{i}": tune.uniform(0, 1) for i in range(6)}
        tuner = tune.Tuner(trainable, param_space=space, tune_config=config, run_config=run)
        begun = time.perf_counter()
        results = tuner.fit()
        assert len(results) == trials
        assert not results.errors
        return time.perf_counter() - begun


def fsync_seconds():
    """What one wait for the disk costs here, for comparison."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        file = GrowingFile(Path(folder) / "file")
        begun = time.perf_counter()
        for _ in range(100):
            file.append(b"x" * 300)
            file.sync()
        file.close()
        return (time.perf_counter() - begun) / 100


def report(trials, workers, start, ours_runs, tune_runs):
    base = ours_runs[0][1] / trials
    lines = [
        f"## {date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "",
        f"{trials} trials of {EPOCHS} reports, {workers} workers; `ray.init` {start:.1f} s, counted apart; "
        f"one wait for the disk {1000 * fsync_seconds():.1f} ms.",
        "",
        "| runner | ms per trial | of these the sampler | beside the sampler | times ours |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, seconds, parts in ours_runs:
        each, sampler = 1000 * seconds / trials, 1000 * parts["sampler"] / trials
        lines.append(
            f"| {name} | {each:.1f} | {sampler:.1f} | {each - sampler:.1f} | {seconds / trials / base:.1f} |"
        )
    for name, seconds in tune_runs:
        lines.append(f"| {name} | {1000 * seconds / trials:.1f} | | | {seconds / trials / base:.1f} |")
    lines += ["", "Where our time goes, ms per trial (poll is mostly waiting for the workers):", ""]
    for name, seconds, parts in ours_runs:
        rest = seconds - sum(parts.values())
        shown = {**parts, "the rest: Optuna's journal in memory, our loop": rest}
        lines.append(
            f"- {name}: " + ", ".join(f"{what} {1000 * value / trials:.1f}" for what, value in shown.items())
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--without-default",
        action="store_true",
        help="Leave out Ray Tune at its defaults, which takes longest.",
    )
    arguments = parser.parse_args()
    trials, workers = arguments.trials, arguments.workers
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    begun = time.perf_counter()
    ray.init(
        address="local", num_cpus=workers, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    start = time.perf_counter() - begun
    try:
        ours_runs = [
            (f"advisor, {name}", *ours(space, trials, workers))
            for name, space in (("6 floats", SixFloats()), ("the base space of tables", shipped.base_space()))
        ]
        tune_runs = [
            (f"Ray Tune, OptunaSearch, ASHA, 6 floats, {name}", ray_tune(trials, workers, reuse))
            for name, reuse in (("`reuse_actors=True`", True), ("default", False))
            if reuse or not arguments.without_default
        ]
    finally:
        ray.shutdown()
    table = report(trials, workers, start, ours_runs, tune_runs)
    print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    known = RESULTS.read_text("utf-8") if RESULTS.exists() else "# Overhead per trial\n"
    RESULTS.write_text(f"{known}\n{table}", "utf-8")


if __name__ == "__main__":
    main()
