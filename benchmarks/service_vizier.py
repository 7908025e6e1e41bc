"""What OSS Vizier's server does in a second: its default algorithm, space and objective of service.py.

    python -m venv ENV && ENV/bin/pip install -r benchmarks/service_vizier.txt
    ENV/bin/python benchmarks/service_vizier.py [FINISHED ...] [--seconds S] [--out FILE]

For each number of finished trials (0 and 1,000 by default) a server of its own with an SQLite file, as
Vizier keeps it by default, and CLIENTS threads that ask and tell in one process; the server is another one.
Counted are the trials that were completed in a span that begins with the first one, and the seconds of the
processor of both processes. A line of FILE says what was found; what stands there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from service import CLIENTS, NAMES, SPACE, loss, processor_seconds, random_configuration

WARM_SECONDS = 120.0
"""So long the first proposal may take: its algorithm is compiled then."""


def serve(folder: str, line) -> None:
    from vizier.service import servers

    server = servers.DefaultVizierServer(database_url=f"sqlite:///{folder}/vizier.db")
    line.send(server.endpoint)
    time.sleep(3_600)


def study_of(endpoint: str, finished: int):
    from vizier.service import clients
    from vizier.service import pyvizier as vz

    clients.environment_variables.server_endpoint = endpoint
    config = vz.StudyConfig(algorithm="DEFAULT")
    root = config.search_space.root
    for name, entry in SPACE.items():
        scale = vz.ScaleType.LOG if entry.get("log") else vz.ScaleType.LINEAR
        if entry["type"] == "categorical":
            root.add_categorical_param(name, entry["choices"])
        elif entry["type"] == "int":
            root.add_int_param(name, entry["low"], entry["high"], scale_type=scale)
        else:
            root.add_float_param(name, entry["low"], entry["high"], scale_type=scale)
    config.metric_information.append(vz.MetricInformation("loss", goal=vz.ObjectiveMetricGoal.MINIMIZE))
    study = clients.Study.from_study_config(config, owner="benchmark", study_id=f"s{finished}")
    generator = random.Random(0)
    for _ in range(finished):
        drawn = random_configuration(generator)
        trial = vz.Trial(parameters=drawn)
        trial.complete(vz.Measurement({"loss": loss(drawn)}))
        study.add_trial(trial)
    return study


def plain(parameters) -> dict:
    found = dict(parameters)
    return {**{name: float(found[name]) for name in NAMES}, "depth": int(found["depth"]),
            "width": int(found["width"]), "kind": str(found["kind"])}  # fmt: skip


def measured(finished: int, seconds: float) -> dict:
    from vizier.service import pyvizier as vz

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="vizier-") as folder:
        server = context.Process(target=serve, args=(folder, theirs), daemon=True)
        server.start()
        study = study_of(ours.recv(), finished)
        done, failures, stop = [], [], threading.Event()

        def work(number: int) -> None:
            try:
                while not stop.is_set():
                    for trial in study.suggest(count=1, client_id=f"client-{number}"):
                        trial.complete(vz.Measurement({"loss": loss(plain(trial.parameters))}))
                        done.append(time.monotonic())
            except Exception as error:  # noqa: BLE001  whatever it is, it is reported
                failures.append(f"{type(error).__name__}: {str(error)[:200]}")

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + WARM_SECONDS
        while not done and not failures and time.monotonic() < until:
            time.sleep(0.05)
        used, before, began = _spent(server.pid), len(done), time.monotonic()
        time.sleep(seconds)
        count, passed = len(done) - before, time.monotonic() - began
        spent = _spent(server.pid) - used
        stop.set()
        server.kill()
    found = {"finished": finished, "trials": count, "seconds": round(passed, 1), "processor": round(spent, 1)}
    return {**found, "load": round(os.getloadavg()[0], 1), "failures": failures[:3]}


def _spent(pid: int) -> float:
    return processor_seconds(pid) + time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("finished", type=int, nargs="*", default=[0, 1_000])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "service_vizier.jsonl")
    asked = parser.parse_args()
    lines = asked.out.read_text().splitlines() if asked.out.exists() else []
    known = {json.loads(line)["finished"]: json.loads(line) for line in lines}
    for finished in asked.finished:
        if finished not in known:
            known[finished] = measured(finished, asked.seconds)
            with asked.out.open("a") as file:
                file.write(json.dumps(known[finished]) + "\n")
        print(json.dumps(known[finished]), flush=True)


if __name__ == "__main__":
    main()
