"""What is measured of images and sequences: the facts that tables have too, and their own (``SIGNAL_FACTS``).

Nothing here looks at the target of the test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.data.signals.rows import ArrayValues, lengths_of
from advisor.data.signals.signal_schema import SignalSchema
from advisor.data.signals.signals import SignalSet
from advisor.data.tables.target import LONELY
from advisor.dataset import Dataset, Features, Signals
from advisor.facts.distributions import finite
from advisor.facts.duplicates import disagreement
from advisor.facts.hardware import hardware_facts
from advisor.facts.probes import (
    answer_of,
    coarse,
    embedded,
    has_skill,
    in_pieces,
    kernel_rows,
    local_patterns,
    scaled_down,
    skill,
    thinned,
)
from advisor.facts.schema import FACTS, Facts
from advisor.facts.shift.shift import compare_rows
from advisor.facts.specs.thresholds import MIN_SIDE
from advisor.facts.table import marked_facts
from advisor.facts.targets import TARGET_MEASURES, box_facts, mask_facts, target_facts, target_summary
from advisor.kinds import Kind
from advisor.tasks import task_of

SAMPLE_ROWS, SAMPLE_CELLS, FEWEST = 5000, 30_000_000, 200
"""Rows are drawn, always the same ones, for all that is no count: this many, fewer where rows are large."""
KEY_BYTES = 2 * 10**9
"""Repeated rows are looked for by a hash of each; of a larger set in this many
bytes of rows drawn at random."""
NEAR_TEST, NEAR_PAIRS = 2000, 10**8
"""Nearly repeated rows: this many test rows at most, and this many pairs."""
NEAR_IMAGE, NEAR_SEQUENCE = 0.1, 0.01
"""Two rows are nearly the same when their scaled-down versions differ by at most this share of their own
variation. Of 1,000 MNIST digits, half differ by over 0.04 from themselves saved as JPEG (quality 75) and 1 in
100 by under 0.2 from the nearest other one."""
COMPONENTS = 8
"""Principal components of the scaled-down rows that are compared between test and training rows."""
EXTENT = 0.9
"""An object is as wide as the middle part that holds this share of its energy."""
EXTENT_CELLS = 32
PERIOD_PEAK = 0.1
"""A period's peak of the mean autocorrelation is at least so high, and so far above the trough before it."""
PERIOD_Z = 3.1
"""... and above it by this many standard errors in the rows that did not choose it (one-sided 1 in 1,000)."""
PERIOD_ROWS = 10
AUTOCORRELATION_CELLS = 2**22
"""The autocorrelation is that of this many cells at most: its transforms take fifty times their memory."""
PERIODS, CORRELATION_LENGTHS = 2, 8
"""What a unit must see of a sequence: a second period, to know that there is one; a pattern of four pieces,
each as long as points are correlated to either side."""


def measure_signals(data: SignalSet, hardware: Mapping[str, Any] | None = None) -> Facts:
    """Measure every fact of FACTS on a set of images or sequences; those of columns are zero or None.

    Counts are exact; shapes, shift and probes are measured on a sample, and
    ``Facts.sampled`` says on how many rows.
    hardware: as for ``facts.measure``. UserError for an unknown name in it.
    """
    train, schema = data.train, data.schema
    values = thinned(_values(train))
    rows = _drawn(len(train), values)
    sample = values[rows] if len(rows) < len(train) else np.ascontiguousarray(values)
    answer = TARGET_MEASURES[train.task.target].answer(train, schema.target)
    facts: dict[str, Any] = dict.fromkeys(FACTS)
    facts |= _shape_facts(data)
    facts |= target_facts(answer, task_of(schema.task))
    facts |= _constant_channels(data, values)
    facts |= _duplicates(data)
    facts |= _near_duplicates(data)
    own = _OF_KIND[schema.kind].facts(data, sample, rows)
    facts |= own
    shift, compared = _shift(data)
    facts |= shift | hardware_facts(hardware or {})
    sampled = dict.fromkeys(shift, compared) if compared else {}
    sampled |= _sampled(data, len(rows), [name for name in own if name not in _EXACT])
    ordered = {name: sampled[name] for name in FACTS if name in sampled and facts[name] is not None}
    return Facts(facts, ordered, (), target_summary(answer, answer, task_of(schema.task)))


def _sampled(data: SignalSet, rows: int, measured: Sequence[str]) -> dict[str, str]:
    """Which facts were measured on a part, and on which."""
    sampled: dict[str, str] = {}
    total, values = len(data.train), _values(data.train)
    few = thinned(values[:1]).size < values[:1].size
    if rows < total or few:
        part = f"{rows:,} of {total:,} rows" + (" at a part of the pixels" if few else "")
        sampled |= dict.fromkeys(measured, part)
    if values.ndim == 3 and (probed := len(kernel_rows(rows, values.shape[2]))) < total:
        sampled |= dict.fromkeys(
            ("flip.reversed", "flip.sign", "sequence.position_gain"), f"{probed:,} of {total:,} rows"
        )
    if values.ndim == 3 and (correlated := _correlated_rows(rows, values)) < total:
        names = ("sequence.period", "sequence.correlation_length", "receptive.needed")
        sampled |= dict.fromkeys(names, f"{correlated:,} of {total:,} rows")
    if (pairs := _pairs(data)) is not None:
        sampled["duplicates.near_test_share"] = pairs
    if (hashed := _hashed_rows(values)) < total:
        counted = [
            name for name in FACTS if name.startswith("duplicates.") and name != "duplicates.near_test_share"
        ]
        sampled |= dict.fromkeys(counted, f"{hashed:,} of {total:,} rows")
    return sampled


_EXACT = {
    *(
        "image.height",
        "image.width",
        "image.side",
        "image.sizes",
        "missing.share",
        "missing.max_column_share",
    ),
    *("sequence.length", "sequence.length_min", "sequence.length_median", "sequence.unequal"),
    *("sequence.glitches", "sequence.channels_last"),
    *("sequence.uneven_steps", "sequence.step_low", "sequence.step_high", "sequence.step_longest"),
}


def _values(data: Dataset[Any, Signals]) -> NDArray[Any]:
    return data.features.values


def _drawn(count: int, values: NDArray[Any], most: int | None = None) -> NDArray[np.int64]:
    """Which rows are measured: all, or a sample drawn at random, in order."""
    size = min(
        SAMPLE_ROWS if most is None else most, max(SAMPLE_CELLS // int(np.prod(values.shape[1:])), FEWEST)
    )
    if count <= size:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, size, replace=False))


def _shape_facts(data: SignalSet) -> dict[str, Any]:
    schema, notes = data.schema, data.notes
    values = int(np.prod(schema.shape))
    groups = data.train.groups
    none = {name: 0 for name, spec in FACTS.items() if not spec.nullable and spec.type == "int"}
    shares = {name: 0.0 for name, spec in FACTS.items() if not spec.nullable and spec.type == "float"}
    lists: dict[str, Any] = {
        name: [] for name, spec in FACTS.items() if not spec.nullable and spec.type == "list"
    }
    flags = {name: False for name, spec in FACTS.items() if not spec.nullable and spec.type == "bool"}
    return {
        **none,
        **shares,
        **lists,
        **flags,
        "rows": len(data.train),
        "rows_test": len(data.test),
        "rows_without_target": notes.get("rows_without_target", 0),
        "rows_in_singleton_classes": notes.get(LONELY, 0),
        "encoded_width": values,
        "encoded_width.one_hot": values,
        "task": schema.task,
        "test.origin": data.test_origin,
        "has_groups": groups is not None,
        "groups.count": None if groups is None else len(np.unique(groups)),
        "test.unseen_class_rows": notes.get("test_rows_of_unseen_class", 0),
        "infinite.values": notes.get("infinite_values", 0),
        "sentinels.cells": notes.get("marked_values", 0),
        **marked_facts(
            [pair for pair in zip(_channel_names(schema), schema.cleaning.marks, strict=False) if pair[1]]
        ),
        "signal.channels": schema.channels,
        "signal.values": values,
        "signal.missing_files": sum(
            notes.get(f"{what}_files", 0) for what in ("corrupt", "oversized", "absent")
        ),
        "signal.missing_names": sorted(
            {name for what, names in data.lost.items() if what.endswith("_files") for name in names}
        ),
    }


def _constant_channels(data: SignalSet, values: NDArray[Any]) -> dict[str, Any]:
    """Channels with one value, or none, in all training rows."""
    constant = []
    for channel, name in enumerate(_channel_names(data.schema)):
        part = values[:, channel]
        if np.fmin.reduce(part[:FEWEST], axis=None) < np.fmax.reduce(
            part[:FEWEST], axis=None
        ):  # most vary in the first rows
            continue
        if not np.fmin.reduce(part, axis=None) < np.fmax.reduce(part, axis=None):
            constant.append(name)
    return {"features.constant": len(constant), "columns.constant": constant}


def _channel_names(schema: SignalSchema) -> Sequence[str]:
    if len(schema.columns) == schema.channels:
        return schema.columns
    return [f"channel {number}" for number in range(1, schema.channels + 1)]


# ------------------------------------------------------------------------------------------------- duplicates


def _hashed_rows(values: NDArray[Any]) -> int:
    each = int(np.prod(values.shape[1:])) * values.dtype.itemsize
    return min(len(values), max(KEY_BYTES // each, 1))


def _keys(values: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    count = _hashed_rows(values)
    rows = np.arange(len(values))
    if count < len(values):
        rows = np.sort(np.random.default_rng(0).choice(len(values), count, replace=False))
        values = values[rows]
    return ArrayValues(values).keys(), rows


def _duplicates(data: SignalSet) -> dict[str, Any]:
    keys, rows = _keys(_values(data.train))
    tested, others = _keys(_values(data.test))
    found, inverse = np.unique(keys, return_inverse=True)
    task = data.train.task
    target = task.compared(data.train.target[rows])
    pairs = np.unique(np.stack([inverse.astype(np.float64), target]), axis=1)
    answers = np.bincount(pairs[0].astype(np.int64), minlength=len(found))
    regression = task.target == "number"
    repeated, repeating = np.isin(keys, tested), np.isin(tested, found)
    both = np.concatenate([keys[repeated], tested[repeating]])
    answered = np.concatenate([target[repeated], task.compared(data.test.target[others[repeating]])])
    differ = disagreement(both, answered, regression=regression) if len(both) else 0.0
    return {
        "duplicates.share": 1 - len(found) / len(keys),
        "duplicates.conflicting_share": float((answers[inverse] > 1).mean()),
        "duplicates.test_share": float(repeating.mean()) if len(tested) else 0.0,
        "duplicates.target_disagreement": disagreement(inverse, target, regression=regression),
        "duplicates.test_target_disagreement": differ,
        "duplicates.near_target_disagreement": differ,
    }


def _near_rows(data: SignalSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and test rows that are compared pair by pair."""
    train, test = thinned(_values(data.train)), thinned(_values(data.test))
    tested = _drawn(len(test), test, NEAR_TEST)
    return _drawn(len(train), train, max(NEAR_PAIRS // len(tested), 1)), tested


def _pairs(data: SignalSet) -> str | None:
    if not len(data.test):
        return None
    train, test = _near_rows(data)
    if len(train) == len(data.train) and len(test) == len(data.test):
        return None
    return (
        f"{len(test):,} of {len(data.test):,} test rows against {len(train):,} of {len(data.train):,} "
        "training rows"
    )


def _near_duplicates(data: SignalSet) -> dict[str, Any]:
    """Test rows that a training row nearly repeats. A row without any variation is near to nothing."""
    if not len(data.test):
        return {"duplicates.near_test_share": 0.0}
    rows = _near_rows(data)
    parts = [thinned(_values(part))[own] for part, own in zip((data.train, data.test), rows, strict=True)]
    train, test = map(embedded, parts)
    centre = train.mean(
        axis=0, dtype=np.float64
    )  # far from the origin the squares would lose their last digits
    spread = (
        max(float(np.abs(train - centre).max(initial=0)), float(np.abs(test - centre).max(initial=0))) or 1.0
    )  # or overflow
    limit = _OF_KIND[data.schema.kind].near
    variation = (test / spread).var(axis=1, dtype=np.float64) * test.shape[1]
    train, test = (((side - centre) / spread).astype(np.float32) for side in (train, test))
    squares = (train**2).sum(axis=1)
    near = np.zeros(len(test), dtype=bool)
    for start in range(0, len(test), 256):
        part = test[start : start + 256]
        distance = ((part**2).sum(axis=1)[:, None] + squares - 2 * part @ train.T).min(axis=1)
        near[start : start + 256] = distance <= limit**2 * variation[start : start + 256]
    exact = np.isin(ArrayValues(parts[1]).keys(), ArrayValues(parts[0]).keys())
    return {"duplicates.near_test_share": float((exact | (near & (variation > 0))).mean())}


# ------------------------------------------------------------------------------------------------------ shift


def _shift(data: SignalSet) -> tuple[dict[str, Any], str | None]:
    """The facts ``shift.*`` of brightness (level), contrast (spread) and a few
    components, and on how many rows."""
    nothing: dict[str, Any] = {"shift.compared_with": "nothing", "shift.tests": []}
    values = thinned(_values(data.train))
    groups = data.train.groups
    if data.test_origin == "file":
        old, new, against = values, thinned(_values(data.test)), "test"
    elif groups is not None and len(names := np.unique(groups)) > 1:
        half = np.isin(groups, np.random.default_rng(0).permutation(names)[: len(names) // 2])
        old, new, against = values[~half], values[half], "groups"
    else:
        return nothing, None
    sides = [side[_drawn(len(side), side)] for side in (old, new)]
    facts = nothing | {"shift.compared_with": against, "shift.rows": sum(map(len, sides))}
    if against == "test":
        facts |= _OF_KIND[data.schema.kind].shift(*sides)
    total = len(old) + len(new)
    drawn = sum(map(len, sides))
    if min(map(len, sides)) >= MIN_SIDE:
        facts |= compare_rows(*_summaries(*sides))
    return facts, f"{drawn:,} of {total:,} rows" if drawn < total else None


def _levels(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each row, over all its channels; images in 0..1."""
    found = []
    for piece in in_pieces(values):
        part = piece.reshape(len(piece), -1).astype(np.float64) / (255 if values.ndim == 4 else 1)
        known = ~np.isnan(part)
        count = np.maximum(known.sum(axis=1), 1)
        mean = np.where(known, part, 0).sum(axis=1) / count
        away = np.where(known, part - mean[:, None], 0)
        found.append((mean, np.sqrt((away**2).sum(axis=1) / count)))
    means, spreads = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return means, spreads


def _image_shift(old: NDArray[Any], new: NDArray[Any]) -> dict[str, Any]:
    facts = {}
    for name, first, second in zip(("brightness", "contrast"), _levels(old), _levels(new), strict=True):
        spread = float(first.std())
        facts[f"image.{name}_shift"] = float(second.mean() - first.mean()) / spread if spread > 0 else None
    return facts


def _summaries(old: NDArray[Any], new: NDArray[Any]) -> tuple[Features, Features]:
    """Both sides as a few numbers a row; the components are those of both together, which see no side."""
    names = ("brightness", "contrast") if old.ndim == 4 else ("level", "spread", "length")
    columns = [np.concatenate(pair) for pair in zip(_levels(old), _levels(new), strict=True)]
    if old.ndim == 3:
        columns.append(np.concatenate([lengths_of(old), lengths_of(new)]).astype(np.float64))
    small = np.concatenate([embedded(old), embedded(new)]).astype(np.float64)
    small -= small.mean(axis=0)
    variances, directions = np.linalg.eigh(small.T @ small / len(small))
    kept = [
        place
        for place in range(len(variances))[::-1][:COMPONENTS]
        if variances[place] > 1e-9 * variances[-1] > 0
    ]
    columns += list((small @ directions[:, kept]).T)
    whole = np.stack(columns, axis=1)
    names = (*names, *(f"component {number}" for number in range(1, len(kept) + 1)))
    empty = np.empty((len(whole), 0), np.int32)
    both = Features(whole, empty, names, (), ())
    return both.part(slice(0, len(old))), both.part(slice(len(old), None))


# ----------------------------------------------------------------------------------------------------- images


def _image_facts(data: SignalSet, sample: NDArray[Any], rows: NDArray[np.int64]) -> dict[str, Any]:
    height, width = data.schema.size
    means, spreads = _levels(sample)
    mean = float(means.mean())
    versions = {"flip.horizontal": coarse(sample[:, :, :, ::-1]), "flip.vertical": coarse(sample[:, :, ::-1])}
    if height == width:
        versions["flip.rotated"] = coarse(np.rot90(sample, axes=(2, 3)))
    return {
        "image.height": height,
        "image.width": width,
        "image.side": min(height, width),
        "image.sizes": data.notes.get("image_sizes", 1),
        "image.mean": mean,
        "image.spread": float(np.sqrt((spreads**2 + (means - mean) ** 2).mean())),
        "receptive.needed": _extent(data, sample, rows),
        **skill(coarse(sample), versions, answer_of(data.train, rows)).shares(),
    }


def _extent(data: SignalSet, sample: NDArray[Any], rows: NDArray[np.int64]) -> int:
    """Pixels that hold EXTENT of what differs between classes, or of the object itself, whichever is less.

    Where objects lie anywhere, what differs between the classes' mean images is spread over the side, and the
    object's own extent counts; where the image is all texture both are the side: an upper bound. The object
    is what differs from the mean of the image's border.
    """
    small = scaled_down(sample, EXTENT_CELLS).mean(axis=1)
    border = np.concatenate([small[:, 0], small[:, -1], small[:, :, 0], small[:, :, -1]], axis=1).mean(axis=1)
    energy = (small - border[:, None, None]) ** 2
    own = [np.median(_middle(energy.sum(axis=axis))) for axis in (2, 1)]
    answer = answer_of(data.train, rows)
    flat = small.reshape(len(small), -1)
    if answer.classes:
        counts = np.bincount(answer.target)
        sums = np.zeros((answer.classes, flat.shape[1]))
        np.add.at(sums, answer.target.astype(np.int64), flat)
        differs = (counts[:, None] * (sums / counts[:, None] - flat.mean(axis=0)) ** 2).sum(axis=0)
    else:
        differs = ((answer.target - answer.target.mean()) @ (flat - flat.mean(axis=0))) ** 2
    between = differs.reshape(small.shape[1:])
    apart = [float(_middle(between.sum(axis=axis)[None])[0]) for axis in (1, 0)]
    sides = [size / cells for size, cells in zip(data.schema.size, small.shape[1:], strict=True)]
    extents = (max(both[0] * sides[0], both[1] * sides[1]) for both in (own, apart))
    return int(min(max(np.ceil(min(extents)), 1), max(data.schema.size)))


def _middle(energy: NDArray[Any]) -> NDArray[np.float64]:
    """Per row how many cells the middle EXTENT of its energy covers; all of them where there is none."""
    total = energy.sum(axis=1, keepdims=True)
    share = np.cumsum(energy, axis=1) / np.where(total > 0, total, 1)
    first = (share < (1 - EXTENT) / 2).sum(axis=1)
    last = (share < (1 + EXTENT) / 2).sum(axis=1)
    cells = np.minimum(last, energy.shape[1] - 1) - first + 1
    return np.asarray(np.where(total[:, 0] > 0, cells, energy.shape[1]), np.float64)


# -------------------------------------------------------------------------------------------------- sequences


def _sequence_facts(data: SignalSet, sample: NDArray[Any], rows: NDArray[np.int64]) -> dict[str, Any]:
    values, channels, length = _values(data.train), data.schema.channels, data.schema.size[0]
    lengths = lengths_of(values)
    points = int(lengths.sum()) * channels
    missing = int(sum(np.isnan(values[at : at + 1024]).sum() for at in range(0, len(values), 1024)))
    missing -= (
        int((length - lengths).sum()) * channels
    )  # past the end of a shorter sequence nothing is missing
    correlations = _autocorrelations(sample)
    period, decay = _period(correlations), _correlation_length(correlations, length)
    wanted = max(PERIODS * (period or 0), CORRELATION_LENGTHS * decay)
    return {
        "missing.share": missing / points if points else 0.0,
        "missing.max_column_share": missing / points if points else 0.0,
        "sequence.length": int(lengths.max()),
        "sequence.length_min": int(lengths.min()),
        "sequence.length_median": float(np.median(lengths)),
        "sequence.unequal": bool(lengths.min() < lengths.max()),
        "sequence.period": period,
        "sequence.correlation_length": decay,
        "sequence.glitches": data.notes.get("glitches", 0),
        "sequence.channels_last": bool(data.notes.get("channels_last", 0)),
        **_step_facts(data),
        "sequence.scale_informative": has_skill(_scales(sample), answer_of(data.train, rows)),
        "receptive.needed": max(min(wanted, length), 1),
        **_by_probes(data, sample, rows),
    }


def _step_facts(data: SignalSet) -> dict[str, float | None]:
    steps = data.steps
    if steps is None:
        return {"sequence.uneven_steps": 0.0}
    return {
        "sequence.uneven_steps": steps.uneven,
        "sequence.step_low": steps.low,
        "sequence.step_high": steps.high,
        "sequence.step_longest": steps.longest,
    }


def _by_probes(data: SignalSet, sample: NDArray[Any], rows: NDArray[np.int64]) -> dict[str, float | None]:
    """Which of two probes has more skill on plain rows, that of the points of the coarse series in their
    places or that of local patterns wherever they lie; and by it, what may be turned."""
    chosen = kernel_rows(len(sample), sample.shape[2])
    sample, answer = sample[chosen], answer_of(data.train, rows[chosen])
    versions = {"flip.reversed": _reversed(sample), "flip.sign": -sample}
    places, patterns = (
        skill(see(sample), {name: see(changed) for name, changed in versions.items()}, answer)
        for see in (coarse, local_patterns)
    )
    better = max(places, patterns, key=lambda probe: probe.plain)
    return {"sequence.position_gain": places.plain - patterns.plain, **better.shares()}


def _reversed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each sequence from its last point to its first, its end still filled with NaN."""
    places = lengths_of(values)[:, None] - 1 - np.arange(values.shape[2])
    turned = np.take_along_axis(values, np.maximum(places, 0)[:, None], axis=2)
    return np.where(places[:, None] >= 0, turned, np.nan).astype(np.float32)


def _scales(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and logarithm of the standard deviation of every channel of a row, at most 128 channels."""
    values = values[:, :128]
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=2), 1)
    mean = np.where(known, values, 0).sum(axis=2, dtype=np.float64) / count
    spread = np.sqrt((np.where(known, values - mean[..., None], 0) ** 2).sum(axis=2) / count)
    # z-normalized series differ in their sixth digit, and nothing must be read from that
    level, spread = np.round(mean, 4), np.round(np.log(spread + 1e-9), 3)
    return np.concatenate([level, spread], axis=1).astype(np.float32)


def _correlated_rows(count: int, values: NDArray[Any]) -> int:
    """Of how many of this many rows the autocorrelation is taken."""
    return min(count, max(AUTOCORRELATION_CELLS // int(np.prod(values.shape[1:])), 2 * PERIOD_ROWS))


def _autocorrelations(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Per row the mean autocorrelation of its channels at lags 0 .. half the length; NaN where fewer than
    half of the pairs or no variation are there. Each series has its linear trend taken away."""
    count = _correlated_rows(len(values), values)
    values = (
        values[np.linspace(0, len(values) - 1, count).astype(np.int64)] if count < len(values) else values
    )
    length = values.shape[2]
    known = ~np.isnan(values)
    weights = known.astype(np.float64)
    places = np.arange(length) - (length - 1) / 2
    total = np.maximum(weights.sum(axis=2, keepdims=True), 1)
    centre = (weights * places).sum(axis=2, keepdims=True) / total
    away = weights * (places - centre)
    filled = np.where(known, values, 0).astype(np.float64)
    mean = filled.sum(axis=2, keepdims=True) / total
    slope = (away * filled).sum(axis=2, keepdims=True) / np.maximum(
        (away**2).sum(axis=2, keepdims=True), 1e-12
    )
    rest = np.where(known, filled - mean - slope * away, 0)
    size = 1 << (2 * length - 1).bit_length()
    half = length // 2 + 1
    products = np.fft.irfft(np.abs(np.fft.rfft(rest, size)) ** 2, size)[..., :half]
    pairs = np.rint(np.fft.irfft(np.abs(np.fft.rfft(weights, size)) ** 2, size)[..., :half])
    variance = products[..., :1] / total
    usable = (pairs >= np.maximum(total / 2, 2)) & (variance > 1e-12 * np.maximum(mean**2, 1e-12))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(usable, products / pairs / variance, 0).sum(axis=1) / usable.sum(axis=1)
    return np.asarray(correlation)


def _mean_of_known(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column means; NaN where fewer than half of the rows say something."""
    known = ~np.isnan(rows)
    count = known.sum(axis=0)
    mean = np.where(known, rows, 0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count * 2 >= max(len(rows), 1), mean, np.nan)


def _correlation_length(correlations: NDArray[np.float64], length: int) -> int:
    mean = _mean_of_known(correlations)
    below = np.flatnonzero(mean < 1 / np.e)
    return int(below[0]) if len(below) else length


def _period(correlations: NDArray[np.float64]) -> int | None:
    """Half of the rows choose the peak, the others say whether it is there beyond chance."""
    if len(correlations) < PERIOD_ROWS:
        return None
    choosing, judging = correlations[::2], correlations[1::2]
    mean = _mean_of_known(choosing)
    mean = mean[: int(np.isnan(mean).argmax()) if np.isnan(mean).any() else len(mean)]
    inner = np.arange(1, len(mean) - 1)
    peaks = inner[(mean[inner] > mean[inner - 1]) & (mean[inner] >= mean[inner + 1])]
    peaks = peaks[mean[peaks] >= PERIOD_PEAK]
    if not len(peaks):
        return None
    lag = int(peaks[mean[peaks] >= 0.9 * mean[peaks].max()][0])  # the period, not a multiple of it
    trough = int(mean[:lag].argmin())
    if mean[lag] - mean[trough] < PERIOD_PEAK:
        return None
    rise = judging[:, lag] - judging[:, trough]
    rise = rise[~np.isnan(rise)]
    if len(rise) < PERIOD_ROWS // 2 or finite(float(rise.mean())) is None:
        return None
    error = float(rise.std(ddof=1)) / np.sqrt(len(rise))
    return lag if rise.mean() > PERIOD_Z * error and judging[:, lag].mean() > PERIOD_PEAK / 2 else None


@dataclass(frozen=True)
class _MeasuredKind:
    """What differs between images and sequences: their own facts, how near two rows are copies, and what of a
    shift only they can show."""

    facts: Callable[[SignalSet, NDArray[Any], NDArray[np.int64]], dict[str, Any]]
    near: float
    shift: Callable[[NDArray[Any], NDArray[Any]], dict[str, Any]] = lambda old, new: {}


_OF_KIND: Mapping[Kind, _MeasuredKind] = {
    "image": _MeasuredKind(_image_facts, NEAR_IMAGE, _image_shift),
    "sequence": _MeasuredKind(_sequence_facts, NEAR_SEQUENCE),
    "mask": _MeasuredKind(mask_facts, NEAR_IMAGE, _image_shift),
    "boxes": _MeasuredKind(box_facts, NEAR_IMAGE, _image_shift),
}
