"""kill -9 of the server at random moments, under clients that ask, report and tell.

    python benchmarks/service_kills.py [--kills 200] [--clients 8] [--folder FOLDER]

Rounds of ROUND kills, each with a study of its own. After each round: no trial whose tell was acknowledged
is lost or has another value, and none was given to two who asked, unless its lease had lapsed. What a round
found stands in FOLDER/rounds.jsonl at once; the same command goes on after the last one. A server that does
not come up again within START_SECONDS is made to say where it stands, and ends the program. Exit code 1 when
anything was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from resumable import keep, kept

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROUND = 10
"""Kills that a study sees: its journal is read whole after each."""
START_SECONDS, JOIN_SECONDS = 90.0, 120.0
UP_SECONDS = (0.2, 2.5)
"""Between two kills, from when the server answers."""
PORTS = (20_000, 30_000)
"""Below those that the kernel gives away: another program that asks for any port, or dials, while the server
is dead may be given the very port, and keep the server from it."""
SPACE = {
    "format": 1,
    "parameters": {
        "x": {"type": "float", "default": 0.5, "low": 0.001, "high": 1.0, "log": True},
        "n": {"type": "int", "default": 2, "low": 1, "high": 9},
    },
}


class Served:
    """A server on one port, that can be killed and started again. log: its stderr, of all its lives."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.port = next(port for port in random.sample(range(*PORTS), 100) if is_free(port))
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None
        self.start()
        words = ["token", "create", "--data", str(folder), "--scope", "admin"]
        made = subprocess.run(
            [sys.executable, "-m", "advisor", *words], capture_output=True, text=True, check=True
        )
        self.token = made.stdout.strip()

    def start(self) -> float:
        """Seconds until it answers. RuntimeError, with its stacks in the log, when it does not."""
        words = ["serve", "--data", str(self.folder), "--port", str(self.port), "--quiet"]
        words += ["--requests-a-minute", "1000000"]
        began = time.monotonic()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "advisor", *words], stderr=log
            )
        why = "nothing"
        while time.monotonic() - began < START_SECONDS:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: see {self.log}")
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                    return time.monotonic() - began
            except urllib.error.HTTPError as error:
                why = f"status {error.code}"
            except OSError as error:
                why = str(error)
            time.sleep(0.05)
        self.process.send_signal(signal.SIGABRT)
        self.process.wait()
        raise RuntimeError(f"the server did not answer in {START_SECONDS:g} s ({why}): see {self.log}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def is_free(port: int) -> bool:
    with socket.socket() as one, contextlib.suppress(OSError):
        one.bind(("127.0.0.1", port))
        return True
    return False


@dataclass
class Noted:
    """What the clients were answered."""

    given: dict[int, list[int]] = field(default_factory=dict)
    told: dict[int, float] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def work(server: Served, study_id: str, noted: Noted, stop: threading.Event) -> None:
    """Ask, report and tell until it is over; note what was acknowledged."""
    from advisor.client import ServiceError, connect
    from advisor.errors import UserError

    study, generator = connect(server.url, server.token).study(study_id), random.Random()
    while not stop.is_set():
        try:
            trial = study.ask(wait=False)
            if trial is None:
                time.sleep(0.2)
                continue
            with noted.lock:
                noted.given.setdefault(trial.number, []).append(trial.attempt)
            value = (trial.params["x"] - 0.1) ** 2 + trial.params["n"]
            trial.report(value, 1)
            time.sleep(generator.expovariate(50))
            ended = study.tell(trial, value)
            with noted.lock:
                noted.told[trial.number] = ended["value"]
        except ServiceError as error:
            with noted.lock:
                noted.complaints.append(str(error))
        except UserError:
            continue  # it gave up waiting: nothing was acknowledged


def wrongs(study, noted: Noted) -> list[str]:
    """What was lost, changed, or given twice."""
    values = {one["number"]: one["value"] for one in study.trials()}
    told, given = noted.told, noted.given
    found = [f"trial {n} was acknowledged and is lost" for n in told if n not in values]
    found += [
        f"trial {n} was told {v}, and has {values[n]}" for n, v in told.items() if values.get(n, v) != v
    ]
    twice = [n for n, attempts in given.items() if len(attempts) != len(set(attempts))]
    return found + [f"trial {n} was given twice in one attempt" for n in twice] + noted.complaints


def one_round(server: Served, kills: int, clients: int, generator: random.Random) -> dict:
    """Kill the server so often under a study; what was acknowledged, what is wrong, how long starts took."""
    from advisor.client import connect

    service = connect(server.url, server.token)
    study = service.create_study(space=SPACE, trials=100_000, seed=0, lease_seconds=300)
    noted, stop = Noted(), threading.Event()
    threads = [
        threading.Thread(target=work, args=(server, study.id, noted, stop), daemon=True)
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    starts = []
    for _ in range(kills):
        time.sleep(generator.uniform(*UP_SECONDS))
        server.kill()
        starts.append(server.start())
    time.sleep(3.0)
    stop.set()
    for thread in threads:
        thread.join(JOIN_SECONDS)
    found = wrongs(study, noted)
    found += [f"{sum(one.is_alive() for one in threads)} clients wait"] * any(
        one.is_alive() for one in threads
    )
    return {
        "kills": kills,
        "clients": clients,
        "given": len(noted.given),
        "acknowledged": len(noted.told),
        "slowest_start": round(max(starts), 1),
        "wrong": found,
    }


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="advisor-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    results, generator = folder / "rounds.jsonl", random.Random()
    left = given.kills - sum(row["kills"] for row in kept(results))
    if left > 0:
        server = Served(folder)
        try:
            while left > 0:
                keep(results, row := one_round(server, min(ROUND, left), given.clients, generator))
                print(row, flush=True)
                left -= row["kills"]
        finally:
            server.kill()
    rows = kept(results)
    told, wrong = sum(row["acknowledged"] for row in rows), [line for row in rows for line in row["wrong"]]
    slowest = max(row["slowest_start"] for row in rows)
    kills = sum(row["kills"] for row in rows)
    print(f"{kills} kills, {told} trials acknowledged, {len(wrong)} wrong, slowest start {slowest:.1f} s")
    for line in wrong[:20]:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
