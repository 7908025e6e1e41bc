"""`--storage`: the study in a database. PostgreSQL and MySQL for real where a server
is installed, and an SQLite file."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState

import advisor
from advisor.cli.main import _run
from advisor.errors import UserError
from advisor.search.storage import database as storage
from advisor.search.storage.database import Database, checked_url, read_database_study, without_password

PLAN = {"epochs": 2, "validation": "holdout", "batch_size": 64}
PASSWORD = "se/cret@1"


def binary(name):
    places = [shutil.which(name), *sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)]
    return next((str(place) for place in places if place), None)


class Server:
    """A database server of our own on a free port, with a user ``team`` who has a password."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        folder.chmod(0o777)
        self.make()
        self.start()
        password = PASSWORD.replace("/", "%2F").replace("@", "%40")
        self.url = f"{self.kind}://team:{password}@127.0.0.1:{self.port}/{self.database}"

    def _call(self, name, *arguments, **options):
        subprocess.run(
            [binary(name), *arguments], check=True, user=self.user, cwd=self.folder, timeout=120,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options,
        )  # fmt: skip


class PostgreSQL(Server):
    kind, database, variable, refusal = (
        "postgresql",
        "postgres",
        "PGPASSWORD",
        "password authentication failed",
    )
    programs, package = ("initdb", "pg_ctl"), "postgresql"
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root

    def make(self):
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._call("initdb", "-D", str(self.data), "-U", "team", "-A", "scram-sha-256", f"--pwfile={secret}")

    def start(self):
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c fsync=off"
        self._call(
            "pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", options, "start"
        )

    def stop(self):
        self._call("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")


class MySQL(Server):
    """MariaDB, which is what Debian has of it."""

    kind, database, variable, refusal = "mysql", "studies", "MYSQL_PWD", "Access denied"
    programs, package = ("mariadb-install-db", "mariadbd", "mariadb"), "mariadb-server"
    user = "mysql" if os.getuid() == 0 else None

    def make(self):
        self._call(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self.data}",
            "--auth-root-authentication-method=normal",
        )

    def start(self):
        self.process = subprocess.Popen(
            [binary("mariadbd"), "--no-defaults", f"--datadir={self.data}", f"--socket={self.folder / 's'}",
             f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={self.folder / 'pid'}"],
            user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(600):
            if (self.folder / "s").exists():
                break
            time.sleep(0.1)
        self._call(
            "mariadb", "--no-defaults", f"--socket={self.folder / 's'}", "--user=root",
            f"--execute=CREATE DATABASE IF NOT EXISTS {self.database}; CREATE USER IF NOT EXISTS "
            "team@localhost "
            f"IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON {self.database}.* TO team@localhost",
        )  # fmt: skip

    def stop(self):
        self.process.kill()
        self.process.wait()
        (self.folder / "s").unlink()


@pytest.fixture(scope="module", params=[PostgreSQL, MySQL], ids=lambda kind: kind.kind)
def server(request):
    kind = request.param
    if any(binary(program) is None for program in kind.programs):
        pytest.skip(f"no {kind.__name__} server is installed (apt-get install {kind.package})")
    if kind.user and subprocess.run(["id", kind.user], capture_output=True, check=False).returncode:
        pytest.skip(f"{kind.__name__} does not run as root, and there is no user {kind.user}")
    import tempfile

    # Not below pytest's folder: others may not enter that one, and the server is another user.
    with tempfile.TemporaryDirectory(prefix="advisor-db-") as folder:
        running = kind(Path(folder))
        yield running
        running.stop()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i % 7},{(i * 5) % 11},{'yes' if (i % 7) + (i * 5) % 11 > 8 else 'no'}" for i in range(80)]
    Path("d.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    return tmp_path


def tune(trials=3, **options):
    return advisor.tune("d.csv", "y", trials=trials, out="run", executor="in-process", fixed=PLAN, **options)


# ------------------------------------------------------------------------------------------------ the URL


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "not a database URL"),
        ("", "not a database URL"),
        ("postgres://u@h/d", "did you mean 'postgresql'"),
        ("redis://h/0", "a 'redis' database"),
        ("postgresql://u@h", "names no database"),
        ("sqlite://", "names no database"),
    ],
)
def test_what_is_no_database_is_named_and_starts_nothing(url, says, here, capfd):
    assert _run(["tune", "d.csv", "--target", "y", "--executor", "in-process", "--storage", url]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err
    assert not Path("runs").exists()


def test_a_missing_driver_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(storage, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tuning-advisor\[postgresql\]'"):
        checked_url("postgresql://u@h/d")


def test_a_password_is_never_written_down():
    assert without_password("postgresql://u:secret@h:5/d?sslmode=require") == "postgresql://u@h:5/d"


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:secret@127.0.0.1:9/d", "mysql://u:secret@127.0.0.1:9/d", "sqlite:////no/such/x.db"],
)
def test_a_database_that_does_not_answer_is_one_line(url, here, capfd):
    command = [
        "tune",
        "d.csv",
        "--target",
        "y",
        "--executor",
        "in-process",
        "--trials",
        "2",
        "--storage",
        url,
    ]
    assert _run([*command, "--out", "run", "--quiet", "--fixed", "validation=holdout"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "no database answers at " + without_password(url) in err and "secret" not in err


# ------------------------------------------------------------------------------------------------ SQLite


def test_what_fails_before_the_search_makes_no_database(here, capfd):
    """Regression: looking whether it answers made the file."""
    command = [
        "tune",
        "missing.csv",
        "--target",
        "y",
        "--executor",
        "in-process",
        "--storage",
        "sqlite:///study.db",
    ]
    assert _run(command) == 2
    assert "missing.csv does not exist" in capfd.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["d.csv"]


@pytest.mark.slow
def test_a_study_in_a_file_is_resumed_shown_and_not_moved(here, capfd):
    first = tune(2, storage="sqlite:///study.db").document["search"]["trials"]
    assert not Path("run/study.journal").exists()
    more = advisor.tune("run", trials=3, executor="in-process").document["search"]["trials"]
    assert more[:2] == first and len(more) == 3
    assert "study" not in capfd.readouterr().err  # as Optuna's log says it
    assert _run(["status", "run", "--json"]) == 0
    status = json.loads(capfd.readouterr().out)
    assert (status["state"], status["done"], status["storage"]) == ("finished", 3, "sqlite:///study.db")
    with pytest.raises(UserError, match="leave --storage out"):
        advisor.tune("run", trials=4, executor="in-process", storage="sqlite:///other.db")
    with pytest.raises(UserError, match="with other options"):
        advisor.tune("d.csv", "y", trials=4, out="run", executor="in-process", fixed={**PLAN, "width": 32})
    Path("study.db").unlink()
    assert _run(["status", "run"]) == 2
    assert "has no study" in capfd.readouterr().err


@pytest.mark.slow
def test_a_run_with_a_journal_does_not_move_into_a_database(here):
    tune(2)
    with pytest.raises(UserError, match=r"is in run/study\.journal"):
        tune(3, storage="sqlite:///study.db")


@pytest.mark.slow
def test_the_database_asks_what_the_journal_asks(here):
    """The same trials, wherever the study is kept."""
    whole = tune(4).document["search"]["trials"]
    shutil.rmtree("run")
    other = tune(4, storage="sqlite:///study.db").document["search"]["trials"]
    assert [(t["configuration"], t["value"]) for t in whole] == [
        (t["configuration"], t["value"]) for t in other
    ]


# ------------------------------------------------------------------------------------- PostgreSQL and MySQL


@pytest.mark.slow
def test_killed_on_a_database_it_goes_on(here, server):
    """kill -9 of the driver; the same command goes on; nothing that was finished
    is lost, nothing stays open."""
    command = [
        sys.executable,
        "-m",
        "advisor",
        "tune",
        "d.csv",
        "--target",
        "y",
        "--executor",
        "in-process",
        "--out",
        "run",
    ]
    command += [
        "--trials",
        "4",
        "--fixed",
        "epochs=20",
        "--fixed",
        "validation=holdout",
        "--storage",
        server.url,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stderr:
            if line.startswith("trial 1 "):
                break
        os.killpg(process.pid, signal.SIGKILL)
    request = json.loads(Path("run/search.json").read_text())
    assert PASSWORD not in json.dumps(request) and request["storage"] == without_password(server.url)
    kept = read_database_study(server.url, request["study"]).trials
    assert sum(trial.state.is_finished() for trial in kept) >= 2
    environment = {**os.environ, server.variable: PASSWORD}  # the run folder knows the rest
    done = subprocess.run(
        [sys.executable, "-m", "advisor", "tune", "run", "--executor", "in-process", "--trials", "4", "--json"],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["search"]["trials"]) == 4
    states = [trial.state for trial in read_database_study(server.url, request["study"]).trials]
    assert TrialState.RUNNING not in states and TrialState.WAITING not in states
    assert all(
        PASSWORD not in path.read_text(errors="ignore") for path in Path("run").rglob("*") if path.is_file()
    )


@pytest.mark.slow
def test_two_drivers_cannot_share_a_study(server):
    """The lease is the database's: it ends with the connection."""
    first = Database.open(server.url, "shared")
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on .* since "):
        Database.open(server.url, "shared")
    Database.open(server.url, "another").close()
    first.close()
    Database.open(server.url, "shared").close()


@pytest.mark.slow
def test_a_database_that_restarts_is_waited_for(server, monkeypatch):
    database = Database.open(server.url, "restarted")
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            server.start()

    # the module's own clock: a patched time.sleep would let every other thread run wild
    monkeypatch.setattr(storage, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    trial = database.study.ask()
    server.stop()
    trial.suggest_float("x", 0, 1)
    trial.report(0.5, 1)
    database.study.tell(trial, 0.25)
    assert len(pauses) >= 2
    assert [t.value for t in read_database_study(server.url, "restarted").trials] == [0.25]
    server.stop()
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(UserError, match="does not work"), storage.failures(server.url):
        database.study.ask()
    server.start()
    database.close()


@pytest.mark.slow
def test_a_lease_that_a_restart_released_is_taken_again(server):
    now = [0.0]
    first = Database.open(server.url, "regained", clock=lambda: now[0])
    for _ in range(2):
        server.stop()
        server.start()
        now[0] += storage.LEASE_SECONDS
        first.sync()
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
            Database.open(server.url, "regained")
    server.stop()
    server.start()
    second = Database.open(server.url, "regained")  # quicker than the first's look
    now[0] += storage.LEASE_SECONDS
    with pytest.raises(UserError, match="in use by process"):
        first.sync()
    first.close()
    assert second.study.user_attrs[storage.HOLDER], "the name that stands there is the second's"
    second.close()


@pytest.mark.slow
def test_a_wrong_password_is_one_line(here, server, capfd):
    url = server.url.replace("cret", "crab")
    command = [
        "tune",
        "d.csv",
        "--target",
        "y",
        "--executor",
        "in-process",
        "--trials",
        "2",
        "--storage",
        url,
    ]
    assert _run([*command, "--out", "run", "--quiet"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and server.refusal in err and "crab" not in err
    assert not Path("run/search.json").exists(), "a run does not remember a database that it never reached"
