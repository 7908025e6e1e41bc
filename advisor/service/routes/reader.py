"""What reads an upload: a process of its own, with bounds on its memory and its time.

``python -m advisor.service.routes.reader`` is started by ``advisor.data.isolation``. Whatever a hostile
file does to a reader, it does it here, where no token and no other upload is.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from advisor.data import isolation
from advisor.errors import UserError, shown
from advisor.service.base.problems import Problem
from advisor.service.routes.archive import ENDING, remove_partial, source_in

SHOWN_ROWS, SHOWN_COLUMNS, SHOWN_CELL, JUDGED = 8, 200, 80, 10_000
"""Of a preview: rows, columns, characters of a cell; and the rows that types are judged by."""
READER = "advisor.service.routes.reader"


def read_apart(
    order: Mapping[str, Any], folder: Path, seconds: float, memory: int, place: int = 0
) -> dict[str, Any]:
    """What a job of JOBS finds, from a fresh process.

    order: ``do`` and what the job wants. folder: the only one that it may open images in.
    UserError with what is wrong with the file; Problem where it took too long or too much memory.
    """
    whole = {**order, "folder": str(folder), "seconds": seconds}
    try:
        with isolation.answered(READER, whole, memory, place) as answer:
            found: dict[str, Any] = json.loads(answer.content())
    except isolation.WorkerDied:
        remove_partial(Path(order["path"]))
        detail = f"reading the file was stopped: it took more than {seconds:g} s, or it crashed the reader"
        raise Problem(422, detail) from None
    except MemoryError:
        detail = f"the file needs more than {memory / 2**20:,.0f} MiB of memory to read: send a part of it"
        raise Problem(413, detail) from None
    except UserError as error:
        raise UserError(str(error).replace(f"{folder}/", "")) from None
    finally:
        isolation.end(READER, place)  # the next file finds nothing that this one has left
    return found


def _alone(order: Mapping[str, Any]) -> None:
    if __name__ != "__main__":  # isolation would read in the server where no process can be started
        raise UserError("no process can be started to read the file: try again later")
    signal.setitimer(signal.ITIMER_REAL, order["seconds"])  # nobody handles it: the process ends


def _preview(order: Mapping[str, Any], out: IO[bytes]) -> None:
    """Rows, columns with their guessed types, and the first cells of a table; of arrays their shapes."""
    _alone(order)
    from advisor.data.modalities import kind_of

    path = _source(order)
    if path.is_dir():
        found: dict[str, Any] = {"kind": kind_of(path), "rows": None, "columns": [], "first": []}
    else:
        found = _arrays(path) if path.suffix in (".npz", ".npy") else _table(path)
    out.write(json.dumps(found).encode())


def _source(order: Mapping[str, Any]) -> Path:
    path = Path(order["path"])
    return source_in(path, order["unpacked"]) if path.suffix == ENDING else path


def _arrays(path: Path) -> dict[str, Any]:
    from advisor.data.signals.arrays.array_files import kind_of_file

    return {"kind": kind_of_file(path), "rows": None, "columns": [], "first": []}


def _table(path: Path) -> dict[str, Any]:
    from advisor.data.columns.inference import infer
    from advisor.data.sources.reading import read_source

    frame = read_source(path).frame
    some = frame.head(JUDGED)
    columns = [infer(some[name], some[name]) for name in frame.columns[:SHOWN_COLUMNS]]
    first = some.head(SHOWN_ROWS).select(frame.columns[:SHOWN_COLUMNS]).rows()
    return {
        "kind": "table",
        "rows": frame.height,
        "width": frame.width,
        "columns": [{"name": one.name, "type": one.type, "why": one.why} for one in columns],
        "first": [["" if cell is None else shown(cell, SHOWN_CELL) for cell in row] for row in first],
    }


def _recommend(order: Mapping[str, Any], out: IO[bytes]) -> None:
    """Facts, identity, options and the recommendation of an upload."""
    _alone(order)
    from advisor.data.signals.image_paths import image_root
    from advisor.workflows.recommend import get_advice, reading_of

    with image_root(order["folder"]):
        advice = get_advice(str(_source(order)), order["target"], reading_of(order["options"]))
    found = {
        "identity": vars(advice.identity),
        "facts": advice.facts.to_dict(),
        "options": advice.reading.to_dict(),
        "document": advice.recommendation.to_dict(),
    }
    out.write(json.dumps(found, default=str).encode())


JOBS = {"preview": _preview, "recommend": _recommend}
READING = (
    "advisor.data.sources.reading",
    "advisor.data.columns.inference",
    "advisor.data.modalities",
    "advisor.data.masks.pairs",
)
LOADS = {
    "preview": READING,
    "recommend": (
        *READING,
        "advisor.workflows.recommend",
        "advisor.data.tables.table",
        "advisor.facts.table",
    ),
}
"""What a job imports before its memory is limited: an import that runs out of memory raises anything."""

if __name__ == "__main__":
    isolation.serve_jobs(JOBS, LOADS)
