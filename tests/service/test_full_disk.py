"""A full disk: 507 with one sentence, nothing left behind, and all goes on when there is space again."""

import errno
import io
import os
import threading
import zipfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from test_studies import SPACE, ask, tell

from advisor.service.base import tables
from advisor.service.base.problems import is_full
from advisor.service.base.store import Store

FAILING = """
import errno, io, os
plain = io.open
class Full:
    def __init__(self, file): self._file = file
    def __enter__(self): return self
    def __exit__(self, *error): self._file.close()
    def write(self, part): raise OSError(errno.{name}, os.strerror(errno.{name}))
def opened(file, mode="r", *args, **options):
    made = plain(file, mode, *args, **options)
    return Full(made) if mode == "xb" and "/unpacked." in str(file) else made
io.open = opened
"""
"""For a process of its own: what it unpacks finds a full disk."""


def full(answer):
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (507, 507), answer.text
    assert "disk is full" in problem["detail"] and "\n" not in problem["detail"]
    assert int(answer.headers["retry-after"]) > 0
    return True


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT"])
def test_an_archive_that_does_not_fit(client, tmp_path, monkeypatch, name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/1.png", b"x" * 1_000)
    dataset = client.upload(buffer.getvalue(), "set.zip")
    (tmp_path / "sitecustomize.py").write_text(FAILING.format(name=name))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert full(client.post(f"/v1/datasets/{dataset}/preview"))
    folder = next(client.app_itself.state.service.settings.data.glob(f"projects/*/datasets/{dataset}"))
    assert [path.name for path in folder.iterdir()] == ["set.zip"]


def test_a_part_of_an_upload_that_does_not_fit(client, monkeypatch):
    made = client.post("/v1/datasets", json={"name": "d.csv", "size": 10}).json()
    place, plain = f"/v1/datasets/{made['id']}", os.pwrite

    def nearly_full(handle, content, offset):
        if len(content) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(handle, content[:4], offset)  # what a disk does that has room for four bytes

    monkeypatch.setattr(os, "pwrite", nearly_full)
    assert full(client.patch(f"{place}/content", content=b"a,y\n1,2\n3,"))
    monkeypatch.undo()
    assert client.get(place).json()["received"] == 0
    assert client.patch(f"{place}/content", content=b"a,y\n1,2\n3,").json()["complete"]


def test_a_trial_whose_end_does_not_fit(client, monkeypatch):
    place = client.post("/v1/studies", json={"space": SPACE, "trials": 3}).headers["location"]
    trial, plain = ask(client, place), os.write

    def write(handle, content):
        if Path(f"/proc/self/fd/{handle}").readlink().suffix == ".journal":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(handle, content)

    monkeypatch.setattr(os, "write", write)
    assert full(tell(client, place, trial["number"], 0.5))
    monkeypatch.undo()
    assert tell(client, place, trial["number"], 0.5).status_code == 200
    assert client.get(place).json()["done"] == 1


def test_a_database_that_cannot_grow(own_client):
    client = own_client(run_workers=0)
    engine = client.app_itself.state.service.store.engine

    @sa.event.listens_for(engine, "begin")
    def small(connection):
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    answers = [client.post("/v1/studies", json={"space": SPACE, "trials": 3}) for _ in range(40)]
    assert all(full(answer) for answer in answers if answer.status_code != 201)
    assert 507 in {answer.status_code for answer in answers}
    sa.event.remove(engine, "begin", small)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1073741823")
    kept = client.get("/v1/studies").json()["items"]
    assert len(kept) == sum(answer.status_code == 201 for answer in answers)


def test_a_write_that_went_well_is_not_acknowledged_if_sqlite_undoes_it(tmp_path):
    """The full disk of one write rolls back the transaction that it shares with others."""
    store = Store(f"sqlite:///{tmp_path / 'a.db'}")

    @sa.event.listens_for(store.engine, "begin")
    def small(connection):
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def write(name, size, gate=None):
        def work(connection):
            assert gate is None or gate.wait(20)
            values = {"id": name, "name": name * size, "created": 0}
            connection.execute(sa.insert(tables.projects).values(**values))

        return store.submit(work)

    gate = threading.Event()
    first = write("a", 1, gate)  # while it waits, the next two come into one transaction
    futures = {"a": first, "b": write("b", 1), "c": write("c", 100_000), "d": write("d", 1)}
    gate.set()
    told = {name for name, future in futures.items() if future.exception(20) is None}
    there = set(store.read(lambda connection: connection.scalars(sa.select(tables.projects.c.id)).all()))
    store.close()
    assert told == there and "c" not in told
    assert is_full(futures["c"].exception())


def test_a_run_and_rules_that_do_not_fit_leave_nothing(client, monkeypatch):
    advised = client.post("/v1/recommendations", json={"dataset": client.upload(), "target": "y"}).json()
    before = {path for path in _folders(client)}

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    assert full(client.post("/v1/runs", json={"recommendation": advised["id"], "trials": 2}))
    rules = {"name": "ours", "files": {"ours.yaml": "format: 1\nrules: []\n"}}
    assert full(client.post("/v1/rules", json=rules))
    monkeypatch.undo()
    assert {path for path in _folders(client)} == before


def _folders(client):
    home: Path = client.app_itself.state.service.settings.data
    return [*home.glob("projects/*/runs/*"), *home.glob("projects/*/rules/*")]
