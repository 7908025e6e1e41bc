"""What the service can do: ask and tell beside Optuna's gRPC storage proxy, latency, advice from facts.

    python benchmarks/service.py [costs] [ask] [latency] [advice] [proposals]

Ratios of one run on one machine; both sides use the same sampler, space and objective. ``costs``: the
server's processor time of each kind of request, which a busy machine does not change much. ``ask``: a
study with FINISHED trials and CLIENTS processes that ask and tell; what counts is what the server has
finished in a span. ``latency``: asks at RATE a second. ``advice``: recommendations from facts.
``proposals``: the processor's time for one, with Optuna's sampler and with ours.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
CLIENTS, SECONDS, FINISHED, RATE = 16, 15.0, 1_000, 50
WARM_SECONDS = 25.0
"""So long clients may take to begin: 16 of Optuna's on two cores do not all come to a first trial in it."""
NAMES = tuple(f"x{i}" for i in range(5))
SPACE = {
    **{
        name: {"type": "float", "default": 0.5, "low": 0.001, "high": 1.0, "log": i % 2 == 1}
        for i, name in enumerate(NAMES)
    },
    "depth": {"type": "int", "default": 2, "low": 1, "high": 8},
    "width": {"type": "int", "default": 64, "low": 8, "high": 512, "log": True},
    "kind": {"type": "categorical", "default": "a", "choices": ["a", "b", "c"]},
}


def loss(configuration: dict) -> float:
    """A bowl with one valley for each kind."""
    valley = {"a": 0.3, "b": 0.5, "c": 0.7}[configuration["kind"]]
    bowl = sum((configuration[name] - valley) ** 2 for name in NAMES)
    return bowl + 0.05 * abs(configuration["depth"] - 3) + 0.02 * abs(math.log(configuration["width"] / 64))


def random_configuration(generator) -> dict:
    drawn = {name: generator.uniform(0.001, 1.0) for name in NAMES}
    return {
        **drawn,
        "depth": generator.randint(1, 8),
        "width": generator.randint(8, 512),
        "kind": generator.choice("abc"),
    }


# ------------------------------------------------------------------------------------------------ our server


class Server:
    """A server process. more: options of `advisor serve`. folder: of another server that it stands beside."""

    def __init__(self, *more: str, folder: str | None = None) -> None:
        self.folder = folder or tempfile.mkdtemp(prefix="advisor-service-")
        words = ["serve", "--data", self.folder, "--port", "0", "--requests-a-minute", "1000000", "--quiet"]
        words += more
        self.process = subprocess.Popen(
            [sys.executable, "-m", "advisor", *words], stderr=subprocess.PIPE, text=True
        )
        self.url = re.search(r"http://\S+", self.process.stderr.readline())[0]
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()
        made = [sys.executable, "-m", "advisor", "token", "create", "--data", self.folder, "--scope", "admin"]
        made += more
        self.token = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip()

    def study(self, trials: int, finished: int) -> str:
        """A study with this many finished trials."""
        import random

        from advisor.client import connect

        generator, service = random.Random(0), connect(self.url, self.token)
        space = {"format": 1, "parameters": SPACE}
        enqueue = [random_configuration(generator) for _ in range(min(100, finished))]
        study = service.create_study(space=space, trials=trials, seed=0, enqueue=enqueue)
        threads = [threading.Thread(target=self._fill, args=(study, finished // 8)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return study.id

    @staticmethod
    def _fill(study, count: int) -> None:
        for _ in range(count):
            trial = study.ask()
            study.tell(trial, loss(trial.params))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def ask_ours(url: str, token: str, study_id: str, ready, stop) -> None:
    from advisor.client import connect

    study = connect(url, token).study(study_id)
    study.tell(trial := study.ask(), loss(trial.params))
    ready.release()
    while not stop.is_set():
        study.tell(trial := study.ask(), loss(trial.params))


# -------------------------------------------------------------------------------- Optuna's gRPC storage proxy


def serve_optuna(url: str, port: int) -> None:
    import optuna

    # get_storage caches what it has read; RDBStorage does not, and Optuna's page on the proxy warns of it
    storage = optuna.storages.get_storage(url)
    optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=port)


class PostgreSQL:
    """A database server of its own, as it is installed (its writes wait for the disk, as ours do)."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="advisor-db-"))
        self.folder.chmod(0o777)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._call("initdb", "-D", str(self.folder / "data"), "-U", "team", "-A", "trust")
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-w", "-o", options, "start")
        self.pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def url(self, scheme: str = "postgresql") -> str:
        return f"{scheme}://team@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def _call(self, name: str, *arguments: str) -> None:
        places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
        program = shutil.which(name) or str(places[0])
        user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        subprocess.run(
            [program, *arguments], check=True, user=user, cwd=self.folder, stdout=subprocess.DEVNULL
        )


def fill_optuna(url: str, finished: int) -> None:
    import random

    import optuna

    generator = random.Random(0)
    study = optuna.create_study(storage=url, study_name="s")
    distributions = {name: _distribution(entry) for name, entry in SPACE.items()}
    trials = []
    for _ in range(finished):
        configuration = random_configuration(generator)
        trials.append(
            optuna.trial.create_trial(
                params=configuration, distributions=distributions, value=loss(configuration)
            )
        )
    study.add_trials(trials)


def _distribution(entry: dict):
    import optuna.distributions as d

    if entry["type"] == "categorical":
        return d.CategoricalDistribution(entry["choices"])
    kind = d.IntDistribution if entry["type"] == "int" else d.FloatDistribution
    return kind(entry["low"], entry["high"], log=entry.get("log", False))


def ask_optuna(port: int, seed: int, quick: bool, ready, stop) -> None:
    import warnings

    import optuna

    from advisor.search.plan import tpe

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    sampler = tpe(seed) if quick else optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
    storage = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
    storage.wait_server_ready(timeout=60)
    study = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
    distributions = {name: _distribution(entry) for name, entry in SPACE.items()}
    trial = study.ask(distributions)  # the first fetches all trials
    study.tell(trial, loss(trial.params))
    ready.release()
    while not stop.is_set():
        trial = study.ask(distributions)
        study.tell(trial, loss(trial.params))


# ------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Rate:
    """trials: a second. server, clients: milliseconds of the processor for each trial. warm: clients that had
    told a first trial when the count began; alive: that had not failed at its end."""

    trials: float
    server: float
    clients: float
    warm: int
    alive: int

    def __str__(self) -> str:
        cost = f"{self.server:.0f} + {self.clients:.0f} ms of the processor a trial (server, clients)"
        state = f"{self.warm} of {CLIENTS} clients warm, {self.alive} alive, load {os.getloadavg()[0]:.1f}"
        return f"{self.trials:.1f} trials/s, {cost}, {state}"


def together(target, arguments, count_finished, servers: Sequence[int], seconds: float) -> Rate:
    """What CLIENTS processes finished, as the server counts it, and what that took.

    They begin to count when each client has told one, or after WARM_SECONDS, whatever has happened by then;
    who is in the middle of a trial at the end is not waited for. servers: the processes that answer.
    """
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Semaphore(0), context.Event()
    processes = [
        context.Process(target=target, args=(*arguments(i), ready, stop), daemon=True) for i in range(CLIENTS)
    ]
    for process in processes:
        process.start()

    def spent() -> tuple[float, float]:
        return sum(map(processor_seconds, servers)), sum(processor_seconds(one.pid) for one in processes)

    until = time.monotonic() + WARM_SECONDS
    warm = sum(ready.acquire(timeout=max(0.01, until - time.monotonic())) for _ in processes)
    before, used, began = count_finished(), spent(), time.monotonic()
    time.sleep(seconds)
    done, passed = count_finished() - before, time.monotonic() - began
    costs = [1e3 * (after - first) / max(1, done) for first, after in zip(used, spent(), strict=True)]
    alive = sum(process.is_alive() for process in processes)
    stop.set()
    for process in processes:
        process.kill()
        process.join()
    return Rate(done / passed, *costs, warm, alive)


def finished_by_optuna(url: str) -> int:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        query = sqlalchemy.text("SELECT count(*) FROM trials WHERE state = 'COMPLETE'")
        found = connection.execute(query).scalar_one()
    engine.dispose()
    return found


def measure_ours() -> Rate:
    from advisor.client import connect

    server = Server()
    try:
        study = server.study(100_000, FINISHED)
        own = connect(server.url, server.token)
        ours = together(
            ask_ours,
            lambda i: (server.url, server.token, study),
            lambda: own.request("GET", f"/v1/studies/{study}")["done"],
            [server.process.pid],
            SECONDS,
        )
        print(f"advisor serve, SQLite: {ours}", flush=True)
        return ours
    finally:
        server.close()


def measure_ask() -> None:
    """Ours, then Optuna's proxy before PostgreSQL, with both samplers: at most four minutes."""
    ours = measure_ours()
    for port, quick in ((23_571, False), (23_572, True)):
        database = PostgreSQL()
        try:
            url = database.url("postgresql+psycopg")
            fill_optuna(url, FINISHED)
            process = multiprocessing.get_context("spawn").Process(
                target=serve_optuna, args=(url, port), daemon=True
            )
            process.start()
            theirs = together(
                ask_optuna,
                lambda i, port=port, quick=quick: (port, i, quick),
                lambda url=url: finished_by_optuna(url),
                [process.pid, database.pid],
                2 * SECONDS,
            )
            process.kill()
        finally:
            database.stop()
        name = "our sampler" if quick else "Optuna's sampler"
        print(f"Optuna's gRPC proxy, PostgreSQL, {name} in its clients: {theirs}")
        whole = [one.server + one.clients for one in (theirs, ours)]
        ratio = f"{ours.trials / theirs.trials:.1f}" if theirs.trials else "no trial of theirs was finished"
        print(f"  ratio of trials a second {ratio}, of the processor {whole[0] / whole[1]:.1f}", flush=True)


def measure_latency() -> None:
    from advisor.client import connect

    server = Server()
    try:
        study = server.study(100_000, FINISHED)
        took, lock = [], threading.Lock()

        def work(number: int) -> None:
            own = connect(server.url, server.token).study(study)
            for turn in range(int(10 * RATE / CLIENTS)):
                due = started + (turn * CLIENTS + number) / RATE
                time.sleep(max(0.0, due - time.monotonic()))
                begun = time.perf_counter()
                trial = own.ask()
                with lock:
                    took.append(time.perf_counter() - begun)
                own.tell(trial, loss(trial.params))

        started = time.monotonic() + 0.5
        threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took.sort()
        spent = time.monotonic() - started
        p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
        load = os.getloadavg()[0]
        shown = f"median {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, load {load:.1f}"
        print(f"asks at {len(took) / spent:.0f}/s: {shown}")
    finally:
        server.close()


def measure_proposals(asks: int = 20) -> None:
    """Milliseconds of the processor for a proposal, in this process: the whole ask of a study in memory."""
    import random

    import optuna

    from advisor.search.plan import SearchPlan, tpe
    from advisor.search.storage.database import InMemory
    from advisor.search.storage.journal import PLACE, agree
    from advisor.search.study import Complete, Study
    from advisor.spaces.space import Space

    def plain(seed: int):
        return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)

    distributions = {name: _distribution(entry) for name, entry in SPACE.items()}
    space = Space.from_dict({"format": 1, "parameters": SPACE})
    for finished in (1_000, 3_000, 10_000):
        for name, sampler in (("Optuna's", plain), ("ours", tpe)):
            generator, store = random.Random(0), InMemory()
            agree(store.study, "s", 0)
            for number in range(finished):
                drawn = random_configuration(generator)
                kept = {"params": drawn, "distributions": distributions, "value": loss(drawn)}
                store.study.add_trial(optuna.trial.create_trial(**kept, user_attrs={PLACE: number}))
            plan = SearchPlan(space, {}, 100_000, 1, "s", seed=0, sampler=sampler)
            study, took = Study(plan, store), []
            for _ in range(asks if name == "ours" else 5):
                begun = time.process_time()
                given = study.ask()
                took.append(time.process_time() - begun)
                study.tell(given.number, Complete(loss(dict(given.configuration))))
            took = sorted(took[1:])
            print(f"{finished:6,} trials, {name:8}: {took[len(took) // 2] * 1e3:7.1f} ms", flush=True)


def facts_of_a_table() -> dict:
    """Facts of 2,000 rows of 12 columns."""
    import polars as pl

    import advisor

    rows = 2_000
    frame = pl.DataFrame({f"c{i}": [(i * 7 + j * (i + 3)) % 97 for j in range(rows)] for i in range(12)})
    frame = frame.with_columns(y=pl.Series([("a", "b")[j % 2] for j in range(rows)]))
    return json.loads(json.dumps(advisor.measure(frame, "y").to_dict(), default=str))


def advise_some(url: str, token: str, facts: dict, seconds: float, out) -> None:
    from advisor.client import connect

    service, until, took = connect(url, token), time.monotonic() + seconds, []
    facts = json.loads(json.dumps(facts))
    while time.monotonic() < until:
        facts["values"]["rows"] += 1
        begun = time.perf_counter()
        service.recommend(facts)
        took.append(time.perf_counter() - begun)
    out.put(took)


def measure_advice() -> None:
    facts = facts_of_a_table()
    server = Server()
    try:
        context = multiprocessing.get_context("spawn")
        out = context.Queue()
        processes = [
            context.Process(target=advise_some, args=(server.url, server.token, facts, SECONDS, out))
            for _ in range(4)
        ]
        for process in processes:
            process.start()
        took = sorted(one for _ in processes for one in out.get(timeout=120))
        p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
        rate, shown = len(took) / SECONDS, f"median {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms"
        print(f"advice from facts: {rate:.1f}/s, {shown}, 4 clients, load {os.getloadavg()[0]:.1f}")
    finally:
        server.close()


def with_rows(facts: dict, rows: int) -> dict:
    return {**facts, "values": {**facts["values"], "rows": 2_000 + rows}}


def processor_seconds(pid: int) -> float:
    """Of a process and its children."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == pid or int(words[1]) == pid:
            total += int(words[11]) + int(words[12])
    return total / os.sysconf("SC_CLK_TCK")


def measure_costs(count: int = 200) -> None:
    from advisor.client import connect

    server = Server()
    try:
        service, facts = connect(server.url, server.token), facts_of_a_table()
        advised = service.recommend(facts)["id"]
        few = service.study(server.study(100_000, 8))
        many = service.study(server.study(100_000, FINISHED))
        out = few.ask()

        def ask_and_tell(study):
            trial = study.ask()
            study.tell(trial, loss(trial.params))

        numbers = iter(range(1, 10**9))
        kinds = {
            "GET /v1/me": lambda: service.request("GET", "/v1/me"),
            "a report": lambda: few.send(out, "reports", {"epoch": next(numbers), "loss": 1.0}),
            "a heartbeat": lambda: few.send(out, "heartbeat", {}),
            "ask and complete, up to 200 finished trials": lambda: ask_and_tell(few),
            f"ask and complete, {FINISHED:,} finished trials": lambda: ask_and_tell(many),
            "advice from facts": lambda: service.recommend(with_rows(facts, next(numbers))),
            "advice from facts that it has seen": lambda: service.recommend(facts),
            "why": lambda: service.why(advised, "width"),
            "what-if": lambda: service.what_if(advised, {"rows": 10**6}),
        }
        for name, request in kinds.items():
            request()
            before = processor_seconds(server.process.pid)
            for _ in range(count):
                request()
            spent = processor_seconds(server.process.pid) - before
            print(f"| {name} | {spent / count * 1e3:.1f} |", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    parts = {
        "costs": measure_costs,
        "ask": measure_ask,
        "latency": measure_latency,
        "advice": measure_advice,
        "proposals": measure_proposals,
    }
    for name in sys.argv[1:] or parts:
        parts[name]()
