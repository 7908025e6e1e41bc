"""What judging comes to, as plain data: who won and by how much, the loss to expect, where predictions are
wrong. No NumPy, so that a question to a finished run is answered at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advisor.documents import UNSET, Unset


@dataclass(frozen=True)
class Estimate:
    """A mean loss with the interval in which the mean loss of ``rows`` new rows
    lies with probability COVERAGE."""

    mean: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Difference:
    """Mean paired difference to the incumbent (negative: better), its standard error, and
    the one-sided bound that decides."""

    mean: float
    standard_error: float
    high: float


@dataclass(frozen=True)
class FinalVerdict:
    """The contender that won, and each challenger's difference to the incumbent."""

    winner: str
    reason: str
    differences: Mapping[str, Difference]


@dataclass(frozen=True, kw_only=True)
class MetricReport:
    """What a user's metric says of the model, on held-out rows.

    greater_is_better: of its values. expected: of new rows. constant: of the best predictions that ask
    nothing of a row. positive: the class that it is about. most_likely: where another decision is taken, what
    the most likely class would give; threshold: of two classes, the probability of the positive class from
    which on it is predicted; divisors: what each class's probability is divided by before the largest is
    taken. What is not defined is None.
    """

    name: str
    words: str
    greater_is_better: bool
    expected: Estimate
    constant: float | None
    positive: str | Unset = UNSET
    most_likely: float | Unset | None = UNSET
    threshold: float | Unset = UNSET
    divisors: tuple[float, ...] | Unset = UNSET


@dataclass(frozen=True, kw_only=True)
class DecisionOffer:
    """What another decision would give on held-out rows, each by a decision that other rows chose.

    metric: the option's value. most_likely: what the decision in use gives. threshold: as in MetricReport.
    """

    metric: str
    words: str
    value: float
    most_likely: float
    accuracy: float
    positive: str | Unset = UNSET
    threshold: float | Unset = UNSET


@dataclass(frozen=True)
class CalibrationBin:
    """Rows whose most likely class got about this probability, and the share of them that was right."""

    rows: int
    probability: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """Reliability of the probability that each row's most likely class got.

    expected_error: the mean over rows of |share that was right - probability| of the row's bin.
    """

    bins: tuple[CalibrationBin, ...]
    expected_error: float


@dataclass(frozen=True)
class ResidualHistogram:
    """Bars of equal width from low to high; ``below`` and ``above`` count the rows beyond, ``least`` and
    ``most`` are the ends of all."""

    low: float
    high: float
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0
    least: float | Unset = UNSET
    most: float | Unset = UNSET


@dataclass(frozen=True)
class ClassScores:
    """Of one class, of this many rows; None where no row was predicted, or true, to say."""

    rows: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class OperatingPoint:
    """Where the decision in use stands on the curves."""

    false_positive_rate: float
    recall: float
    precision: float | None


@dataclass(frozen=True)
class ThresholdCurves:
    """ROC and precision-recall of one of two classes.

    roc: (false positive rate, true positive rate). pr: (recall, precision). share: of the class.
    class_: its code, ``class`` in a document.
    """

    roc: tuple[tuple[float, float], ...]
    pr: tuple[tuple[float, float], ...]
    roc_auc: float
    average_precision: float
    share: float
    at: OperatingPoint
    class_: int


@dataclass(frozen=True)
class Share:
    """A share with the interval in which it lies with probability COVERAGE over other images like these."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MaskScores:
    """Of one class of masks. images: that show it. iou: right points / those that are true or predicted;
    dice: twice
    the right points / true ones and predicted ones; None where it is neither there nor predicted."""

    images: int
    iou: Share | None
    dice: Share | None


@dataclass(frozen=True)
class BoundaryErrors:
    """Shares of wrong points: at most ``points`` from a border of the true mask, and further away."""

    near: float
    far: float
    points: int


@dataclass(frozen=True)
class BoxScores:
    """Of one class of boxes: true ones, and those that were found at any score. ap50, ap: average precision
    at an overlap of 0.5, and the mean from 0.5 to 0.95; None without a true box. curve: (recall, precision)
    at an overlap of 0.5."""

    boxes: int
    found: int
    ap50: Share | None
    ap: Share | None
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Where predictions are wrong.

    calibration, curves (of two), and of few classes confusion (rows: truth) and per_class, in code order;
    of numbers residual_quantiles (5, 25, 50, 75, 95 %) and a histogram of prediction minus truth, and
    pairs (truth, prediction); of masks per_mask, in code order, and boundary; of
    boxes per_box, in code order.
    """

    calibration: Calibration | Unset = UNSET
    confusion: tuple[tuple[int, ...], ...] | Unset = UNSET
    per_class: tuple[ClassScores, ...] | Unset = UNSET
    curves: ThresholdCurves | Unset = UNSET
    residual_quantiles: tuple[float, float, float, float, float] | Unset = UNSET
    pairs: tuple[tuple[float, float], ...] | Unset = UNSET
    residual_histogram: ResidualHistogram | Unset = UNSET
    per_mask: tuple[MaskScores, ...] | Unset = UNSET
    boundary: BoundaryErrors | Unset | None = UNSET
    per_box: tuple[BoxScores, ...] | Unset = UNSET


@dataclass(frozen=True)
class Importance:
    """How much the loss rises when a column is shuffled (Breiman 2001; Fisher, Rudin and Dominici 2019).

    mean: the rise of the mean loss; low, high: its 90 % interval over the rows.
    """

    name: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Dependence:
    """What is predicted on average if all rows had one value of a column (Friedman 2001).

    at: the values, numbers in ascending order or categories, the most frequent first.
    predicted: name of what is predicted (a class, or "" for a number) -> its mean at each value.
    """

    name: str
    at: tuple[float | str, ...]
    predicted: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Slice:
    """Rows that are told by a few conditions, and how wrong the model is there.

    rows, loss, overall: of rows that did not choose the conditions; error: the standard error of
    loss - overall.
    """

    conditions: tuple[str, ...]
    rows: int
    loss: float
    overall: float
    error: float


@dataclass(frozen=True)
class Explanation:
    """All of it, for a page; parts that do not apply, or for which there was no time, are empty."""

    rows: int
    importances: tuple[Importance, ...] = ()
    dependences: tuple[Dependence, ...] = ()
    slices: tuple[Slice, ...] = ()
