"""Data sets: uploads in parts that a dropped connection does not lose, and their first rows.

A part is appended where the file ends, so the file itself says how much has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Header, Request, Response
from pydantic import Field
from sqlalchemy.engine import Connection, RowMapping

from advisor.service.base import tables
from advisor.service.base.access import (
    Adviser,
    Body,
    Cursor,
    Key,
    Limit,
    Reader,
    ServiceState,
    State,
    listed,
    once,
    row_of,
)
from advisor.service.base.problems import Problem
from advisor.service.base.security import Principal, note_action
from advisor.service.base.store import new_id, now
from advisor.service.routes.reader import read_apart

router = APIRouter(prefix="/v1/datasets", tags=["data sets"])
ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".xlsx", ".arff", ".npz", ".npy", ".zip")
"""Files that may be uploaded. Images come as a .zip, with a folder for each class, one table of
labels, or images/ and masks/."""
STEM = re.compile(r"[^A-Za-z0-9._-]+")
MOST_STEM = 60
READERS = 2
"""Uploads that are read at once; others wait."""


class DatasetRequest(Body):
    """A file that is about to be uploaded. size: its bytes."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    size: Annotated[int, Field(ge=1)]


class ReadingPlaces:
    """Which reader processes are free."""

    def __init__(self) -> None:
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for place in range(READERS):
            self._free.put_nowait(place)

    async def read(self, state: ServiceState, order: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """As ``read_apart``, when a process is free."""
        limits = state.settings.limits
        order = {**order, "unpacked": limits.unpacked_bytes}
        place = await self._free.get()
        try:
            return await asyncio.to_thread(
                read_apart, order, folder, limits.read_seconds, limits.read_bytes, place
            )
        finally:
            self._free.put_nowait(place)


def project_folder(state: ServiceState, project: str) -> Path:
    """Where a project's files lie."""
    return state.settings.data.resolve() / "projects" / project


@contextlib.contextmanager
def whole_or_none(folder: Path) -> Iterator[None]:
    """Of a folder that could not be written whole, nothing stays."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def file_of(state: ServiceState, row: RowMapping) -> Path:
    """A data set's file, complete or not."""
    return project_folder(state, row["project"]) / "datasets" / str(row["id"]) / str(row["name"])


def safe_name(name: str) -> str:
    """A file name that is only a name. UserError-like Problem for an ending that is not read."""
    stem, dot, ending = name.replace("\\", "/").rpartition("/")[2].rpartition(".")
    if not dot or f".{ending.lower()}" not in ENDINGS:
        raise Problem(415, f"the file's name must end with one of {', '.join(ENDINGS)}")
    return (STEM.sub("-", stem).strip("-.")[:MOST_STEM] or "data") + f".{ending.lower()}"


@router.post("", status_code=201)
async def create_dataset(
    request: Request, body: DatasetRequest, who: Adviser, state: State, key: Key = None
) -> Response:
    """Announce a file; its content follows, in one part or in many (PATCH .../content)."""
    name, limits = safe_name(body.name), state.settings.limits
    if body.size > limits.upload_bytes:
        raise Problem(413, f"a data set may have {limits.upload_bytes:,} bytes, this one has {body.size:,}")

    def write(connection: Connection) -> tuple[int, Mapping[str, Any]]:
        columns = tables.datasets.c
        total = sa.select(sa.func.coalesce(sa.func.sum(columns.size), 0)).where(
            columns.project == who.project
        )
        if connection.execute(total).scalar_one() + body.size > limits.project_bytes:
            detail = (
                f"the project's data sets would have more than {limits.project_bytes:,} bytes: delete some"
            )
            raise Problem(413, detail)
        row: dict[str, Any] = {"id": new_id("ds"), "project": who.project, "created": now(), "name": name}
        connection.execute(sa.insert(tables.datasets).values(**row, size=body.size, complete=False))
        note_action(connection, who, "dataset.create", row["id"], request.state.request_id)
        return 201, {"id": row["id"], "name": name, "size": body.size, "received": 0, "complete": False}

    answer = await once(state, who, key, request, write)
    return answer


@router.get("")
async def list_datasets(
    who: Reader, state: State, cursor: Cursor = None, limit: Limit = 50
) -> dict[str, Any]:
    """The project's data sets, newest first."""
    return await listed(state, tables.datasets, who, cursor, limit, lambda row: shown_dataset(state, row))


@router.get("/{dataset_id}")
async def get_dataset(dataset_id: str, who: Reader, state: State) -> dict[str, Any]:
    """A data set, and how many of its bytes have arrived: there the next part begins."""
    return shown_dataset(state, await row_of(state, tables.datasets, who, dataset_id, "data set"))


@router.patch("/{dataset_id}/content")
async def append_part(
    request: Request,
    dataset_id: str,
    who: Adviser,
    state: State,
    offset: Annotated[int, Header(alias="Upload-Offset", ge=0)] = 0,
) -> dict[str, Any]:
    """Append the body at ``Upload-Offset``: where what has arrived ends (409 says where that is)."""
    row = await row_of(state, tables.datasets, who, dataset_id, "data set")
    path = file_of(state, row)
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(409, "another part of this data set is arriving: wait for it") from None
        end = os.fstat(handle).st_size
        if offset != end:
            detail = f"{end:,} bytes have arrived: continue with Upload-Offset: {end}"
            raise Problem(409, detail, received=end)
        async for part in request.stream():
            if end + len(part) > row["size"]:
                raise Problem(413, f"more bytes than the {row['size']:,} that were announced")
            await asyncio.to_thread(_write_whole, handle, part, end)
            end += len(part)
        await asyncio.to_thread(os.fsync, handle)
    finally:
        os.close(handle)
    if end == row["size"]:
        await state.store.writing(lambda connection: _complete(connection, row["id"]))
    return {"id": row["id"], "size": row["size"], "received": end, "complete": end == row["size"]}


@router.post("/{dataset_id}/preview")
async def preview(dataset_id: str, who: Reader, state: State) -> dict[str, Any]:
    """The first rows of a table, and what type each column seems to have."""
    path = await complete_file(state, who, dataset_id)
    order = {"do": "preview", "path": str(path)}
    return await state.parts[ReadingPlaces].read(state, order, path.parent)  # type: ignore[no-any-return]


@router.delete("/{dataset_id}", status_code=204)
async def delete_dataset(request: Request, dataset_id: str, who: Adviser, state: State) -> Response:
    """Delete a data set with its file. Recommendations made of it stay; they hold facts and no rows."""
    row = await row_of(state, tables.datasets, who, dataset_id, "data set")

    def write(connection: Connection) -> None:
        connection.execute(sa.delete(tables.datasets).where(tables.datasets.c.id == row["id"]))
        note_action(connection, who, "dataset.delete", row["id"], request.state.request_id)

    await state.store.writing(write)
    await asyncio.to_thread(shutil.rmtree, file_of(state, row).parent, ignore_errors=True)
    return Response(status_code=204)


async def complete_file(state: ServiceState, who: Principal, dataset_id: str) -> Path:
    """The file of a data set that has arrived whole; 404 where it is another's, 409 where it has not."""
    row = await row_of(state, tables.datasets, who, dataset_id, "data set")
    if not row["complete"]:
        received = shown_dataset(state, row)["received"]
        raise Problem(
            409, f"of the data set {received:,} of {row['size']:,} bytes have arrived: send the rest"
        )
    return file_of(state, row)


def shown_dataset(state: ServiceState, row: RowMapping) -> dict[str, Any]:
    """A data set as it is answered."""
    path = file_of(state, row)
    received = row["size"] if row["complete"] else path.stat().st_size if path.exists() else 0
    shown = {name: row[name] for name in ("id", "name", "size", "created", "complete")}
    return {**shown, "received": received}


def _write_whole(handle: int, part: bytes, begin: int) -> None:
    """Write all of a part, or nothing: a disk that is nearly full takes the first bytes."""
    try:
        written = 0
        while written < len(part):
            written += os.pwrite(handle, part[written:], begin + written)
    except OSError:
        os.ftruncate(handle, begin)
        raise


def _complete(connection: Connection, dataset_id: str) -> None:
    columns = tables.datasets.c
    connection.execute(sa.update(tables.datasets).where(columns.id == dataset_id).values(complete=True))
