"""A few rows of a set of images or sequences as a page can show them: small PNG
pictures, thinned series. No torch."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset, Signals
from advisor.documents import UNSET, Unset
from advisor.evaluation.explanation import Predict, occlusion
from advisor.facts.summaries import RowSample
from advisor.runs.result import Mistake
from advisor.tasks import RowTarget

PER_CLASS, MOST_CLASSES, MOST_ROWS = 3, 12, 24
"""Examples of a class, classes, and rows of a regression or mistakes, that a page shows."""
MOST_HEATS = 6
"""Mistakes that the model is asked about."""
SIDE, POINTS, CHANNELS = 64, 120, 3
"""Pixels of a picture's longer side, points of a series, and channels of it, that a page shows."""


def samples(data: Dataset[RowTarget, Signals], seed: int) -> list[RowSample]:
    """The first few rows of each class in a random order (always the same for a
    seed), or rows of a regression."""
    order = np.random.default_rng(seed).permutation(len(data))
    if not data.task.of_classes:
        chosen = order[: min(MOST_ROWS, 3 * PER_CLASS)]
        return [RowSample(**drawn(data, row), label=float(data.target[row])) for row in chosen]
    largest = np.argsort(-np.bincount(data.target, minlength=len(data.classes)), kind="stable")[:MOST_CLASSES]
    rows = [row for code in sorted(largest.tolist()) for row in order[data.target[order] == code][:PER_CLASS]]
    return [RowSample(**drawn(data, row), label=data.classes[int(data.target[row])]) for row in rows]


def mistakes(
    data: Dataset[RowTarget, Signals],
    scores: NDArray[np.float64],
    chosen: NDArray[Any],
    losses: NDArray[np.float64],
    predict: Predict | None = None,
) -> list[Mistake]:
    """The rows with the largest losses: classes that were taken for others, or
    the numbers that are furthest off.

    chosen: the prediction for each row.
    losses: (rows,).
    predict: the model, which is asked where it looks at the first few; None asks nothing.
    """
    order = np.argsort(-losses, kind="stable")
    if not data.task.of_classes:
        return [
            Mistake(**drawn(data, row), label=float(data.target[row]), predicted=float(scores[row]))
            for row in order[: PER_CLASS * 2]
        ]
    wrong = [row for row in order if chosen[row] != data.target[row]][:MOST_ROWS]
    return [
        Mistake(
            **drawn(data, row),
            label=data.classes[int(data.target[row])],
            predicted=data.classes[int(chosen[row])],
            probability=float(scores[row, chosen[row]]),
            heat=_heat(data, row, int(chosen[row]), predict if place < MOST_HEATS else None),
        )
        for place, row in enumerate(wrong)
    ]


def _heat(
    data: Dataset[RowTarget, Signals], row: int, output: int, predict: Predict | None
) -> tuple[tuple[float, ...], ...] | Unset:
    if predict is None:
        return UNSET
    found = occlusion(np.asarray(data.features.values[row]), predict, output)
    return tuple(tuple(float(f"{value:.3g}") for value in line) for line in found)


def drawn(data: Dataset[RowTarget, Signals], row: int) -> dict[str, Any]:
    """``{"image": base64 of a PNG}`` or ``{"series": [[points of a channel], ...]}``."""
    values = np.asarray(data.features.values[row])
    return {"image": _png(values)} if values.ndim == 3 else {"series": _thinned(values)}


def _png(values: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0).squeeze()))
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _thinned(values: NDArray[np.float32]) -> tuple[tuple[float | None, ...], ...]:
    """Evenly spaced points of the first channels, to three digits; None where there is none."""
    step = max(1, -(-values.shape[1] // POINTS))
    return tuple(
        tuple(float(f"{v:.3g}") if np.isfinite(v) else None for v in channel[::step])
        for channel in values[:CHANNELS]
    )
