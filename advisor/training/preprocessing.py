"""Inputs for a network: fitted on training rows, applied to any rows, kept as plain arrays that can be saved.

Every statistic (medians, scales, quantiles, bins, known levels) comes from the
rows given to ``Preprocessor.fit``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import LATEST_SHARE, MISSING, Features

if TYPE_CHECKING:
    from advisor.networks.pretrained.start import InputLabels, Label

Array = NDArray[Any]

QUANTILES = 257
"""Reference points of the quantile scaling; finer ones only copy noise into the scale."""
SMOOTH_CLIP = 3.0
"""Robustly scaled values are squashed by x / sqrt(1 + (x / 3)^2), as in RealMLP (Holzmueller et al. 2024)."""
FIT_ROWS = 100_000
"""Quantiles are taken from at most this many evenly spaced training rows: exact
ones cost seconds and change nothing."""
WAVE_DIGITS = 6
"""Of sines and cosines, so that they are the same numbers wherever they are computed: a rank among ties
depends on the last digit."""
RESERVED_CODES = 2
"""Code 0 is a level that the training rows do not have, code 1 a missing value; known levels follow."""


@dataclass(frozen=True)
class Inputs:
    """What a network reads, row by row.

    numeric: float32 (rows, numeric columns), scaled, missing as 0.
    indicators: float32 (rows, one-hot and missing columns), 0 or 1, and words of texts as they are: all those
        of a text together weigh as much as one number.
    codes: int64 (rows, embedded columns), 0 for an unseen level.
    """

    numeric: NDArray[np.float32]
    indicators: NDArray[np.float32]
    codes: NDArray[np.int64]


@dataclass(frozen=True)
class ColumnLabels:
    """What the inputs of a table stand for. codes: of each embedded column, in the order of its codes."""

    numeric: tuple[Label, ...]
    indicators: tuple[Label, ...]
    embedded: tuple[Label, ...]
    codes: tuple[tuple[Label, ...], ...]

    def padded(self, indicators: int, code_counts: Sequence[int]) -> InputLabels:
        """With names for what other splits alone know: so many indicators, and codes of each column."""
        from advisor.networks.pretrained.start import InputLabels

        codes = [
            one for own, count in zip(self.codes, code_counts, strict=True) for one in _padded(own, count)
        ]
        return InputLabels(self.numeric, _padded(self.indicators, indicators), self.embedded, tuple(codes))


def _padded(labels: tuple[Label, ...], count: int) -> tuple[Label, ...]:
    return (*labels, *(("unused", str(place)) for place in range(len(labels), count)))


@dataclass(frozen=True)
class Preprocessor:
    """Fitted statistics. ``arrays`` is all there is to save."""

    scaling: str
    centre: Array  # (numeric,)
    scale: Array  # (numeric,): 0 marks a column that is constant in the training rows
    quantiles: Array  # (QUANTILES, numeric) for scaling "quantile", else (0, numeric)
    bins: Array  # (bins + 1, numeric) edges on the scaled values, or (0, numeric)
    missing_columns: Array  # indices of numeric columns with missing values in the training rows
    one_hot_columns: Array  # indices of categorical columns that are one-hot encoded
    embedded_columns: Array  # indices of categorical columns that are embedded
    code_maps: (
        Array  # (categorical columns, largest level count + 2): level code + 2 -> code of this preprocessor
    )
    code_counts: Array  # (categorical columns,): codes in use, reserved ones included
    latest: Array = field(
        default_factory=lambda: np.zeros(0)
    )  # (numeric,) values above it count as it, or (0,)
    words: Array = field(
        default_factory=lambda: np.zeros(0, bool)
    )  # (numeric and words,) which are words of texts, or (0,)
    cycles: Array = field(
        default_factory=lambda: np.zeros((0, 2))
    )  # (cycles, 2): a numeric column and its period; its sine and cosine follow the numeric columns
    products: Array = field(
        default_factory=lambda: np.zeros((0, 2), np.int64)
    )  # (products, 2): two columns, of these and the sines and cosines; their product follows them

    @classmethod
    def fit(cls, features: Features, rows: Array, configuration: Mapping[str, Any]) -> Preprocessor:
        """Statistics of ``features`` at ``rows`` as the configuration's input parameters ask for them."""
        scaling = configuration["numeric_scaling"]
        words = features.word_columns if features.words else np.zeros(0, bool)
        plain = features.numeric[rows] if not len(words) else features.numeric[np.ix_(rows, ~words)]
        cycles, products = calendar_inputs(features, configuration.get("calendar_features", "none"))
        numeric = with_calendar(plain, cycles, products)
        sample = numeric[:: max(1, len(rows) // FIT_ROWS)]
        centre, scale, quantiles = _fit_scaling(sample, scaling)
        latest = _fit_trend(features, numeric, configuration.get("time_trend", "none"), scale)
        bins = np.zeros((0, numeric.shape[1]))
        if configuration["numeric_embedding"] == "piecewise_linear":
            scaled = _scale(sample, scaling, centre, scale, quantiles)
            bins = _edges(scaled, np.isnan(sample), int(configuration["numeric_embedding_bins"]))
        code_maps, code_counts = _fit_codes(features, rows)
        # by the levels of the table, so that all folds of a stack encode a column the same way
        one_hot = np.array([len(levels) for levels in features.levels], dtype=np.int64) <= int(
            configuration["one_hot_max"]
        )
        return cls(
            scaling=scaling,
            centre=centre,
            scale=scale,
            quantiles=quantiles,
            bins=bins,
            missing_columns=np.flatnonzero(np.isnan(plain).any(axis=0)),
            one_hot_columns=np.flatnonzero(one_hot),
            embedded_columns=np.flatnonzero(~one_hot),
            code_maps=code_maps,
            code_counts=code_counts,
            latest=latest,
            words=words,
            cycles=cycles,
            products=products,
        )

    def transform(self, features: Features) -> Inputs:
        """Every row of ``features`` as inputs. Levels that the training rows lack
        become code 0, or no one-hot at all."""
        plain = features.numeric[:, ~self.words] if len(self.words) else features.numeric
        values = with_calendar(plain, self.cycles, self.products)
        values = np.minimum(values, self.latest) if len(self.latest) else values
        numeric = _scale(values, self.scaling, self.centre, self.scale, self.quantiles)
        blocks = [np.isnan(plain[:, self.missing_columns])]
        codes = np.zeros((len(features), len(self.embedded_columns)), dtype=np.int64)
        for column in self.one_hot_columns:
            mapped = self._codes(features, column)
            blocks.append(mapped[:, None] == np.arange(1, self.code_counts[column])[None, :])
        for position, column in enumerate(self.embedded_columns):
            codes[:, position] = self._codes(features, column)
        if len(self.words):
            blocks.append(features.numeric[:, self.words])
        return Inputs(numeric, np.concatenate(blocks, axis=1).astype(np.float32), codes)

    def labels(self, features: Features) -> ColumnLabels:
        """What the inputs stand for: columns and categories by name. features: rows of the same table."""
        words = self.words if len(self.words) else np.zeros(len(features.numeric_names), bool)
        plain = [name for name, word in zip(features.numeric_names, words, strict=True) if not word]
        indicators: list[Label] = [("missing", plain[column]) for column in self.missing_columns]
        for column in self.one_hot_columns:
            indicators += self._categories(features, column)[1:]
        indicators += [
            ("word", name) for name, word in zip(features.numeric_names, words, strict=True) if word
        ]
        names = features.categorical_names
        return ColumnLabels(
            tuple(("number", name) for name in self._with_calendar_names(plain)),
            tuple(indicators),
            tuple(("category", names[column]) for column in self.embedded_columns),
            tuple(tuple(self._categories(features, column)) for column in self.embedded_columns),
        )

    def _with_calendar_names(self, plain: list[str]) -> list[str]:
        """Names of the numeric inputs. plain: of the numeric columns."""
        names = list(plain)
        for column, period in self.cycles:
            names += [f"{part}({plain[int(column)]} / {period:g})" for part in ("sine", "cosine")]
        return names + [f"{names[one]} x {names[other]}" for one, other in self.products]

    def _categories(self, features: Features, column: int) -> list[Label]:
        """What each code of a column stands for: one that is unseen, one that is missing, and the levels."""
        name, levels = features.categorical_names[column], features.levels[column]
        by_code: dict[int, Label] = {0: ("unseen", name), 1: ("none", name)}
        codes = self.code_maps[column]
        by_code |= {
            int(codes[level + 2]): ("level", name, text)
            for level, text in enumerate(levels)
            if codes[level + 2] >= RESERVED_CODES
        }
        return [
            by_code.get(code, ("unused", name, str(code))) for code in range(int(self.code_counts[column]))
        ]

    def _codes(self, features: Features, column: int) -> NDArray[np.int64]:
        return np.asarray(
            self.code_maps[column][features.categorical[:, column] + RESERVED_CODES], dtype=np.int64
        )

    @property
    def embedded_counts(self) -> NDArray[np.int64]:
        """Codes in use by each embedded column, reserved ones included."""
        return np.asarray(self.code_counts[self.embedded_columns], dtype=np.int64)

    def arrays(self) -> dict[str, Array]:
        """The statistics as arrays by name; ``from_arrays`` takes them back."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "scaling"}

    @classmethod
    def from_arrays(cls, scaling: str, arrays: Mapping[str, Array]) -> Preprocessor:
        return cls(scaling=scaling, **dict(arrays))


def with_calendar(numeric: Array, cycles: Array, products: Array) -> Array:
    """Numeric columns, sine and cosine of each cycle, products of two of these (``Preprocessor``)."""
    if not len(cycles):
        return numeric
    angles = 2 * np.pi * numeric[:, cycles[:, 0].astype(np.int64)] / cycles[:, 1]
    waves = np.round([np.sin(angles), np.cos(angles)], WAVE_DIGITS)
    waves = np.moveaxis(waves, 0, 2).reshape(len(numeric), -1)
    known = np.concatenate([numeric, waves], axis=1)
    return np.concatenate([known, known[:, products[:, 0]] * known[:, products[:, 1]]], axis=1)


def calendar_inputs(features: Features, how: str) -> tuple[Array, Array]:
    """The cycles and the products of ``Preprocessor``. "cyclic": all that comes round; "crossed": also
    each half of a day, and the hour's sines and cosines times what tells the day."""
    words = set(features.words)
    place = {name: at for at, name in enumerate(n for n in features.numeric_names if n not in words)}
    cycles = [] if how == "none" else list(features.calendar)
    halves = [replace(c, period=c.period / 2) for c in cycles if how == "crossed" and c.unit == "hour"]
    cycles += halves
    waves = [
        (c.unit, len(place) + at)
        for c, first in zip(cycles, range(0, 2 * len(cycles), 2), strict=True)
        for at in (first, first + 1)
    ]
    days = [at for unit, at in waves if unit == "weekday"] + [place[name] for name in features.working]
    hours = [at for unit, at in waves if unit == "hour"] if halves else []
    rounds = [(place[c.name], c.period) for c in cycles]
    products = [(hour, day) for hour in hours for day in days]
    return np.array(rounds, np.float64).reshape(-1, 2), np.array(products, np.int64).reshape(-1, 2)


def _fit_scaling(values: Array, scaling: str) -> tuple[Array, Array, Array]:
    """Centre, scale and reference quantiles of each column, missing values
    apart; an empty column gets scale 0."""
    columns = values.shape[1]
    centre, scale = np.zeros(columns), np.zeros(columns)
    quantiles = np.zeros((QUANTILES if scaling == "quantile" else 0, columns))
    for column in range(columns):
        present = values[:, column][~np.isnan(values[:, column])]
        if not len(present) or present.min() == present.max():
            centre[column] = present[0] if len(present) else 0.0
            continue
        centre[column], scale[column] = present.mean(), present.std()
        if scaling == "robust":
            low, middle, high = np.quantile(present, [0.25, 0.5, 0.75])
            # RealMLP: a column with equal quartiles falls back to its range, else it would explode
            centre[column] = middle
            scale[column] = (high - low) / 1.349 if high > low else (present.max() - present.min()) / 2
        elif scaling == "quantile":
            quantiles[:, column] = np.quantile(present, np.linspace(0, 1, QUANTILES))
    return centre, scale, quantiles


def _fit_trend(features: Features, numeric: Array, how: str, scale: Array) -> Array:
    """The value of each column above which all count as it, (numeric,), or (0,): no limit.
    "clamped" is the time from which on LATEST_SHARE of the rows lie; "none" takes the columns that
    grow with time out, by their scale."""
    words = set(features.words)
    plain = [name for name in features.numeric_names if name not in words]
    columns = [plain.index(name) for name in features.trend]
    if how == "none":
        scale[columns] = 0
    if how != "clamped" or not columns:
        return np.zeros(0)
    latest = np.full(numeric.shape[1], np.inf)
    latest[columns] = np.nanquantile(numeric[:, columns], 1 - LATEST_SHARE, axis=0, method="higher")
    return latest


def _scale(values: Array, scaling: str, centre: Array, scale: Array, quantiles: Array) -> NDArray[np.float32]:
    """Scaled float32 values; missing ones and columns that are constant in the training rows become 0."""
    if scaling == "quantile":
        scaled = np.column_stack(
            [_normal_scores(values[:, j], quantiles[:, j]) for j in range(values.shape[1])] or [values]
        )
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (values - centre) / np.where(scale > 0, scale, 1.0)
        if scaling == "robust":
            scaled = np.clip(
                scaled, -1e9, 1e9
            )  # the square must not overflow, and the limit stays SMOOTH_CLIP
            scaled = scaled / np.sqrt(1 + np.square(scaled / SMOOTH_CLIP))
    scaled = np.where(np.isnan(scaled) | (scale == 0), 0.0, np.clip(scaled, -1e3, 1e3))
    return scaled.astype(np.float32)


def _normal_scores(values: Array, references: Array) -> Array:
    """The normal quantile of each value's rank among the references (mid-rank in
    ties), at most 2.7 in size."""
    from scipy.special import ndtri

    grid = np.linspace(0, 1, len(references))
    # the mean of both directions puts a tied value in the middle of its ranks, as scikit-learn does
    rank = 0.5 * (np.interp(values, references, grid) + 1 - np.interp(-values, -references[::-1], grid))
    return np.asarray(ndtri(np.clip(rank, 0.0035, 0.9965)))


def _edges(scaled: Array, missing: Array, bins: int) -> Array:
    """Edges of ``bins`` equally full bins per column (Gorishniy et al. 2022, quantile-based bins)."""
    edges = np.zeros((bins + 1, scaled.shape[1]))
    for column in range(scaled.shape[1]):
        present = scaled[~missing[:, column], column]
        if len(present):
            edges[:, column] = np.quantile(present, np.linspace(0, 1, bins + 1))
    return edges


def _fit_codes(features: Features, rows: Array) -> tuple[Array, Array]:
    """For each categorical column the map from level code + 2 to its own code,
    and how many codes are in use."""
    columns = features.categorical.shape[1]
    widest = max((len(levels) for levels in features.levels), default=0)
    maps = np.zeros((columns, widest + RESERVED_CODES), dtype=np.int64)
    counts = np.full(columns, RESERVED_CODES, dtype=np.int64)
    for column in range(columns):
        present = np.unique(features.categorical[rows, column])
        known = present[present >= 0]
        maps[column, MISSING + RESERVED_CODES] = 1
        maps[column, known + RESERVED_CODES] = np.arange(len(known)) + RESERVED_CODES
        counts[column] += len(known)
    return maps, counts
