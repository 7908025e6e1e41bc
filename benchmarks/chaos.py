"""Kill workers, nodes, the driver and the storage of a study at random; after
each, nothing is lost and nothing double.

    python benchmarks/chaos.py [--kills 200] [--trials 60] [--seed 0] [--kinds worker,node,driver,storage]
                               [--address HOST:PORT] # a Ray that is there, instead of a cluster of our own

worker: SIGKILL of a worker's process. node: a node of two workers is gone at once, and another joins. driver:
SIGKILL of the process that searches; the next goes on with the same journal. storage: by turns a torn write
(the driver is killed in the middle of a record), and a disk that is full after some hundred bytes.

The study is fixed: 60 trials, each a quarter of a second; when it is finished, the next begins. What a
driver has said is done must be in the journal, with its value, after every kill; a finished study has
every place of its budget once, with the value that its parameters give, and no trial left open; workers
are gone when their driver is. Ends with an AssertionError at the first that is not so; else prints a
line for benchmarks/results/chaos.md.
"""

import argparse
import contextlib
import json
import os
import queue
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import date
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from advisor.errors import UserError
from advisor.executors.base import Began
from advisor.executors.ray.executor import RayExecutor
from advisor.search.driver import search
from advisor.search.events import Ended
from advisor.search.executor_contract import SHARED, PointSpace, script_factory
from advisor.search.plan import SearchPlan

RESULTS = Path(__file__).resolve().parent / "results" / "chaos.md"
EPOCHS, SECONDS = 5, 0.05
PATIENCE = 180.0
"""Seconds without a word from a driver until it counts as hanging."""


def losses(x):
    return [x**2 + 1 / epoch for epoch in range(1, EPOCHS + 1)]


# ------------------------------------------------------------------ the driver, which is killed


class Loud(RayExecutor):
    """Says which processes its workers are."""

    def poll(self, timeout):
        events = super().poll(timeout)
        for event in events:
            if isinstance(event, Began):
                say({"worker": int(event.worker.rpartition(" ")[2])})
        return events


def say(document):
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def drive(journal, address, trials, room):
    """Search; exit code 0 when the budget is met, 2 when the journal cannot be written."""
    if room is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def listen(event, progress):
        if isinstance(event, Ended) and event.end != "discarded":
            say({"number": event.number, "place": event.index, "value": event.value, "end": event.end})

    def payload(configuration, place):
        return {"losses": losses(configuration["x"]), "seconds": SECONDS}

    plan = SearchPlan(
        PointSpace(), {"first": {"x": 1.0}}, trials=trials, max_epochs=EPOCHS, make_payload=payload, seed=1
    )
    executor = Loud(script_factory, SHARED, None, address)
    if room is not None:
        # Only now: Ray's own files are larger.
        size = journal.stat().st_size if journal.exists() else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
    try:
        search(plan, executor, journal, on_event=listen)
    except UserError as error:
        say({"error": str(error)})
        sys.stdout.flush()
        os._exit(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        executor.close()


# ------------------------------------------------------------------ the supervisor


class Driver:
    """A driver's process, and what it has said."""

    def __init__(self, journal, address, trials, room=None):
        command = [
            sys.executable,
            __file__,
            "--drive",
            str(journal),
            "--address",
            address,
            "--trials",
            str(trials),
        ]
        command += [] if room is None else ["--room", str(room)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said, self.workers, self.errors = [], set(), []
        self.over = False
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def listen(self, lines):
        """Take in this many lines; False when it has ended before."""
        for _ in range(lines):
            if self.over:
                return False
            line = self._lines.get(timeout=PATIENCE)
            if not line:
                self.process.wait()
                self.over = True
                return False
            if line.startswith("{") and line.endswith("\n"):
                self._take(json.loads(line))
        return True

    def _take(self, document):
        if "worker" in document:
            self.workers.add(document["worker"])
        elif "error" in document:
            self.errors.append(document["error"])
        else:
            self.said.append(document)

    def kill(self):
        self.process.kill()
        self.rest()

    def rest(self):
        """All that it says until its end."""
        while self.listen(1):
            pass


class Supervisor:
    def __init__(self, folder, trials, seed, address):
        self.folder, self.trials, self.chance = Path(folder), trials, random.Random(seed)
        self.kills, self.studies, self.starts, self.workers = Counter(), 0, 0, set()
        self.said, self.driver, self.cluster, self.nodes = {}, None, None, []
        self.address = address or self._own_cluster()

    def _own_cluster(self):
        from ray.cluster_utils import Cluster

        health = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": health}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            self._join()
        return self.cluster.address

    def _join(self):
        """Another node. Ray gives one 30 seconds to come up, which a machine
        with other work may not keep to."""
        for _ in range(10):
            try:
                self.nodes.append(self.cluster.add_node(num_cpus=2))
                return
            except Exception as error:  # noqa: BLE001 - Ray raises a plain one
                sys.stderr.write(f"a node did not come up ({str(error)[:60]}): again\n")
        raise RuntimeError("no node comes up on this machine")

    @property
    def journal(self):
        return self.folder / f"study-{self.studies}.journal"

    def start(self, room=None):
        self.driver = Driver(self.journal, self.address, self.trials, room)
        self.starts += 1

    def kill(self, kind):
        """One kill, in a search that is under way."""
        if self.driver is None:
            self.start()
        while not self.driver.listen(1 + self.chance.randrange(12)):
            self.finish()
            self.start()
        {"worker": self.worker, "node": self.node, "driver": self.stop, "storage": self.storage}[kind]()
        self.kills[kind] += 1

    def worker(self):
        alive = [pid for pid in sorted(self.driver.workers) if Path(f"/proc/{pid}").exists()]
        if alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(alive), signal.SIGKILL)

    def node(self):
        lost = self.chance.choice(self.nodes)
        self.nodes.remove(lost)
        self.cluster.remove_node(lost, allow_graceful=False)
        self._join()

    def stop(self):
        self.driver.kill()
        self.collect()

    def storage(self):
        if self.chance.random() < 0.5:
            self.stop()
            whole = self.journal.read_bytes()
            last = whole.rstrip(b"\n").rpartition(b"\n")[2]
            with self.journal.open("ab") as file:
                file.write(last[: self.chance.randrange(1, len(last))])
            return
        self.stop()
        self.start(self.chance.randrange(100, 4000))
        self.driver.rest()
        code = self.driver.process.returncode
        errors = self.driver.errors
        self.collect()
        if code == 0:
            self.close_study()
        else:
            assert code == 2, (code, errors)
            assert "cannot write" in errors[-1], errors

    def collect(self):
        """After a driver's end: what it said is in the journal."""
        for document in self.driver.said:
            assert document["number"] not in self.said or self.said[document["number"]] == document, (
                "told twice"
            )
            self.said[document["number"]] = document
        self.workers |= self.driver.workers
        self.driver = None
        if self.said:
            there = {trial.number: trial for trial in load(self.journal)}
            for number, document in self.said.items():
                assert number in there, f"trial {number} is lost"
                assert there[number].state.is_finished(), f"trial {number} is open again"
                assert there[number].user_attrs["place"] == document["place"]
                expected = there[number].value if there[number].state != TrialState.FAIL else None
                assert document["value"] == expected, f"trial {number} has another value"

    def finish(self):
        """The driver has ended by itself: the budget is met."""
        code = self.driver.process.wait()
        assert code == 0, (code, self.driver.errors, self.driver.process.stderr.read()[-2000:])
        self.collect()
        self.close_study()

    def close_study(self):
        check(self.journal, self.trials)
        self.studies += 1
        self.said = {}

    def run(self, kinds, kills):
        """Every kind equally often, in any order; then the last study to its end."""
        order = [kinds[number % len(kinds)] for number in range(kills)]
        self.chance.shuffle(order)
        for kind in order:
            self.kill(kind)
            if self.kills.total() % 20 == 0:
                sys.stderr.write(f"{dict(self.kills)}, {self.studies} studies, {self.starts} drivers\n")
        if self.driver is None:
            self.start()
        self.driver.rest()
        self.finish()
        deadline = time.monotonic() + PATIENCE
        while left := [pid for pid in self.workers if is_worker(pid)]:
            assert time.monotonic() < deadline, f"workers {left} are left"
            time.sleep(0.2)

    def close(self):
        if self.driver is not None:
            self.driver.kill()
        if self.cluster is not None:
            self.cluster.shutdown()


def is_worker(pid):
    """A number may have been given to another process since."""
    try:
        return b"_Worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def load(journal):
    """By plain Optuna, from a copy that ends with its last whole line: looking must not fix anything."""
    whole = journal.read_bytes()
    copy = journal.with_suffix(".copy")
    copy.write_bytes(whole[: whole.rfind(b"\n") + 1])
    storage = JournalStorage(JournalFileBackend(str(copy)))
    return optuna.load_study(storage=storage, study_name="search").get_trials()


def check(journal, budget):
    """A finished study: every place once, each with the value that its parameters give."""
    trials = load(journal)
    assert all(trial.state.is_finished() for trial in trials), "a trial is left open"
    counted = [trial for trial in trials if "void" not in trial.user_attrs]
    assert sorted(trial.user_attrs["place"] for trial in counted) == list(range(budget)), (
        "the budget is not met once"
    )
    for trial in counted:
        if trial.state == TrialState.COMPLETE:
            assert trial.value == min(losses(trial.params["x"]))
        elif trial.state == TrialState.FAIL:
            assert trial.user_attrs["set_aside"], trial.user_attrs


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="worker,node,driver,storage")
    parser.add_argument("--address")
    parser.add_argument("--keep", action="store_true", help="Append the line to benchmarks/results/chaos.md.")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--room", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if arguments.drive:
        drive(arguments.drive, arguments.address, arguments.trials, arguments.room)
        return
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        supervisor = Supervisor(folder, arguments.trials, arguments.seed, arguments.address)
        try:
            supervisor.run(arguments.kinds.split(","), arguments.kills)
        finally:
            supervisor.close()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(supervisor.kills.items()))
    line = (
        f"- {date.today()}, seed {arguments.seed}: {supervisor.kills.total()} kills ({kinds}) over "
        f"{supervisor.studies} "
        f"studies of {arguments.trials} trials and {supervisor.starts} drivers in "
        f"{time.monotonic() - begun:.0f} s: "
        "nothing lost, nothing double, every budget met"
    )
    print(line)
    if arguments.keep:
        known = RESULTS.read_text("utf-8") if RESULTS.exists() else "# Chaos\n\n"
        RESULTS.write_text(f"{known}{line}\n", "utf-8")


if __name__ == "__main__":
    main()
