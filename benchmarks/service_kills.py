"""kill -9 of the server at random moments, under clients that ask, report and tell.

    python benchmarks/service_kills.py [KILLS] [CLIENTS]

Checks after each start and at the end: no trial whose tell was acknowledged is lost or has another value,
and no trial was given to two who asked, unless its lease had lapsed. Exit code 1 when one is.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

os.environ.setdefault("OMP_NUM_THREADS", "1")
SPACE = {
    "format": 1,
    "parameters": {
        "x": {"type": "float", "default": 0.5, "low": 0.001, "high": 1.0, "log": True},
        "n": {"type": "int", "default": 2, "low": 1, "high": 9},
    },
}


class Served:
    """A server on one port, that can be killed and started again."""

    def __init__(self, folder: str) -> None:
        self.folder, self.port, self.process = folder, 0, None
        self.start()
        words = [sys.executable, "-m", "advisor", "token", "create", "--data", folder, "--scope", "admin"]
        self.token = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def start(self) -> None:
        words = ["serve", "--data", self.folder, "--port", str(self.port), "--quiet"]
        words += ["--requests-a-minute", "1000000"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "advisor", *words], stderr=subprocess.PIPE, text=True
        )
        self.url = re.search(r"http://\S+", self.process.stderr.readline())[0]
        self.port = int(self.url.rpartition(":")[2])
        said: list[str] = []
        drain = threading.Thread(target=lambda: said.extend(self.process.stderr), daemon=True)
        drain.start()
        while True:
            if self.process.poll() is not None:
                drain.join(5)
                raise RuntimeError(f"the server ended: {''.join(said)}")
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def work(
    service, study_id: str, given: dict, told: dict, lock: threading.Lock, stop: threading.Event
) -> None:
    """Ask, report and tell until it is over; note what was acknowledged."""
    study, generator = service.study(study_id), random.Random()
    while not stop.is_set():
        trial = study.ask()
        if trial is None:
            return
        with lock:
            given.setdefault(trial.number, []).append(trial.attempt)
        value = (trial.params["x"] - 0.1) ** 2 + trial.params["n"]
        trial.report(value, 1)
        time.sleep(generator.expovariate(50))
        ended = study.tell(trial, value)
        with lock:
            told[trial.number] = ended["value"]


def wrongs(study, given: dict, told: dict) -> list[str]:
    """What was lost, changed, or given twice."""
    kept = {one["number"]: one["value"] for one in study.trials()}
    found = [f"trial {n} was acknowledged and is lost" for n in told if n not in kept]
    found += [f"trial {n} was told {v}, and has {kept[n]}" for n, v in told.items() if kept.get(n, v) != v]
    twice = [n for n, attempts in given.items() if len(attempts) != len(set(attempts))]
    return found + [f"trial {n} was given twice in one attempt" for n in twice]


def killed(kills: int, clients: int, trials: int = 1_000_000) -> tuple[int, list[str]]:
    """Kill the server so often; trials that were acknowledged, and what is wrong."""
    from advisor.client import connect

    generator = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="advisor-kills-") as folder:
        server = Served(folder)
        service = connect(server.url, server.token)
        study = service.create_study(space=SPACE, trials=min(trials, 100_000), seed=0, lease_seconds=300)
        given, told, lock, stop = {}, {}, threading.Lock(), threading.Event()
        threads = [
            threading.Thread(
                target=work, args=(connect(server.url, server.token), study.id, given, told, lock, stop)
            )
            for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for _ in range(kills):
            time.sleep(generator.uniform(0.2, 2.0))
            server.kill()
            server.start()
        time.sleep(1.0)
        stop.set()
        for thread in threads:
            thread.join()
        found = wrongs(study, given, told)
        server.kill()
    return len(told), found


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]] or [200, 8]
    count, found = killed(numbers[0], numbers[1] if len(numbers) > 1 else 8)
    print(f"{numbers[0]} kills, {count} trials acknowledged, {len(found)} wrong")
    for line in found[:20]:
        print(line)
    sys.exit(bool(found))
