"""What the verbs know of tables, images and sequences, one row for each: how a source is read, what is
measured of it, and what only such rows have. What training knows of them is ``training/modalities.py``, what
reading knows ``data/modalities.py``.

What reads and measures is loaded when there are data: why, what-if and diff ask a run that is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.errors import UserError
from advisor.facts.schema import Facts
from advisor.kinds import MANY, ColumnType, Kind
from advisor.rules.recommendation import Recommendation
from advisor.runs.advice import AdviceOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from advisor.data.modalities import AnyData
    from advisor.data.signals.signals import SignalSet
    from advisor.data.tables.table import Table
    from advisor.dataset import Dataset, Signals
    from advisor.evaluation.explanation import Predict
    from advisor.evaluation.judgement import Explanation
    from advisor.runs.result import Mistake
    from advisor.tasks import RowTarget

PERIOD_CODE, TEXT_CODE = "separating-columns", "uninformative-text"
"""The findings whose columns are left out of the features."""
LATER_CODE = "later-test-rows"
"""The finding whose first column becomes the time column."""
APART_CODE = "unseen-groups"
"""The finding whose first column becomes the group column, where there is no time column."""
SHOWN_COLUMNS = 12
"""A message that asks for the target names at most this many columns."""
MOST_LEFT_OUT = 0.25
"""... unless they are more than this share of the columns: then the sides differ
in all, and no column is to blame."""


@dataclass(frozen=True)
class Again:
    """How a source is to be read again. told: codes of the findings that say why, which stay."""

    options: AdviceOptions
    told: frozenset[str]


def _once(data: Any, recommendation: Recommendation, options: AdviceOptions) -> Again | None:
    return None


def _no_mistakes(
    test: Dataset,
    known: NDArray[np.bool_],
    scores: NDArray[np.float64],
    chosen: NDArray[Any],
    losses: NDArray[np.float64],
    predict: Predict | None = None,
) -> list[Mistake] | None:
    return None


def _no_explanation(data: Dataset, predict: Predict, seed: int, until: float) -> Explanation | None:
    return None


@dataclass(frozen=True)
class Modality:
    """One kind of rows.

    load: a source, its target and the options -> the data, read and divided.
    measure: their facts.
    again: data, their recommendation and the options -> how to read them again by what was found, or None.
    likeness: how much each training row counts when it validates, (rows,), None where that is not known.
    mistakes: test rows, which of them have a target, of these scores, predictions and losses, and the model
        where it is ours -> those with the largest losses as a page shows them; None where it shows none.
    explain: test rows with a target, the model, a seed and when to end (on time.monotonic's clock) -> what
        the model uses and where it is worst; None where that is not asked.
    channels: data -> those of a network's input; 0 where rows are no grid.
    names_target: whether a source cannot say itself what its target is.
    on_gpus: whether trials share the GPUs where there are any, unasked: rules make such networks wider there.
    has_trees: whether boosted trees may be blended with the networks: rows must have columns of their own.
    """

    load: Callable[[Any, str | None, AdviceOptions], AnyData]
    measure: Callable[[Any], Facts]
    again: Callable[[Any, Recommendation, AdviceOptions], Again | None] = _once
    likeness: Callable[[Any], NDArray[np.float64] | None] = lambda data: None
    mistakes: Callable[..., list[Mistake] | None] = _no_mistakes
    explain: Callable[[Any, Predict, int, float], Explanation | None] = _no_explanation
    channels: Callable[[Any], int] = lambda data: 0
    names_target: bool = False
    on_gpus: bool = True
    has_trees: bool = False


# ----------------------------------------------------------------------------------------------------- tables


def _load_table(source: Any, target: str | None, options: AdviceOptions) -> Table:
    from advisor.data.tables.table import load_table

    _refuse_ignore(options)
    if target is None:
        raise _no_target(source, options)
    return load_table(source, target, options)


def _refuse_ignore(options: AdviceOptions) -> None:
    if options.ignore is not None:
        raise UserError("--ignore is for images with masks, which these data are not; leave it out")


def _no_target(source: Any, options: AdviceOptions) -> UserError:
    """What to say of a table without a target: its columns, or why it can't be read."""
    from advisor.data.sources.reading import read_source
    from advisor.errors import shown

    if isinstance(source, str | Path) and ":" not in str(source) and not Path(source).exists():
        return UserError(f"{source}: there is no such file or run folder")
    columns = read_source(source, form=options.form).frame.columns
    some = ", ".join(shown(name, 40) for name in columns[:SHOWN_COLUMNS])
    more = f" and {len(columns) - SHOWN_COLUMNS:,} more" if len(columns) > SHOWN_COLUMNS else ""
    return UserError(f"say which column to predict: --target COLUMN; the columns are {some}{more}")


def _measure_table(data: Table) -> Facts:
    from advisor.facts.table import measure_table

    return measure_table(data)


def _table_again(data: Table, recommendation: Recommendation, options: AdviceOptions) -> Again | None:
    """Without the columns that a finding leaves out, along the time or by the groups that one names; as if
    the user had said so: the run folder keeps it, and reads the same table again."""
    from advisor.data.columns.inference import CODE_NAME

    later = _helper_column(LATER_CODE, recommendation, options)
    apart = _helper_column(APART_CODE, recommendation, options)
    if later and apart == later and CODE_NAME.search(apart):
        later = None  # persons who were numbered as they came
    apart = None if later else apart
    left_out = [name for name in _left_out(data, recommendation, options) if name not in (later, apart)]
    if not (left_out or later or apart):
        return None
    types: dict[str, ColumnType] = {**options.types, **dict.fromkeys(left_out, "identifier")}
    told = frozenset({PERIOD_CODE, TEXT_CODE, LATER_CODE if later else "", APART_CODE if apart else ""})
    time, group = later or options.time_column, apart or options.group_column
    return Again(replace(options, types=types, time_column=time, group_column=group), told)


def _helper_column(code: str, recommendation: Recommendation, options: AdviceOptions) -> str | None:
    """The first column of a finding, unless the user gave its type, or says how rows belong together."""
    if options.time_column is not None or options.group_column is not None:
        return None
    named = [name for finding in recommendation.findings if finding.code == code for name in finding.columns]
    return next((name for name in named if name not in options.types), None)


def _left_out(table: Table, recommendation: Recommendation, options: AdviceOptions) -> list[str]:
    """The columns that a finding says name the period, unless they are many, and the texts that tell nothing,
    unless there is nothing else; neither where the user gave their type.

    Dates stay: their month, weekday and hour may well hold for the test rows.
    """
    usable = {
        column.name
        for column in table.schema.of_type("numeric", "categorical", "boolean", "datetime", "text")
    }
    period = _named(recommendation, PERIOD_CODE) & {
        c.name for c in table.schema.of_type("numeric", "categorical", "boolean")
    }
    texts = _named(recommendation, TEXT_CODE) & {column.name for column in table.schema.of_type("text")}
    period, texts = period - set(options.types), texts - set(options.types)
    dropped = period if len(period) <= MOST_LEFT_OUT * len(usable) else set()
    return sorted(dropped | texts if usable - dropped - texts else dropped)


def _named(recommendation: Recommendation, code: str) -> set[str]:
    return {name for finding in recommendation.findings if finding.code == code for name in finding.columns}


def _likeness(data: Table) -> NDArray[np.float64] | None:
    from advisor.facts.shift.shift import likeness_to_test

    return likeness_to_test(data)


# --------------------------------------------------------------------------------------- images and sequences


def _load_signals(source: Any, target: str | None, options: AdviceOptions) -> SignalSet:
    from advisor.data.signals.signals import load_signals

    _refuse_ignore(options)
    return load_signals(source, target, options)


def _explain_table(data: Dataset, predict: Predict, seed: int, until: float) -> Explanation:
    import numpy as np

    from advisor.evaluation.explanation import explain

    return explain(data, predict, np.random.default_rng(seed), until)


def _measure_signals(data: SignalSet) -> Facts:
    from advisor.facts.signals import measure_signals
    from advisor.report.samples import samples

    return replace(measure_signals(data), samples=tuple(samples(data.train, seed=0)))


# ------------------------------------------------------------------------------------------ images with masks


def _load_masks(source: Any, target: str | None, options: AdviceOptions) -> SignalSet:
    from advisor.data.masks.scenes import load_masks

    return load_masks(source, target, options)


def _measure_masks(data: SignalSet) -> Facts:
    from advisor.facts.signals import measure_signals
    from advisor.report.scenes import mask_samples

    return replace(measure_signals(data), samples=tuple(mask_samples(data.train, seed=0)))


def _worst_scenes(
    test: Dataset[Any],
    known: NDArray[np.bool_],
    scores: NDArray[np.float64],
    chosen: NDArray[Any],
    losses: NDArray[np.float64],
    predict: Predict | None = None,
) -> list[Mistake]:
    from advisor.report.scenes import worst_scenes

    return worst_scenes(test.part(known.nonzero()[0]), chosen, losses)


# ------------------------------------------------------------------------------------------ images with boxes


def _load_boxes(source: Any, target: str | None, options: AdviceOptions) -> SignalSet:
    from advisor.data.boxes.sets import load_boxes

    return load_boxes(source, target, options)


def _measure_boxes(data: SignalSet) -> Facts:
    from advisor.facts.signals import measure_signals
    from advisor.report.scenes import box_samples

    return replace(measure_signals(data), samples=tuple(box_samples(data.train, seed=0)))


def _worst_boxes(
    test: Dataset[Any],
    known: NDArray[np.bool_],
    scores: NDArray[np.float64],
    chosen: NDArray[Any],
    losses: NDArray[np.float64],
    predict: Predict | None = None,
) -> list[Mistake]:
    from advisor.report.scenes import worst_boxes

    return worst_boxes(test.part(known.nonzero()[0]), chosen, losses)


def _mistakes(
    test: Dataset[RowTarget, Signals],
    known: NDArray[np.bool_],
    scores: NDArray[np.float64],
    chosen: NDArray[Any],
    losses: NDArray[np.float64],
    predict: Predict | None = None,
) -> list[Mistake]:
    from advisor.report.samples import mistakes

    return mistakes(test.part(known.nonzero()[0]), scores, chosen, losses, predict)


def _channels(data: SignalSet) -> int:
    """Those of the rows, and one that says where points are missing, where some are."""
    from advisor.training.signal_inputs import has_gaps

    return data.schema.channels + has_gaps(data.train.features)


_SIGNALS = Modality(_load_signals, _measure_signals, mistakes=_mistakes, channels=_channels)
MODALITY_OF: Mapping[Kind, Modality] = {
    "table": Modality(
        _load_table,
        _measure_table,
        _table_again,
        _likeness,
        explain=_explain_table,
        names_target=True,
        on_gpus=False,
        has_trees=True,
    ),
    "image": _SIGNALS,
    "sequence": _SIGNALS,
    "mask": Modality(_load_masks, _measure_masks, mistakes=_worst_scenes),
    "boxes": Modality(_load_boxes, _measure_boxes, mistakes=_worst_boxes),
}


def check_trees(kind: Kind) -> None:
    """UserError where no trees can be blended with the networks."""
    if not MODALITY_OF[kind].has_trees:
        raise UserError(
            f"trees are blended with networks for tables only, not for {MANY[kind]}: leave out --with-trees"
        )
