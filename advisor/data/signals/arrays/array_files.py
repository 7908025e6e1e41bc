"""``.npz`` and ``.npy`` files -> arrays by name, judged by their headers before anything is read."""

from __future__ import annotations

import contextlib
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from advisor.data.signals.arrays.array_names import GROUPS, LABELS, PARTS, VALUES, part_in_role, words_of
from advisor.data.signals.arrays.axes import kind_of_array
from advisor.data.signals.rows import Request, regular
from advisor.errors import UserError, shown
from advisor.kinds import GridKind
from advisor.machine import available_memory


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of one array says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def kind_of_file(path: Path) -> GridKind:
    """The kind of the arrays in a file, from headers alone; "image" where that
    cannot be told (reading it says why)."""
    try:
        headers = _headers(path, shown(path, 200))
    except UserError:
        return "image"
    main = [header for name, header in headers.items() if part_in_role(name, VALUES)] or list(
        headers.values()
    )
    return kind_of_array(main[0].shape, main[0].dtype) if main else "image"


def load_npz(path: Path, text: str, request: Request) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.npz`` file by name. text: the path for messages."""
    headers = _headers(path, text)
    _bounded(headers, text, request)
    with _damage_named(path, text), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in headers}


def load_npy(path: Path, text: str, request: Request) -> dict[str, NDArray[Any]]:
    """The array, those of its other parts beside it (X_test.npy of X_train.npy), and their labels."""
    files = {"X": path}
    part = next((word for word in words_of(path.stem.lower()) if word in PARTS), None)
    beside = {file.stem: file for file in sorted(path.parent.glob("*.npy")) if not file.name.startswith(".")}
    if part is not None and part_in_role(path.stem, VALUES) is not None:
        files = {
            stem: file
            for stem, file in beside.items()
            if any(part_in_role(stem, words) for words in (VALUES, LABELS, GROUPS))
        }
    elif request.needs_target and request.target is None:
        for stem in (f"{path.stem}_labels", f"{path.stem}_y", *LABELS):
            match = next(
                (file for name, file in beside.items() if name.lower() == stem.lower() and file != path), None
            )
            if match is not None:
                files["y"] = match
                break
    arrays: dict[str, NDArray[Any]] = {}
    if request.target is not None and request.target.lower().endswith(".npy"):
        files = {"X": path}
        labels = Path(request.target)
        labels = labels if labels.exists() else path.parent / labels
        regular(labels, "a .npy file of labels", shown(labels, 200))
        files[labels.stem] = labels
    for name, file in files.items():
        own = shown(file, 200)
        _bounded(_headers(file, own), own, request)
        with _damage_named(file, own):
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
    if len(arrays) == 1 and request.needs_target:
        raise UserError(
            f"{text} has no labels: name their file as the target, or put {path.stem}_labels.npy or y.npy "
            "beside it"
        )
    return arrays


@contextlib.contextmanager
def _damage_named(path: Path, text: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header of an old Python, a name twice in the archive
            yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{text} does not fit into free memory") from error
    except Exception as error:  # the readers of zip and of array headers raise anything, also TokenError
        kind = path.suffix.lower()
        raise UserError(
            f"{text} is damaged or not a {kind} file ({shown(error, 120)}); save or download it again"
        ) from error


def _headers(path: Path, text: str) -> dict[str, ArrayHeader]:
    """Array name -> its header; UserError for objects, which could only be unpickled."""
    found: dict[str, ArrayHeader] = {}
    with _damage_named(path, text):
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                found[path.stem] = _header(file)
        else:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".npy"):
                        with archive.open(name) as member:
                            found[name.removesuffix(".npy")] = _header(member)
    for name, header in found.items():
        if header.dtype.hasobject:
            raise UserError(
                f"{text}: '{shown(name)}' holds Python objects, which are never unpickled; save plain "
                "numbers "
                "(pad rows of unequal lengths with NaN) and texts with dtype=str"
            )
    return found


def _header(file: IO[bytes]) -> ArrayHeader:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return ArrayHeader(tuple(shape), dtype)


def _bounded(headers: Mapping[str, ArrayHeader], text: str, request: Request) -> None:
    total = sum(header.bytes for header in headers.values())
    limit = min(request.max_bytes, available_memory() // 3)  # as read, in its order of axes, divided
    if total > limit:
        raise UserError(
            f"{text} declares {total:,} bytes of arrays; at most {limit:,} are read (max_bytes, or a third "
            "of free memory); give image files instead, which are decoded into a file"
        )
