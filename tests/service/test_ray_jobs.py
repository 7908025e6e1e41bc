"""A tuning job by the job API of a real Ray head: submitted, watched, stopped, and its model there."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import serving
from test_runs import FAST, wait_for

for module in ("aiohttp_cors", "opencensus", "colorful"):
    pytest.importorskip(module, reason="Ray's job API is in ray[default]")
pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """The address of the job API of a cluster of one core."""
    folder, port = tempfile.mkdtemp(prefix="ray"), free_port()
    words = ["start", "--head", "--block", "--num-cpus", "1", "--disable-usage-stats", "--temp-dir", folder]
    ports = {"port": free_port(), "dashboard-port": port, "dashboard-agent-listen-port": free_port()}
    words += [f"--{name}={value}" for name, value in ports.items()]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # jobs say `python`
    with Path(folder, "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            stdout=log,
            stderr=log,
            env=os.environ | {"PATH": path},
        )
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).read()
            break
        except (urllib.error.URLError, OSError):
            assert process.poll() is None and time.monotonic() < until, Path(folder, "log").read_text()
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_run_is_a_job_of_the_cluster(head, tmp_path):
    with serving.serving(tmp_path, "--address", head) as server:
        wanted = {"dataset": server.upload("d.csv", serving.ROWS.encode()), "target": "y", "fixed": FAST}
        advised = server.ask("POST", "/v1/recommendations", wanted).json["id"]
        place = server.ask("POST", "/v1/runs", {"recommendation": advised, "trials": 2}).headers["location"]
        run = wait_for(server, place, "done", "failed")
        assert run["state"] == "done", run
        assert server.ask("GET", f"{place}/model").status == 200
    with urllib.request.urlopen(f"{head}/api/jobs/") as answer:
        jobs = answer.read().decode()
    name = place.rpartition("/")[2]
    assert f"advisor-{name}-1" in jobs and f"advisor-{name}-2" not in jobs
    assert "SUCCEEDED" in jobs and server.token not in jobs
