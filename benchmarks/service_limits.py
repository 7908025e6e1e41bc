"""What the service takes of its machine: memory over many requests, a large upload, its end, a full disk.

    python benchmarks/service_limits.py [memory] [upload] [stop] [disk FOLDER]

``memory``: resident memory of the server and its processes over 100,000 requests, kind by kind: MB after the
first WARM of a kind and after its last, and kB each.
``upload``: seconds of the processor from a CSV of MEGABYTES to its report, over those of ``advisor
recommend`` on the same file, in turn. ``stop``: seconds from TERM to the end, with requests and a stream
under way. ``disk``: FOLDER lies on a small disk of its own (``mount -t tmpfs -o size=24m tmpfs FOLDER``),
which is filled under 4 clients that ask and tell, and emptied again; what was acknowledged must be there.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import service_kills
from service import SPACE, Server, facts_of_a_table, loss, processor_seconds, with_rows

WARM, CLIENTS, MEGABYTES = 1_000, 4, 100


def resident(pid: int) -> float:
    """MB of a process and its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(status.parent.name) == pid or int(words[1]) == pid:
            total += int(words[21]) * resource.getpagesize()
    return total / 1e6


def measure_memory() -> None:
    from advisor.client import connect

    server = Server()
    service, facts, numbers = connect(server.url, server.token), facts_of_a_table(), itertools.count()
    study = service.create_study(space={"format": 1, "parameters": SPACE}, trials=100_000)

    def one_trial():
        study.tell(trial := study.ask(), loss(trial.params))

    kinds = {  # what is asked, how often, and how many requests that is each time
        "GET /v1/me": (lambda: service.request("GET", "/v1/me"), 40_000, 1),
        "a study": (lambda: service.request("GET", f"/v1/studies/{study.id}"), 40_000, 1),
        "advice from facts": (lambda: service.recommend(with_rows(facts, next(numbers))), 4_000, 1),
        "advice it has seen": (lambda: service.recommend(facts), 8_000, 1),
        "a trial of an open study": (one_trial, 4_000, 2),
    }
    asked = 0
    try:
        for kind, (request, times, requests) in kinds.items():
            for _ in range(WARM):
                request()
            before = resident(server.process.pid)
            for _ in range(times - WARM):
                request()
            after = resident(server.process.pid)
            asked += times * requests
            grown = (after - before) / (times - WARM) * 1e3
            print(f"| {kind} | {times:,} | {before:.1f} | {after:.1f} | {grown:.2f} |", flush=True)
        print(f"{asked:,} requests", flush=True)
    finally:
        server.close()


def measure_upload() -> None:
    import numpy as np
    import polars as pl

    from advisor.client import connect

    folder = Path(tempfile.mkdtemp())
    generator = np.random.default_rng(0)
    rows = MEGABYTES * 5_400
    frame = pl.DataFrame({f"x{i}": generator.normal(size=rows).round(6) for i in range(20)})
    frame.with_columns(y=pl.Series(["a", "b"]).gather(generator.integers(0, 2, rows))).write_csv(
        folder / "large.csv"
    )
    print(f"{(folder / 'large.csv').stat().st_size / 1e6:.0f} MB")
    server = Server()
    try:
        for turn in range(2):
            began, before = time.monotonic(), os.times()
            words = ["recommend", "large.csv", "--target", "y", "--out", f"run-{turn}"]
            subprocess.run(
                [sys.executable, "-m", "advisor", *words], cwd=folder, check=True, capture_output=True
            )
            after = os.times()
            here = sum(after[2:4]) - sum(before[2:4])
            print(f"advisor recommend: {here:.1f} s of the processor, {time.monotonic() - began:.1f} s")
            own, began = connect(server.url, server.token), time.monotonic()
            with watched(server.process.pid) as spent:
                size = (folder / "large.csv").stat().st_size
                made = own.request("POST", "/v1/datasets", {"name": "large.csv", "size": size})
                send(server, made["id"], folder / "large.csv")
                wanted = {"dataset": made["id"], "target": "y"}
                advised = own.request("POST", "/v1/recommendations", wanted)
                path = f"{server.url}/v1/recommendations/{advised['id']}/report"
                urllib.request.urlopen(asked(server, path)).read()
            there = spent()
            print(f"upload to report: {there:.1f} s of the processor, {time.monotonic() - began:.1f} s")
            print(f"ratio {there / here:.2f}", flush=True)
    finally:
        server.close()


class watched:
    """Processor seconds of a process and of all its children, those that ended within the block too."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __enter__(self):
        self.before = self._all()
        return lambda: self._all() - self.before

    def __exit__(self, *_) -> None:
        return

    def _all(self) -> float:
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        ended = (int(words[13]) + int(words[14])) / os.sysconf("SC_CLK_TCK")
        return processor_seconds(self.pid) + ended


def asked(server: Server, url: str, **options) -> urllib.request.Request:
    return urllib.request.Request(url, headers={"Authorization": f"Bearer {server.token}"}, **options)


def send(server: Server, dataset: str, file: Path) -> None:
    """In parts of 4 MB, as the page sends it."""
    sent = 0
    with file.open("rb") as content:
        while part := content.read(4 << 20):
            path = f"{server.url}/v1/datasets/{dataset}/content"
            request = asked(server, path, data=part, method="PATCH")
            request.add_header("Upload-Offset", str(sent))
            sent = json.load(urllib.request.urlopen(request))["received"]


def measure_stop() -> None:
    from advisor.client import connect
    from advisor.errors import UserError

    server = Server()
    own = connect(server.url, server.token)
    study = own.create_study(space={"format": 1, "parameters": SPACE}, trials=100_000)
    stream = urllib.request.urlopen(asked(server, f"{server.url}{study.path}/events"))

    def work() -> None:
        mine = connect(server.url, server.token).study(study.id)
        try:
            while True:
                mine.tell(trial := mine.ask(), loss(trial.params))
        except UserError:
            return  # it has ended

    for _ in range(8):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(5)
    began = time.monotonic()
    server.process.terminate()
    code = server.process.wait(60)
    stream.close()
    print(
        f"TERM to the end: {time.monotonic() - began:.1f} s, exit code {code}, load {os.getloadavg()[0]:.1f}"
    )


def measure_disk(folder: Path) -> None:
    from advisor.client import connect

    server = service_kills.Served(folder)
    study = connect(server.url, server.token).create_study(
        space=service_kills.SPACE, trials=100_000, lease_seconds=20
    )
    noted, stop = service_kills.Noted(), threading.Event()
    threads = [
        threading.Thread(target=service_kills.work, args=(server, study.id, noted, stop), daemon=True)
        for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    time.sleep(8)
    filler, told = folder / "filler", [len(noted.told)]
    with filler.open("wb", buffering=0) as file:
        for size in (65_536, 512):
            try:
                while True:
                    file.write(b"0" * size)
            except OSError:
                continue
    time.sleep(12)
    told.append(len(noted.told))
    filler.unlink()
    time.sleep(15)
    told.append(len(noted.told))
    stop.set()
    for thread in threads:
        thread.join(60)
    found = service_kills.wrongs(study, noted)
    server.kill()
    print(f"acknowledged before, when full, after: {told}; wrong: {found}")


if __name__ == "__main__":
    parts = {"memory": measure_memory, "upload": measure_upload, "stop": measure_stop}
    words = sys.argv[1:] or list(parts)
    if "disk" in words:
        measure_disk(Path(words[words.index("disk") + 1]))
    for name, part in parts.items():
        if name in words:
            part()
