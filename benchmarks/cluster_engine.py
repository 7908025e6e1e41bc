"""The engine under load: nodes, reports, a long study, and the time to the first trial.

    python benchmarks/cluster_engine.py [efficiency] [reports] [simulated]
    [study] [start] # all, when none is named

efficiency: a cluster of 1, 2, 4 and 8 nodes on this machine, one worker each, and trials that sleep: the
share of the workers' time that was spent in trials. Must reach: 0.95.
reports: two workers that report epochs as fast as they can. Must reach: 1,000 a second.
simulated: 1,000 trials on the simulated clock with every fault, the study in memory and in a journal: the
least CPU of some repetitions by turns, since what else runs here only adds to it. Must reach: 1 s.
study: 10,000 trials on the simulated clock, with deaths, delays and repetitions: seconds,
and the driver's memory every 1,000 trials. Must reach: memory flat. Beside it, what TPE
takes for one question in so long a study.
start: from the command to the end of the first trial's first epoch, beside `ray.init` and one actor that
imports torch, each in fresh processes by turns. Must reach: 1.3 times. Appends a Markdown table to
benchmarks/results/cluster_engine.md.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import optuna

from advisor.executors.ray.executor import RayExecutor
from advisor.executors.simulated import Faults, SimulatedExecutor
from advisor.rules import shipped
from advisor.search.driver import search
from advisor.search.events import Ended
from advisor.search.executor_contract import PointSpace
from advisor.search.plan import SearchPlan, tpe
from advisor.search.storage.database import InMemory
from advisor.search.storage.journal import Journal

RESULTS = Path(__file__).resolve().parent / "results" / "cluster_engine.md"


def on_disk():
    """A folder where waiting for the disk costs what it does for a run (/tmp may be memory)."""
    cache = RESULTS.parent.parent / "cache"
    cache.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=cache)


def table(*rows):
    head, *body = [" | ".join(map(str, row)) for row in rows]
    return "\n".join([f"| {head} |", "|---" * len(rows[0]) + "|", *(f"| {row} |" for row in body)])


# ------------------------------------------------------------------ efficiency

SLEEP, SLEEPS, TRIALS_PER_NODE = 0.2, 10, 12


def sleeper(shared):
    def objective(job):
        begun = time.monotonic()
        for epoch in range(1, SLEEPS + 1):
            time.sleep(SLEEP)
            yield epoch, 1.0
        return time.monotonic() - begun

    return objective


def efficiency(nodes):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    executor = RayExecutor(sleeper, None, address=cluster.address)
    try:
        assert executor.slots == nodes
        executor.worker_pids()
        busy = []
        plan = SearchPlan(PointSpace(), {}, trials=TRIALS_PER_NODE * nodes, max_epochs=SLEEPS)
        with on_disk() as folder:
            begun = time.monotonic()
            search(
                plan,
                executor,
                Path(folder) / "journal",
                on_event=lambda event, progress: (
                    busy.append(event.result) if isinstance(event, Ended) else None
                ),
            )
            seconds = time.monotonic() - begun
        return sum(busy) / (nodes * seconds), seconds
    finally:
        executor.close()
        ray.shutdown()
        cluster.shutdown()


def measure_efficiency():
    rows = [("nodes", "trials of about 2 s", "seconds", "efficiency")]
    for nodes in (1, 2, 4, 8):
        share, seconds = efficiency(nodes)
        rows.append((nodes, TRIALS_PER_NODE * nodes, f"{seconds:.1f}", f"{share:.3f}"))
    return table(*rows)


# ------------------------------------------------------------------ reports

EPOCHS = 20_000


def reporter(shared):
    def objective(job):
        for epoch in range(1, EPOCHS + 1):
            yield epoch, 1.0 / epoch

    return objective


def measure_reports():
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    executor = RayExecutor(reporter, None, workers=2)
    try:
        executor.worker_pids()
        with on_disk() as folder:
            begun, used = time.monotonic(), time.process_time()
            result = search(
                SearchPlan(PointSpace(), {}, trials=6, max_epochs=EPOCHS), executor, Path(folder) / "journal"
            )
            seconds, used = time.monotonic() - begun, time.process_time() - used
    finally:
        executor.close()
        ray.shutdown()
    reports = sum(trial.user_attrs["epochs"] for trial in result.trials)
    rows = [("epoch reports", "seconds", "reports a second", "the driver's CPU, µs a report")]
    rows.append((reports, f"{seconds:.1f}", f"{reports / seconds:,.0f}", f"{1e6 * used / reports:.0f}"))
    return table(*rows)


# ------------------------------------------------------------------ a long study

LONG = 10_000


def parabola(shared):
    def objective(job):
        for epoch in range(1, 11):
            yield epoch, job.payload["configuration"]["x"] ** 2 + 1 / epoch

    return objective


def resident():
    """MB of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def ask_seconds(journal, space, number):
    """Of one question to TPE in the journal's study, which must be of that space."""
    journal.study.sampler = tpe(1)
    taken = []
    for _ in range(number):
        begun = time.process_time()
        trial = journal.study.ask()
        space.suggest(trial)
        taken.append(time.process_time() - begun)
        journal.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return statistics.median(taken)


def misfortunes():
    faults = Faults(death=0.005, hang=0.001, delay=0.5, duplicate=0.05, overtaken=0.05)
    return SimulatedExecutor(parabola, None, 8, faults=faults)


def random_plan(trials):
    return SearchPlan(
        PointSpace(),
        {},
        trials=trials,
        max_epochs=10,
        trial_time_limit=60,
        sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed),
    )


def measure_simulated(repetitions=7):
    taken = {"in memory": [], "in a journal": []}
    with on_disk() as folder:
        for number in range(repetitions):
            for name, store in (
                ("in memory", InMemory),
                ("in a journal", Path(folder) / f"journal-{number}"),
            ):
                executor, begun = misfortunes(), time.process_time()
                result = search(random_plan(1000), executor, store, clock=executor.clock)
                taken[name].append(time.process_time() - begun)
                assert len(result.trials) == 1000
    rows = [("1,000 trials, the study", "least CPU, s", "median CPU, s", "of")]
    rows += [
        (name, f"{min(one):.2f}", f"{statistics.median(one):.2f}", repetitions) for name, one in taken.items()
    ]
    return table(*rows)


def measure_study():
    executor = misfortunes()
    memory, ended = [], [0]
    rows = [("trials", "s so far (CPU)", "MB", "KB more a trial")]

    def listen(event, progress):
        ended[0] += isinstance(event, Ended)
        if ended[0] % 1000 == 0 and ended[0] and isinstance(event, Ended):
            memory.append((ended[0], time.process_time() - begun, resident()))

    with on_disk() as folder:
        path, begun = Path(folder) / "journal", time.process_time()
        result = search(random_plan(LONG), executor, path, on_event=listen, clock=executor.clock)
        assert len(result.trials) == LONG
        size = path.stat().st_size / 1e6
        opened = time.process_time()
        journal = Journal.open(path)
        opened = time.process_time() - opened
        asking = ask_seconds(journal, PointSpace(), 5)
        journal.close()
    before = None
    for number, seconds, megabytes in memory:
        more = "" if before is None else f"{megabytes - before:.1f}"
        rows.append((number, f"{seconds:.1f}", f"{megabytes:.0f}", more))
        before = megabytes
    counts = ", ".join(f"{result.number_of(end)} {end}" for end in ("complete", "pruned", "quarantined"))
    return (
        table(*rows)
        + f"\n\n{counts}; {executor.clock() / 3600:.1f} simulated hours; the journal has {size:.1f} MB and "
        "opens in "
        + f"{opened:.1f} s. TPE takes {1000 * asking:.0f} ms for a question of one float among {LONG:,} "
        "trials; " + wide_space_asking()
    )


def wide_space_asking():
    """TPE on the base space of tables, after random trials."""
    space, parts = shipped.base_space(), []
    with on_disk() as folder:
        journal = Journal.open(Path(folder) / "journal")
        random, done = optuna.samplers.RandomSampler(seed=1), 0
        draw = np.random.default_rng(1)
        for number in (100, 1000, 3000):
            journal.study.sampler = random
            for _ in range(number - done):
                trial = journal.study.ask()
                with journal.together():
                    space.suggest(trial)
                journal.study.tell(trial, float(draw.random()))
            done = number
            parts.append(f"{1000 * ask_seconds(journal, space, 3):.0f} ms after {number:,}")
        journal.close()
    return f"of the base space of tables {', '.join(parts)} trials."


# ------------------------------------------------------------------ the start

BARE = """
import ray
ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
class Actor:
    def __init__(self):
        import torch
    def ready(self):
        return 1
actor = ray.remote(num_cpus=1)(Actor).remote()
assert ray.get(actor.ready.remote()) == 1
print("ready", flush=True)
ray.shutdown()
"""
OURS = """
import sys
import advisor
from advisor.search.events import EpochDone
def listen(event, progress):
    if isinstance(event, EpochDone):
        print("ready", flush=True)
        raise KeyboardInterrupt
try:
    advisor.tune(sys.argv[1], "y", trials=1, out=sys.argv[2], on_event=listen)
except KeyboardInterrupt:
    pass
"""


def seconds_to_ready(code, *arguments):
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    seconds = time.monotonic() - begun
    process.wait()
    return seconds


def measure_start(repetitions=7):
    draw = np.random.default_rng(0)
    bare, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.csv"
        values = draw.normal(size=(2000, 10))
        lines = [",".join([*(f"x{i}" for i in range(10)), "y"])]
        lines += [
            ",".join([*(f"{value:.4f}" for value in row), "ab"[int(row[0] + row[1] > 0)]]) for row in values
        ]
        data.write_text("\n".join(lines) + "\n")
        # A pair that does not count: the first start after an installation compiles
        # modules and reads them from the disk.
        for number in range(1 + repetitions):
            pair = seconds_to_ready(BARE), seconds_to_ready(OURS, str(data), f"{folder}/run-{number}")
            if number:
                bare.append(pair[0])
                ours.append(pair[1])
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    rows = [("", "median, s", "of", "ratio (median of pairs)")]
    rows.append(
        ("`ray.init` and an actor that imports torch", f"{statistics.median(bare):.1f}", repetitions, "")
    )
    rows.append(
        (
            "`tune` on 2,000 rows, to the first epoch",
            f"{statistics.median(ours):.1f}",
            repetitions,
            f"{ratio:.2f}",
        )
    )
    return table(*rows)


PARTS = {
    "efficiency": measure_efficiency,
    "reports": measure_reports,
    "simulated": measure_simulated,
    "study": measure_study,
    "start": measure_start,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in arguments.parts or PARTS:
        text = PARTS[name]()
        load = os.getloadavg()[0]
        section = (
            f"## {name}, {date.today()}, {platform.machine()}, {os.cpu_count()} cores, load "
            f"{load:.1f}\n\n{text}\n"
        )
        print(section)
        RESULTS.parent.mkdir(exist_ok=True)
        known = RESULTS.read_text("utf-8") if RESULTS.exists() else "# The engine under load\n"
        RESULTS.write_text(f"{known}\n{section}", "utf-8")


if __name__ == "__main__":
    main()
