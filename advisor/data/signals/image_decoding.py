"""Image files -> pixels: headers first, then decoded by worker processes, into
memory or into a file that stays.

A set larger than a third of the free memory is decoded into the cache folder
(``$XDG_CACHE_HOME/advisor`` or ``~/.cache/advisor``), once for the same files; it is written whole or
not at all, and goes when it is no longer used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.data import isolation
from advisor.data.signals.image_worker import ImageHeader
from advisor.errors import UserError, shown
from advisor.files import cache_folder
from advisor.machine import available_memory

FEW_FILES = 300
"""Up to this many files are read by one worker: more of them take longer to start than they save."""
CHUNK = 64
"""Files that a worker reads at a time."""
UNUSED_DAYS = 30
"""A decoded set that was not used for so long is removed when the next one is made."""
_WORKER = "advisor.data.signals.image_worker"
_PREFIX = "images-"
FORMAT = 1
"""Raised whenever the same files would give other pixels, so that the cache is not used."""


@dataclass(frozen=True)
class FileValues:
    """Image files that are decoded when they are taken.
    shape: (channels, height, width);
    bits: of the largest value;
    content: their ``keys``."""

    files: tuple[Path, ...]
    shape: tuple[int, ...]
    bits: int
    content: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.files)

    def keys(self) -> NDArray[np.uint64]:
        return self.content

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        files = [self.files[row] for row in rows.tolist()]
        size = len(files) * int(np.prod(self.shape))
        if size > available_memory() // 3:
            return _cached(files, self.shape, self.bits, size)
        values = np.empty((len(files), *self.shape), np.uint8)
        readable = _fill(values, files, self.shape, self.bits)
        return values[: int(readable.sum())], readable


def headers(files: Sequence[Path]) -> list[ImageHeader]:
    """What each file's header says, in order."""
    return [ImageHeader(*found) for chunk in _each_chunk("header", files, {}) for found in chunk[0]]


@dataclass(frozen=True)
class ImageRows:
    """Images of one part at one size.

    values: (rows, channels, height, width).
    sizes: (height, width) of each as it was given.
    rows: their numbers in the part, of files.
    lost: the files that notes count, by the note.
    """

    values: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    bits: int
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


SizeFor = Callable[[Sequence[int], Sequence[tuple[int, int]]], tuple[int, int]]
"""Numbers of files and their (height, width) -> the size that all are brought to."""


def decoded_files(
    files: Sequence[Path],
    names: Sequence[str],
    origin: str,
    size_for: SizeFor,
    *,
    like: tuple[int, ...] | None = None,
    bits: int = 0,
) -> ImageRows:
    """The files that can be read, all at one size.

    like: (channels, height, width) to read at; None: colour where a file has it, and what ``size_for`` says.
    bits: of the largest value, at least. UserError where no file can be read.
    """
    known = headers(files)
    good = [row for row, own in enumerate(known) if not own.problem]
    corrupt = [name for name, own in zip(names, known, strict=True) if own.problem]
    if not good:
        raise UserError(
            f"{origin}: none of the {len(known):,} image files can be read; expected PNG, JPEG and the like"
        )
    sizes = [(known[row].height, known[row].width) for row in good]
    coloured = any(known[row].channels == 3 for row in good)
    shape = like or (3 if coloured else 1, *size_for(good, sizes))
    keys = np.array([known[row].key for row in good], np.uint64)
    bits = max([bits, *(known[row].bits for row in good)])
    taken = FileValues(tuple(files[row] for row in good), shape, bits, keys)
    values, readable = taken.take(np.arange(len(good)))
    corrupt += [names[good[row]] for row in np.flatnonzero(~readable).tolist()]
    if not readable.any():
        raise UserError(f"{origin}: none of the {len(good):,} images can be decoded")
    there = np.flatnonzero(readable).tolist()
    rows = tuple(good[row] for row in there)
    notes = {
        "image_sizes": len(set(sizes)) if len(set(sizes)) > 1 else 0,
        "converted_channels": sum(known[row].channels != shape[0] for row in rows),
    }
    return ImageRows(
        values,
        keys[readable],
        tuple(names[row] for row in rows),
        tuple(sizes[row] for row in there),
        rows,
        bits,
        {"corrupt_files": tuple(corrupt)},
        notes,
    )


def _fill(
    values: NDArray[np.uint8], files: Sequence[Path], shape: tuple[int, ...], bits: int
) -> NDArray[np.bool_]:
    """Decode into the first rows of ``values``; says which files could be read."""
    readable: list[bool] = []
    filled = 0
    for good, pixels in _each_chunk("decode", files, {"shape": list(shape), "bits": bits}):
        readable += good
        count = sum(good)
        values[filled : filled + count] = np.frombuffer(pixels, np.uint8).reshape(count, *shape)
        filled += count
    return np.array(readable, dtype=bool)


# ------------------------------------------------------------------------------------------------------ cache


def _cached(
    files: Sequence[Path], shape: tuple[int, ...], bits: int, size: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    folder = cache_folder() / f"{_PREFIX}{_key(files, shape, bits)}"
    with contextlib.suppress(OSError, ValueError):
        found = _mapped(folder)
        with contextlib.suppress(OSError):  # a cache that we may only read
            os.utime(folder)  # used today
        return found
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    _remove_unused(folder.parent)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(partial).free
        if size > free:
            raise UserError(
                f"the decoded images need {size:,} bytes and {shown(folder.parent, 200)} has {free:,} free; "
                "set XDG_CACHE_HOME to a larger disk"
            )
        values = np.lib.format.open_memmap(partial / "values.npy", "w+", np.uint8, (len(files), *shape))
        readable = _fill(values, files, shape, bits)
        values.flush()
        np.save(partial / "readable.npy", readable)
        with contextlib.suppress(OSError):  # another process was first
            partial.rename(folder)
        return _mapped(folder)
    except OSError as error:
        where = shown(folder.parent, 200)
        raise UserError(
            f"the decoded images ({size:,} bytes, more than a third of the free memory) cannot be kept in "
            f"{where}: {error.strerror or error}; set XDG_CACHE_HOME to another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_unused(cache: Path) -> None:
    """Sets that nobody has used for UNUSED_DAYS, and halves of sets whose
    process died: they can be decoded again."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for folder in cache.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process was first
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)


def _mapped(folder: Path) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    values = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
    readable = np.load(folder / "readable.npy", allow_pickle=False)
    return values[: int(readable.sum())], readable


def _key(files: Sequence[Path], shape: tuple[int, ...], bits: int) -> str:
    whole = hashlib.sha256(f"{FORMAT} {shape} {bits}".encode())
    for file in files:
        with contextlib.suppress(OSError):
            info = file.stat()
            whole.update(f"{info.st_size} {info.st_mtime_ns} ".encode())
        whole.update(os.fsencode(file.absolute()) + b"\0")
    return whole.hexdigest()[:32]


# ---------------------------------------------------------------------------------------------------- workers


def _each_chunk(what: str, files: Sequence[Path], order: dict[str, Any]) -> Iterator[tuple[list[Any], bytes]]:
    """Per chunk of files, in order, the answer of ``image_worker`` and the bytes that it wrote."""
    jobs = [
        order | {"do": what, "files": [str(file.absolute()) for file in files[at : at + CHUNK]]}
        for at in range(0, len(files), CHUNK)
    ]
    count = 1 if len(files) <= FEW_FILES else min(len(os.sched_getaffinity(0)), len(jobs))
    places: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(count):
        places.put(place)

    def answer(job: dict[str, Any]) -> tuple[list[Any], bytes]:
        place = places.get()
        try:
            return _answer(job, place, available_memory() // count)
        finally:
            places.put(place)

    try:
        if count == 1:
            yield from map(answer, jobs)
        else:
            with ThreadPoolExecutor(count) as threads:
                yield from _in_order(threads, answer, jobs, ahead=2 * count)
    finally:
        for place in range(1, count):
            isolation.end(_WORKER, place)


def _answer(job: dict[str, Any], place: int, limit: int) -> tuple[list[Any], bytes]:
    """A worker's answer. A file that ends the worker, or needs too much memory,
    cannot be read; the others can."""
    try:
        with isolation.answered(_WORKER, job, limit, place) as answer:
            return answer.value, answer.content()
    except (isolation.WorkerDied, MemoryError):
        if len(job["files"]) == 1:
            return [list(ImageHeader("corrupt")) if job["do"] == "header" else False], b""
    alone = [_answer(job | {"files": [file]}, place, limit) for file in job["files"]]
    return [found for ones, _ in alone for found in ones], b"".join(content for _, content in alone)


def _in_order(
    threads: ThreadPoolExecutor,
    call: Callable[[dict[str, Any]], tuple[list[Any], bytes]],
    jobs: Sequence[dict[str, Any]],
    ahead: int,
) -> Iterator[tuple[list[Any], bytes]]:
    """Results in order with at most this many waiting: all of them at once would be the whole set in
    memory."""
    waiting: deque[Future[tuple[list[Any], bytes]]] = deque()
    for job in jobs:
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
        waiting.append(threads.submit(call, job))
    while waiting:
        yield waiting.popleft().result()
