"""result.json of a run, checked against its format when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.errors import UserError
from advisor.files import read_json
from advisor.kinds import TASK_NAMES
from advisor.runs.folder import RunFolder
from advisor.tasks import task_of

ANY = object
"""Of any type: shown, and never computed with."""
Number = (int, float)
MaybeNumber = (int, float, type(None))
DIFFERENCE = {"mean": Number, "standard_error": Number}
CONTENDER = {
    "name": str,
    "held_out_loss": Number,
    "searched_loss": MaybeNumber,
    "networks": int,
    "configurations": [dict],
    "difference": (DIFFERENCE, type(None)),
}
TRIAL = {
    "number": int,
    "origin": str,
    "end": str,
    "value": MaybeNumber,
    "configuration": dict,
    "curve": [[Number]],
    "reading?": {"shape": str, "words": str},
    "epochs?": MaybeNumber,
    "seconds?": MaybeNumber,
}
PREDICTIONS = {
    "calibration?": {
        "bins": [{"rows": int, "probability": Number, "right": Number}],
        "expected_error": Number,
    },
    "confusion?": [[int]],
    "residual_quantiles?": [Number],
    "residual_histogram?": {"low": Number, "high": Number, "counts": [int], "below?": int, "above?": int},
}
MISTAKE = {
    "label": ANY,
    "predicted": ANY,
    "probability?": Number,
    "image?": str,
    "series?": [[MaybeNumber]],
}
RESULT = {
    "kind": {"train", "tune"},
    "task": set(TASK_NAMES),
    "loss": str,
    "seconds": Number,
    "classes": [ANY],
    "versions": dict,
    "configuration": dict,
    "data": {"rows": int},
    "final": {
        "winner": str,
        "reason": str,
        "contenders": [CONTENDER],
        "incumbent?": str,
        "confirmed?": bool,
        "failed?": {"*": str},
        "fewer_networks?": ([int], type(None)),
        "epochs_on_all_rows?": ([Number], type(None)),
    },
    "estimate": {"mean": Number, "low": Number, "high": Number, "rows": int},
    "test": {
        "rows": int,
        "origin": str,
        "results?": [
            {
                "name": str,
                "loss": Number,
                "accuracy?": Number,
                "r2?": Number,
                "difference_to_network": DIFFERENCE,
            }
        ],
        "left_out?": [str],
        "mistakes?": [MISTAKE],
        "predictions?": PREDICTIONS,
    },
    "search?": {
        "requested": int,
        "seconds": Number,
        "timed_out": bool,
        "trials": [TRIAL],
        "importances": {"*": Number},
        "adjustments?": [
            {"parameter": str, "low": Number, "high": Number, "words": str, "first": int, "last": int}
        ],
        "curve_advice?": [{"parameter": str, "direction": str, "words": str}],
        "packing?": [
            {
                "number": int,
                "began": Number,
                "ended": Number,
                "worker": str,
                "device": str,
                "memory": MaybeNumber,
                "peak_memory": MaybeNumber,
            }
        ],
    },
    "curve?": [Number],
    "reading?": {"shape": str, "words": str},
    "objective?": {"name": str, "kept": bool, "compared": str},
    "time_limit?": MaybeNumber,
}
"""The keys that something reads, and their types.

An optional key ends in ``?``; a list holds the type of its entries, a tuple types of which any will do.
"""


def read_result(run: RunFolder) -> dict[str, Any]:
    """result.json of a finished run; UserError when it is not what we wrote."""
    document = read_json(run.result)
    complaint = complaint_of(document, RESULT)
    if complaint is None and document["kind"] == "tune" and "search" not in document:
        complaint = "'search' is missing"
    complaint = complaint or _misfit(document)
    if complaint:
        raise UserError(f"{run.result} is damaged: {complaint}; delete it, and run the same command again")
    return document


def _misfit(document: Mapping[str, Any]) -> str | None:
    """What has its type and does not fit the rest of the document, or None."""
    final, test, search = document["final"], document["test"], document.get("search") or {}
    predictions, classes = test.get("predictions", {}), len(document["classes"])
    score = task_of(document["task"]).score
    names = {contender["name"] for contender in final["contenders"]}
    histogram = predictions.get("residual_histogram", {"counts": [0]})
    confusion = predictions.get("confusion", [])
    fits = {
        "final.winner": final["winner"] in names,
        "final.incumbent": final.get("incumbent", "recommendation") in names,
        "final.fewer_networks": len(final.get("fewer_networks") or (1, 2)) == 2,
        "test.results": all(score in one for one in test.get("results", ())),
        "test.predictions.residual_quantiles": len(predictions.get("residual_quantiles", range(5))) == 5,
        "test.predictions.residual_histogram": bool(histogram["counts"]),
        "test.predictions.confusion": not confusion or [*map(len, confusion)] == [classes] * classes,
        "search.trials": all(len(point) == 2 for one in search.get("trials", ()) for point in one["curve"]),
        "curve": document["kind"] == "tune" or "curve" in document,
    }
    return next((_not(name) for name, fit in fits.items() if not fit), None)


def complaint_of(value: Any, wanted: Any, where: str = "") -> str | None:
    """What of a document does not have its type, or None."""
    if isinstance(wanted, tuple):
        return None if any(complaint_of(value, one, where) is None for one in wanted) else _not(where)
    if isinstance(wanted, set):
        return None if isinstance(value, str) and value in wanted else _not(where)
    if isinstance(wanted, dict):
        if not isinstance(value, Mapping):
            return _not(where)
        if "*" in wanted:
            wanted = dict.fromkeys(value, wanted["*"])
        for key, inner in wanted.items():
            name, optional = key.removesuffix("?"), key.endswith("?")
            at = f"{where}.{name}".lstrip(".")
            if name not in value:
                if not optional:
                    return f"'{at}' is missing"
            elif complaint := complaint_of(value[name], inner, at):
                return complaint
        return None
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return _not(where)
        return next(
            filter(None, (complaint_of(v, wanted[0], f"{where}[{i}]") for i, v in enumerate(value))), None
        )
    return (
        None if isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)) else _not(where)
    )


def _not(where: str) -> str:
    return f"'{where or 'it'}' is not what the advisor writes"
