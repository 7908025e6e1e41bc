"""From data to a recommendation, without training: reads, measures, applies the rules.
Imports neither torch, ray nor optuna.

What reads and measures tables is loaded when there is one: why, what-if and diff ask a run that is finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from advisor.console import told_when_slow
from advisor.errors import UserError, did_you_mean
from advisor.evaluation.metrics import check_fit, checked_costs, name_of, read_costs
from advisor.facts.schema import Facts
from advisor.kinds import Kind
from advisor.rules import shipped
from advisor.rules.recommendation import Finding, advise
from advisor.runs.advice import Advice, AdviceOptions, absolute, check_fingerprint, read_run
from advisor.runs.folder import RunFolder
from advisor.runs.starting import earlier_run, start_facts
from advisor.workflows.modalities import MODALITY_OF
from advisor.workflows.options import AdviceKeywords, takes_advice_keywords
from advisor.workflows.python.advised import AdvisedRecommendation

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl

    from advisor.data.modalities import AnyData

    Source = str | Path | pl.DataFrame | pd.DataFrame | np.ndarray[Any, Any]
    Target = str | int | pd.Series[Any] | pl.Series | np.ndarray[Any, Any] | list[Any] | None

NAMES_TOLD = 5
"""A message names this many columns."""
TOLD_BY_RULES = {
    "marked_values",
    "glitches",
    "channels_last",
    "rows_in_singleton_classes",
    "test_rows_of_unseen_class",
}
TOLD_BY_RULES |= {"joined_cells", "corrupt_files", "oversized_files", "absent_files", "absent_masks"}
"""Notes of what was repaired that are facts, of which a rule tells whenever there are any."""


def get_advice(
    source: Source,
    target: str | None,
    reading: AdviceOptions | None = None,
    *,
    findings: Sequence[Finding] = (),
) -> Advice:
    """Read, measure and recommend. Raises UserError for whatever the user can fix.

    A column that alone tells test rows from training rows, and a text that tells nothing of the target, are
    left out (read again as identifiers); one by which all test rows are later becomes the time column, one of
    whose groups the test rows have none the group column. A type given for it in ``reading`` prevents each.
    findings: those made before, to be reported with the rest.
    """
    reading = reading or AdviceOptions()
    kind = _kind(source, target, reading)
    reading = replace(reading, kind=kind)
    space = shipped.base_space(kind)
    # first: a misspelt rule must not cost a minute of reading
    rules = shipped.rule_book(reading.rules, reading.without, kind)
    metric = reading.judged_by
    if metric is not None and metric.is_own:
        from advisor.evaluation.judge import own_function

        own_function(metric.name)  # nor must a function that is not there
    data = _read(source, target, reading)
    with told_when_slow(f"measuring {data!r}, which takes a while"):
        measured = MODALITY_OF[kind].measure(data)
    if metric is not None:
        check_fit(metric, data.schema.task, data.schema.classes)
        measured = replace(measured, values={**measured.values, **metric.facts()})
    earlier = earlier_run(reading, data)
    taken = {} if earlier is None else earlier.architecture(space, reading.fixed)
    measured = replace(measured, values={**measured.values, **start_facts(reading, space, taken)})
    kept = {
        "name": data.name,
        "source": absolute(data.source),
        "target": data.schema.target,
        "fingerprint": data.fingerprint,
        **reading.to_dict(),
    }
    recommendation = advise(
        measured.values,
        rules,
        space,
        {**taken, **reading.fixed},
        reasons={} if earlier is None else dict.fromkeys(taken.keys() - reading.fixed.keys(), earlier.reason),
        findings=[*repairs(data), *findings],
        data=kept,
    )
    again = MODALITY_OF[kind].again(data, recommendation, reading)
    if again is not None:
        carried = [one for one in recommendation.findings if one.code in again.told or one in findings]
        return get_advice(source, target, again.options, findings=carried)
    return Advice(data, measured, recommendation, reading, rules)


def with_target(data: Any, target: Any) -> tuple[Any, str | None]:
    """The data with the target among them, and its name: as scikit-learn's X and
    y are given, or a column by name.

    A NumPy array X of shape (rows, columns) becomes a frame with the columns x0, x1, ...; one of three or
    four dimensions holds images or series, and stays as it is. y is a sequence of as many values, and keeps
    its name where it has one (a series), else it is called target. UserError, with what is expected, for
    anything else.
    """
    from advisor.data.sources.frames import column_name, column_place

    if (own := column_name(data, target)) is not None:
        return data, own
    if isinstance(target, tuple) and len(target) == getattr(getattr(data, "columns", None), "nlevels", 1):
        return data, "_".join(map(str, target))  # a label of several levels, and no column's
    shape = getattr(data, "shape", None)
    rows, is_matrix = (shape[0], len(shape) == 2) if isinstance(shape, tuple) and shape else (0, False)
    is_signals = not hasattr(data, "columns") and isinstance(shape, tuple) and len(shape) in (3, 4)
    if target is None or (isinstance(target, str | int) and not isinstance(target, bool)):
        if target is not None and is_matrix and not hasattr(data, "columns"):
            raise UserError(
                "X is an array without column names: give y, the values of the target, as the second argument"
            )
        return data, None if target is None else str(target)
    if not is_matrix and not is_signals:
        raise UserError(
            f"the target is a {type(target).__name__} and the data is a {type(data).__name__}: expected a "
            "frame or an array X of "
            "shape (rows, columns), images or series as an array of three or four dimensions, with y of "
            "shape (rows,), or data with the name of the target's column"
        )
    import numpy as np

    if (
        getattr(target, "ndim", 1) == 2 and target.shape[1] == 1
    ):  # a column of one, as frames and arrays are sliced
        target = target.iloc[:, 0] if hasattr(target, "iloc") else target[:, 0]
    if is_signals and getattr(target, "ndim", 1) in (3, 4):  # a mask for each image
        return {"X": np.asarray(data), "Y": np.asarray(target)}, None
    if not hasattr(target, "__len__") or getattr(target, "ndim", 1) != 1:
        raise UserError(
            f"y is a {type(target).__name__} that is not a list of values: expected shape (rows,), one per "
            "row"
        )
    if len(target) != rows:
        raise UserError(f"X has {rows:,} rows and y has {len(target):,} values: give one value per row")
    if is_signals:
        answers = np.asarray(target)
        if answers.dtype == object:  # pandas keeps texts as objects
            answers = np.asarray(answers.tolist()) if all(isinstance(a, str) for a in answers) else answers
        return {"X": np.asarray(data), "y": answers}, None
    columns = getattr(data, "columns", None)
    frame = _frame_of(data) if columns is None else data
    label = getattr(target, "name", None)
    label, taken = "" if label is None else label, {str(column) for column in frame.columns}
    place = column_place(frame, label)
    if place is not None or str(label) in taken:
        # the series was taken out of this very frame, where it would stay as a
        # feature that gives the target away
        there = frame[str(label)] if place is None else frame.iloc[:, place]
        if list(there) != list(target):
            raise UserError(
                f"y is called '{label}', and X has a column of that name with other values: rename one of "
                "them"
            )
        return frame, str(label) if place is None else column_name(frame, label)
    name = str(label) or _free_name(taken)
    if hasattr(frame, "with_columns"):
        import polars as pl

        return frame.with_columns(
            pl.Series(name, target if isinstance(target, pl.Series) else np.asarray(target))
        ), name
    values = getattr(target, "array", None)  # by position: y may have another index than X
    frame = frame.assign(**{name: np.asarray(target) if values is None else values})
    return frame, column_name(frame, name)


def _frame_of(array: Any) -> Any:
    import numpy as np
    import pandas as pd

    dense = array.toarray() if hasattr(array, "toarray") else array  # a sparse matrix
    return pd.DataFrame(np.asarray(dense), columns=[f"x{number}" for number in range(array.shape[1])])


def _free_name(taken: set[str]) -> str:
    return next(
        name for name in ("target", "y", *(f"target_{n}" for n in range(len(taken) + 1))) if name not in taken
    )


def _kind(source: Any, target: str | None, reading: AdviceOptions) -> Kind:
    """What the rows are; rows of a table that belong to one id are a sequence."""
    from advisor.data.modalities import kind_of

    return kind_of(source, reading.kind or ("sequence" if reading.id_column else None), target)


def _read(source: Any, target: str | None, reading: AdviceOptions) -> AnyData:
    kind = _kind(source, target, reading)
    return MODALITY_OF[kind].load(source, target, replace(reading, kind=kind))


def reopen(path: Path, source: Source | None = None) -> tuple[Advice, RunFolder]:
    """The advice of a run (its folder or its recommendation.yaml), edits honoured, with its data read again.

    source: the data, when the run was made from a frame or its file has moved. Raises UserError when the data
        are not those that the recommendation was made for.
    """
    kept = read_run(path)
    file, data, reading = kept.file, kept.recommendation.data, kept.reading
    missing = [name for name in ("source", "target", "fingerprint") if not data.get(name)]
    if missing and source is None:
        raise UserError(
            f"{file}: data.{missing[0]} is missing: the data cannot be found again; give their path"
        )
    again = _read(source if source is not None else str(data["source"]), str(data["target"]), reading)
    check_fingerprint(kept, again)
    return Advice(again, kept.facts, kept.recommendation, reading, kept.rules), kept.run


def repairs(data: AnyData) -> list[Finding]:
    """What reading the data had to repair or leave out, as findings."""
    told = [
        Finding("info", name.replace("_", "-"), f"{name.replace('_', ' ')}: {count:,}")
        for name, count in sorted(data.notes.items())
        if count and name not in TOLD_BY_RULES
    ]
    told += [Finding("info", code, sentence) for code, sentence in sorted(data.told.items())]
    if names := getattr(data, "ignored", ()):
        more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
        message = (
            f"Not used as inputs, because they hold text or identify the rows: "
            f"{', '.join(names[:NAMES_TOLD])}{more}."
        )
        told.append(Finding("info", "columns-ignored", message, columns=tuple(names)))
    return told


@takes_advice_keywords
def measure(data: Source, target: Target = None, **options: Unpack[AdviceKeywords]) -> Facts:
    """The facts of a data set: a path, ``sklearn:NAME``, ``openml:ID``, a pandas
    or polars frame. Trains nothing.

    options: those of ``AdviceOptions`` (test, types, kind, task, id_column, time_column, group_column,
    weight_column, channels, test_fraction, seed). Raises UserError for whatever the user can fix.
    """
    data, target = with_target(data, target)
    read = _read(data, target, reading_of(options, data))
    return MODALITY_OF[read.schema.kind].measure(read)


@takes_advice_keywords
def recommend(
    data: Source, target: Target = None, **options: Unpack[AdviceKeywords]
) -> AdvisedRecommendation:
    """What to use, what to search, and why, in seconds and without training.

    options: those of ``AdviceOptions``: test, types, kind, task, id_column, time_column, group_column,
    weight_column, channels, test_fraction, seed; strict (refuse a test table with a column unlike the
    training rows in form); join_spellings (True: read spellings of one category or class as one, False: do
    not; by default where it is certain); rules (further folders of rules), without (ids of rules to leave
    out), encoding (of text files), sheet (of spreadsheets), fixed (parameter -> the value that must stand),
    weights (a file with the trained weights of a network of timm, of ``fixed={"network": "timm:NAME"}``),
    from_run (an earlier run, with whose weights and architecture training begins),
    metric (what decides in place of the loss: a scorer of scikit-learn such as ``roc_auc``, ``pinball:0.9``,
    ``package.module:function``, or the function), cost (a file, or true class -> predicted class -> cost).

    >>> import advisor
    >>> rec = advisor.recommend("data.csv", target="income")  # doctest: +SKIP
    >>> study.optimize(lambda trial: my_loss(rec.space.suggest(trial)), n_trials=50)  # doctest: +SKIP
    """
    data, target = with_target(data, target)
    advice = get_advice(data, target, reading_of(options, data))
    return AdvisedRecommendation.of(advice.recommendation, advice.facts, advice.rules)


def reading_of(options: Mapping[str, Any], data: object = None) -> AdviceOptions:
    """The options by name; UserError for one that does not exist.
    data: whose columns they may name as pandas has them."""
    try:
        return replace(AdviceOptions(), **_with_names(options, data))
    except TypeError:
        unknown = next(name for name in options if name not in AdviceOptions.__dataclass_fields__)
        raise UserError(
            f"unknown option '{unknown}'{did_you_mean(unknown, AdviceOptions.__dataclass_fields__)}"
        ) from None


def _with_names(options: Mapping[str, Any], data: object) -> dict[str, Any]:
    """The options with the names of columns in place of what a pandas frame calls them."""
    from advisor.data.sources.frames import column_name

    named = dict(options)
    for option in ("id_column", "time_column", "group_column", "weight_column"):
        if (name := column_name(data, named.get(option))) is not None:
            named[option] = name
    if callable(metric := named.get("metric")):
        named["metric"] = name_of(metric)
    if (cost := named.get("cost")) is not None:
        named["cost"] = read_costs(cost) if isinstance(cost, str | Path) else checked_costs(cost)
    if isinstance(types := named.get("types"), Mapping):
        named["types"] = {column_name(data, label) or label: kind for label, kind in types.items()}
    return named
