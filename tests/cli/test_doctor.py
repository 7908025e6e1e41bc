"""`advisor doctor`, and joining a cluster that someone else has started."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advisor.cli import doctor
from advisor.cli.doctor import (
    examine,
    judge_file_clock,
    judge_gpu,
    judge_machine,
    judge_node,
    judge_store,
    judge_token,
    measure_here,
)
from advisor.cli.main import _run
from advisor.executors.ray.errors import core_log, why_not

VERSIONS = {"tuning-advisor": "1", "ray": "2", "optuna": "5", "torch": "2.13.0", "polars": "1", "numpy": "2"}
WELL = {
    "host": "here",
    "python": "3.11.7",
    "cores": 8,
    "quota": None,
    "load": 1.0,
    "disk": {"/work": [10**12, 10**11], "/tmp": [10**12, 5 * 10**11]},
    "shared_memory": 2**33,
    "gpus": 0,
    "hidden_gpus": False,
    "threads": None,
    "versions": VERSIONS,
    "clock": 1000.0,
}
NODE = {"host": "n1", "alive": True, "resources": {"CPU": 8.0}, "measured": WELL, "between": [999.5, 1000.5]}


def wrong(checks):
    return [(check.name, check.state) for check in checks if check.state != "ok"]


def test_a_healthy_machine_and_node_have_nothing_to_mend():
    assert wrong(judge_machine(WELL, "")) == []
    assert wrong(judge_node(NODE, WELL)) == []
    assert wrong(judge_store(10, 100)) == [] and judge_store(0, 0) == []
    assert judge_gpu(WELL, 0).state == "ok" and judge_file_clock(0.5).state == "ok"


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        ({"quota": 2.0}, "cores", "8 cores are seen, the container may use 2"),
        ({"threads": "64"}, "threads", "OMP_NUM_THREADS=64 on 8 cores"),
        ({"disk": {"/tmp": [10**12, 10**10]}}, "disk", "/tmp is 99% full"),
        ({"disk": {"/tmp": [10**10, 9 * 10**8]}}, "disk", "0.9 GB are left"),
        ({"shared_memory": 64 * 2**20}, "shared memory", "/dev/shm has 64 MB"),
    ],
)
def test_what_is_wrong_with_a_machine_is_said_with_a_cure(change, name, says):
    (check,) = [check for check in judge_machine(WELL | change, "") if check.state == "problem"]
    assert check.name == name and says in check.says and check.do


def test_a_busy_machine_is_a_note():
    (check,) = [check for check in judge_machine(WELL | {"load": 40.0}, "") if check.state != "ok"]
    assert (check.name, check.state) == ("cores", "note") and "40.0 programs share 8 cores" in check.says


@pytest.mark.parametrize(
    ("change", "sees", "says"),
    [
        ({"gpus": 2}, 2, "2 of 2 seen by PyTorch"),
        ({"gpus": 2, "hidden_gpus": True}, 0, "hidden by CUDA_VISIBLE_DEVICES"),
        (
            {"gpus": 2, "versions": VERSIONS | {"torch": "2.13.0+cpu"}},
            0,
            "PyTorch (2.13.0+cpu) cannot use them",
        ),
        ({"gpus": 2}, 0, "sees none"),
    ],
)
def test_gpus_that_are_not_seen_are_said(change, sees, says):
    check = judge_gpu(WELL | change, sees)
    assert says in check.says
    assert check.state == ("ok" if sees else "problem")


@pytest.mark.parametrize(
    ("measured", "node", "says"),
    [
        ({"versions": VERSIONS | {"ray": "1.9"}}, {}, "ray 1.9 (here 2)"),
        ({"versions": VERSIONS | {"tuning-advisor": None}}, {}, "tuning-advisor is missing (here 1)"),
        (
            {"versions": VERSIONS | {"torch": "2.12.0"}},
            {},
            "torch 2.12.0 (here 2.13.0)",
        ),  # the executor refuses it too
        ({"versions": VERSIONS | {"polars": "2"}}, {}, "polars 2 (here 1)"),
        ({"python": "3.12.1"}, {}, "Python 3.12.1 (here 3.11.7)"),
        ({}, {"resources": {"CPU": 64.0}}, "offers 64 CPUs and has 8 cores"),
        ({"gpus": 4}, {}, "has 4 GPUs and offers none"),
        (
            {"versions": VERSIONS | {"torch": "1+cpu"}},
            {"resources": {"CPU": 8.0, "GPU": 1.0}},
            "its PyTorch cannot use them",
        ),
        ({"clock": 1060.0}, {}, "is 60 s off"),
        ({"clock": 900.0}, {}, "is 100 s off"),
    ],
)
def test_what_is_wrong_with_a_node_is_said(measured, node, says):
    checks = judge_node(NODE | {"measured": WELL | measured} | node, WELL)
    assert any(check.state == "problem" and says in check.says and "n1" in check.name for check in checks), (
        checks
    )


def test_another_build_of_the_same_version_is_fine():
    measured = WELL | {"versions": VERSIONS | {"torch": "2.13.0+cu130"}}
    assert wrong(judge_node(NODE | {"measured": measured}, WELL)) == []


def test_a_node_that_does_not_answer_and_one_that_is_gone():
    silent = {name: NODE[name] for name in ("host", "alive", "resources")} | {"error": "timed out"}
    assert "does not answer (timed out)" in judge_node(silent, WELL)[0].says
    assert judge_node(NODE | {"alive": False}, WELL) == []


def test_a_full_store_an_odd_clock_and_tokens():
    assert judge_store(95e9, 100e9)[0].says == "95% of 100.0 GB are taken"
    assert judge_store(95e9, 100e9)[0].state == "problem"
    assert judge_file_clock(None).state == judge_file_clock(-9.0).state == "problem"
    assert [judge_token(found).state for found in ([], ["RAY_AUTH_TOKEN"], ["~/.ray/auth_token"])] == [
        "ok",
        "ok",
        "note",
    ]


@pytest.mark.parametrize(
    ("said", "token", "what"),
    [
        ("... Unauthenticated: RPC error: InvalidAuthToken: ...", "x", "h:1 refuses our token"),
        (
            "... Unauthenticated: RPC error: InvalidAuthToken: ...",
            "",
            "h:1 requires a token, and none is set here",
        ),
        (
            "Token authentication is enabled but no authentication token was found.",
            "",
            "RAY_AUTH_MODE is token",
        ),
        (
            "Version mismatch: the cluster has\n    Ray: 2.9\n    Python: 3.9",
            "",
            "h:1 has other versions (Ray: 2.9 Python: 3.9)",
        ),
        (
            "ConnectionError: Could not find any running Ray instance.",
            "",
            "no Ray cluster was started on this machine",
        ),
        (
            "RuntimeError: Starting Ray client server failed. See",
            "",
            "h:1 cannot start the process that serves a client",
        ),
        ("", "", "h:1 accepts connections but cannot be joined (no answer)"),
    ],
)
def test_why_a_cluster_was_not_joined(said, token, what, monkeypatch):
    if token:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    found, do = why_not("h:1", said)
    assert found.startswith(what) and do


def test_the_log_of_rays_core_is_kept_and_the_rest_goes_on(capfd):
    with core_log() as said:
        os.write(2, b"[2026-11-24 08:25:40,472 W 30552 31000] gcs_client.cc:210: InvalidAuthToken\n")
        os.write(2, b"somebody else's\n")
        assert "InvalidAuthToken" in said()
    assert capfd.readouterr().err == "somebody else's\n"


def test_the_command_says_it_in_words_and_in_json(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "measure_here", lambda: WELL)
    assert _run(["doctor"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[0].startswith("ok      versions: ") and err == "nothing needs fixing\n"
    monkeypatch.setattr(doctor, "measure_here", lambda: WELL | {"quota": 1.0})
    assert _run(["doctor", "--json", "--storage", "postgresql://u:secret@127.0.0.1:9/d"]) == 3
    out, _ = capfd.readouterr()
    document = json.loads(out)
    assert not document["healthy"] and "secret" not in out
    assert {check["name"] for check in document["checks"] if check["state"] == "problem"} == {
        "cores",
        "storage",
    }


def test_this_machine_can_be_measured():
    here = measure_here()
    assert here.keys() == WELL.keys() and here["cores"] >= 1 and here["versions"]["ray"]
    assert examine()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9"),
        ("nowhere", "'nowhere' is not an address"),
        ("ray://127.0.0.1:9", "no Ray cluster answers at ray://127.0.0.1:9"),
    ],
)
def test_an_address_where_no_cluster_is(address, says, capfd):
    assert _run(["doctor", "--address", address]) == 3
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("PROBLEM")]
    assert line.startswith("PROBLEM cluster: ") and says in line


# --------------------------------------------------------------------------------------------- a real cluster


@contextlib.contextmanager
def started_by_someone_else(home, mode):
    """`ray start --head` with RAY_AUTH_MODE = mode, in a home with a token and on
    ports of its own; (address, client's)."""
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("0123456789abcdef" * 2)
    (home / ".ray" / "auth_token").chmod(0o600)
    with socket.socket() as probe, socket.socket() as other:
        for one in (probe, other):
            one.bind(("127.0.0.1", 0))
        port, client = (one.getsockname()[1] for one in (probe, other))
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        f"--port={port}",
        "--num-cpus=2",
        "--block",
    ]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--ray-client-server-port={client}"]
    environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": mode}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    try:
        for _ in range(600):
            with socket.socket() as knock, socket.socket() as client_knock:
                if (
                    knock.connect_ex(("127.0.0.1", port)) == 0
                    and client_knock.connect_ex(("127.0.0.1", client)) == 0
                ):
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}"
    finally:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(process.name)) == head.pid:
                    os.kill(int(process.name), signal.SIGKILL)
        head.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One with a token; (address, client's, home)."""
    home = tmp_path_factory.mktemp("home")
    with started_by_someone_else(home, "token") as addresses:
        yield *addresses, home


def outside(command, folder, home, **environment):
    """A command in a process whose surroundings say nothing about authentication."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    return subprocess.run(
        [sys.executable, "-m", "advisor", *command], cwd=folder, env={**kept, "HOME": str(home), **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", ["head", "client"])
def test_a_cluster_of_someone_else_is_joined_with_its_token(cluster, way, tmp_path):
    """The objective's code is sent; the token is found; afterwards the cluster is
    still there, and without our actors."""
    head, client, home = cluster
    address = head if way == "head" else client
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine_sent.py").write_text(
        "def f(trial):\n    return trial.configuration['learning_rate']\n"
    )
    rows = [f"{i % 7},{(i * 5) % 11},{'yes' if (i % 7) + (i * 5) % 11 > 8 else 'no'}" for i in range(80)]
    (tmp_path / "d.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    command = [
        "tune",
        "d.csv",
        "--target",
        "y",
        "--trials",
        "3",
        "--address",
        address,
        "--out",
        "run",
        "--json",
    ]
    command += ["--objective", "mine_sent:f", "--working-dir", "code", "--fixed", "validation=holdout"]
    done = outside(command, tmp_path, home)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["search"]["trials"]) == 3
    found = outside(["doctor", "--address", address, "--json"], tmp_path, home)
    checks = {check["name"]: check for check in json.loads(found.stdout)["checks"]}
    assert checks["cluster"]["says"] == "1 nodes, 2 CPUs, 0 GPUs", found.stderr
    assert checks["object store"]["state"] == "ok"


@pytest.mark.slow
def test_a_wrong_token_is_one_line(cluster, tmp_path):
    address, _, home = cluster
    command = ["tune", "sklearn:wine", "--target", "target", "--trials", "3", "--address", address, "--quiet"]
    done = outside(command, tmp_path, home, RAY_AUTH_TOKEN="f" * 32, RAY_NUM_REDIS_GET_RETRIES="2")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert f"{address} refuses our token" in done.stderr and "advisor doctor" in done.stderr


@pytest.mark.slow
def test_a_token_that_lies_about_is_not_shown_where_none_is_wanted(tmp_path):
    """A driver with a token refuses the calls of a cluster without, which then drops its workers."""
    home = tmp_path / "home"
    home.mkdir()
    command = [
        "tune",
        "sklearn:wine",
        "--target",
        "target",
        "--trials",
        "2",
        "--fixed",
        "validation=holdout",
        "--quiet",
    ]
    with started_by_someone_else(home, "disabled") as (address, _):
        done = outside([*command, "--address", address], tmp_path, home)
        assert (done.returncode, done.stderr) == (0, "")
        for environment, state in (({}, "ok"), ({"RAY_AUTH_MODE": "token"}, "problem")):
            found = outside(["doctor", "--address", address, "--json"], tmp_path, home, **environment)
            [check] = [check for check in json.loads(found.stdout)["checks"] if check["name"] == "cluster"]
            assert check["state"] == state
        assert "requires no token" in check["says"] and "unset RAY_AUTH_MODE" in check["do"]


@pytest.mark.slow
def test_behind_a_client_the_executor_keeps_the_contract(cluster):
    _, client, home = cluster
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        # without our conftest.py, which switches tokens off
        [sys.executable, "-m", "pytest", "--noconftest", str(Path(__file__).parents[1] / "client_contract.py"), "-q"],
        env={**kept, "HOME": str(home), "RAY_AUTH_MODE": "token", "ADDRESS": client},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
