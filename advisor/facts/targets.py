"""What is measured of a target, one row for each kind of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from advisor.data.columns.cells import tally
from advisor.facts.distributions import histogram_of, moments_of
from advisor.tasks import TargetKind, Task

MOST_TEXT, MOST_CLASSES = 60, 20
"""Characters of a level, and classes of the target, that the report shows."""


def target_facts(answer: pl.Series, task: Task) -> dict[str, Any]:
    """The facts ``classes.*`` or ``target.*`` of the training rows' target."""
    return TARGET_MEASURES[task.target].facts(answer)


def _class_facts(answer: pl.Series) -> dict[str, Any]:
    counts = tally(answer)["rows"].to_numpy().astype(np.float64)
    shares = counts / counts.sum()
    several = len(counts) > 1
    return {
        "classes.count": len(counts),
        "classes.imbalance": float(counts.max() / counts.min()),
        "classes.smallest": int(counts.min()),
        "classes.entropy": float(-(shares * np.log(shares)).sum() / np.log(len(counts))) if several else 0.0,
    }


def _number_facts(answer: pl.Series) -> dict[str, Any]:
    values = answer.to_numpy()
    moments = moments_of(values)
    return {
        "target.mean": moments.mean,
        "target.std": moments.std,
        "target.skew": moments.skew,
        "target.kurtosis": moments.kurtosis,
        "target.distinct": answer.n_unique(),
        "target.zero_share": float((values == 0).mean()),
        "target.minimum": float(values.min()),
    }


def cut_level(text: str) -> str:
    """A level as the report shows it: a cell may be a whole document."""
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def target_shape(answer: pl.Series, sample: pl.Series, task: Task) -> dict[str, Any]:
    """The target for the report: the largest classes with their exact counts, or the sample's histogram."""
    return TARGET_MEASURES[task.target].shape(answer, sample)


def _class_shape(answer: pl.Series, sample: pl.Series) -> dict[str, Any]:
    counts = tally(answer).head(MOST_CLASSES).rows()
    return {"classes": [[cut_level(str(label)), count] for label, count in counts]}


def _number_shape(answer: pl.Series, sample: pl.Series) -> dict[str, Any]:
    values = np.sort(sample.to_numpy().astype(np.float64))
    low, high = (float(edge) for edge in np.quantile(values, [0.01, 0.99]))
    return {"histogram": histogram} if (histogram := histogram_of(values, low, high)) else {}


@dataclass(frozen=True)
class TargetMeasure:
    """What is measured of one kind of target. facts: of all training rows.
    shape: all training rows and a sample of them -> what the report draws."""

    facts: Callable[[pl.Series], dict[str, Any]]
    shape: Callable[[pl.Series, pl.Series], dict[str, Any]]


TARGET_MEASURES: Mapping[TargetKind, TargetMeasure] = {
    "class": TargetMeasure(_class_facts, _class_shape),
    "number": TargetMeasure(_number_facts, _number_shape),
}
