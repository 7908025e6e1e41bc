"""The same on PostgreSQL: two servers beside each other, and a database that is restarted under them."""

import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from serving import Client
from test_storage import PostgreSQL, binary
from test_studies import SPACE, ask, tell

from advisor.service.app import make_app
from advisor.service.base.security import make_project, make_token
from advisor.service.base.settings import SCOPES, ServiceLimits, ServiceSettings


@pytest.fixture(scope="module")
def postgresql():
    if any(binary(program) is None for program in PostgreSQL.programs):
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    if PostgreSQL.user and subprocess.run(["id", PostgreSQL.user], capture_output=True).returncode:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    with tempfile.TemporaryDirectory(prefix="advisor-db-") as folder:
        running = PostgreSQL(Path(folder))
        yield running
        running.stop()


def replica(postgresql, folder, tokens=None):
    settings = ServiceSettings(folder, postgresql.url, limits=ServiceLimits(run_workers=0))
    app = make_app(settings)
    if tokens is None:

        def write(connection):
            project = make_project(connection, "default")
            return {scope: make_token(connection, project, scope, scope).secret for scope in SCOPES}

        tokens = app.state.service.store.write(write)
    return Client(app, tokens)


@pytest.mark.slow
def test_two_servers_on_one_database(postgresql, tmp_path):
    one = replica(postgresql, tmp_path)
    one.__enter__()
    with replica(postgresql, tmp_path, one.tokens) as two:
        place = one.post("/v1/studies", json={"space": SPACE, "trials": 6}).headers["location"]
        first = ask(one, place, "first")
        assert tell(one, place, first["number"], 0.5).status_code == 200
        out = ask(one, place, "out")
        busy = two.post(f"{place}/trials")  # one study, one owner: its lease is the database's
        assert busy.status_code == 503 and busy.headers["retry-after"]
        one.__exit__(None, None, None)
        assert ask(two, place, "out")["number"] == out["number"]
        assert tell(two, place, out["number"], 0.25).status_code == 200
        assert two.get(f"{place}/best").json()["value"] == 0.25
        postgresql.stop()
        gone = two.get("/v1/recommendations")
        assert gone.status_code == 503 and "send the request again" in gone.json()["detail"]
        assert two.get("/healthz").status_code == 503
        postgresql.start()
        deadline = time.monotonic() + 30
        while two.get("/healthz").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.2)
        third = ask(two, place, "third")
        assert tell(two, place, third["number"], 0.75).status_code == 200
        assert two.get(place).json()["done"] == 3
