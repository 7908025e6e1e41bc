"""The programs of examples/clients against a real server, and a server that is killed under its clients."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import serving

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving.serving(tmp_path_factory.mktemp("examples"), scope="advise") as one:
        yield one


def tune(server, *command):
    environment = {**os.environ, "ADVISOR_URL": server.url, "ADVISOR_TOKEN": server.token, "TRIALS": "6"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("best of 6: "), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "name"), [("sh", "tune.sh"), ("node", "tune.mjs"), (sys.executable, "tune.py")]
)
def test_script(server, program, name):
    needed = "curl" if program == "sh" else program
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed")
    tune(server, program, str(CLIENTS / name))


@pytest.mark.slow
def test_cpp(server, tmp_path):
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler is installed")
    subprocess.run(["c++", "-o", tmp_path / "tune", CLIENTS / "tune.cpp"], check=True)
    tune(server, str(tmp_path / "tune"))


@pytest.mark.slow
def test_kills_lose_no_trial_and_give_none_twice(tmp_path):
    program = CLIENTS.parents[1] / "benchmarks" / "service_kills.py"
    done = subprocess.run(
        [sys.executable, program, "--kills", "1", "--clients", "3", "--folder", tmp_path],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
