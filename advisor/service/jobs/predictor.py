"""What predicts rows that came over the network: a process of its own, which keeps the models of one project.

``python -m advisor.service.jobs.predictor`` is started by ``advisor.data.isolation``.
"""

from __future__ import annotations

import json
import signal
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from advisor.data import isolation
from advisor.errors import UserError

if TYPE_CHECKING:
    from advisor.runs.model import Model

PREDICTOR = "advisor.service.jobs.predictor"
_models: OrderedDict[str, Model] = OrderedDict()


def _predict(order: Mapping[str, Any], out: IO[bytes]) -> dict[str, Any]:
    """Write the predictions for the rows in a file: CSV, or JSON.

    order: run and rows (paths), form ("csv" or "json"), models (how many are kept), seconds.
    """
    if __name__ != "__main__":
        raise UserError("no process can be started for predictions: try again later")
    signal.setitimer(signal.ITIMER_REAL, order["seconds"])
    from advisor.data.signals.image_paths import image_root
    from advisor.runs.model import load_model, predictions

    run = order["run"]
    if run not in _models:
        _models[run] = load_model(run)
    _models.move_to_end(run)
    while len(_models) > order["models"]:
        _models.popitem(last=False)
    with image_root(Path(order["rows"]).parent):
        found = predictions(_models[run], order["rows"])
    table = found.table
    if order["form"] == "csv":
        out.write(table.write_csv().encode())
    else:
        out.write(json.dumps(table.to_dicts(), allow_nan=False).encode())
    signal.setitimer(signal.ITIMER_REAL, 0)
    return {
        "rows": table.height,
        "unused": list(found.unused),
        "notes": [change.message for change in found.changes],
    }


JOBS = {"predict": _predict}

if __name__ == "__main__":
    isolation.serve_jobs(JOBS)
