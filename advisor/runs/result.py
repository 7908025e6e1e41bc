"""result.json of a run as frozen dataclasses: each section is returned by the function that makes it, and all
of them are checked when the file is read. What a run may lack, because its version did not know it, is UNSET.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

from advisor.documents import UNSET, DocumentError, Unset, from_plain, misfit, to_plain
from advisor.errors import UserError
from advisor.evaluation.judgement import (
    DecisionOffer,
    Diagnosis,
    Difference,
    Estimate,
    Explanation,
    FinalVerdict,
    MetricReport,
)
from advisor.files import read_json
from advisor.kinds import TaskName
from advisor.runs.folder import RunFolder
from advisor.search.curves import CurveDiagnosis, RangeChange
from advisor.search.events import PlacedTrial as PlacedTrial

RECOMMENDED = "recommendation"
"""Name of the recommendation among contenders, and origin of its trial."""
Configuration = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What the run was made of. rows: those that trained and validated."""

    name: str | Unset = UNSET
    source: str | Unset | None = UNSET
    target: str | Unset = UNSET
    rows: int


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """What a run was made of, and by what.

    kind: whether the recommendation was trained alone or searched around. loss: what losses are, in words.
    classes: the labels in code order; none for a regression. versions: of the advisor and of libraries.
    """

    format: int | Unset = UNSET
    advisor: str | Unset = UNSET
    kind: Literal["train", "tune"]
    data: DataReport
    task: TaskName
    loss: str
    classes: tuple[Any, ...]
    seed: int | Unset = UNSET
    configuration: Configuration
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """A trial of the search. end: how it ended (``advisor.search.events.TrialEnd``). value: its loss, None
    where there is none that is finite. curve, train_curve: (epoch, validation or training loss); the latter
    of trials that were trained to their end by what reports training losses."""

    number: int
    origin: str
    end: str
    value: float | None
    configuration: Configuration
    epochs: int | Unset | None = UNSET
    seconds: float | Unset | None = UNSET
    curve: tuple[tuple[float, float], ...]
    train_curve: tuple[tuple[float, float], ...] | Unset = UNSET
    reading: CurveDiagnosis | Unset = UNSET


@dataclass(frozen=True, kw_only=True)
class MovedRange:
    """A range that curves moved, as it was for the last of the trials that it was moved for."""

    parameter: str
    low: float
    high: float
    words: str
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class SearchAsked:
    """Options of a search that its command line needs again (``workflows.options.SearchOptions``)."""

    strategy: str = "joint"
    adapt: bool = True
    trial_time_limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """What is kept of a search. requested: trials. seconds: that it took.

    curve_advice: what all curves ask of trials to come. packing: which worker ran which trial when.
    importances: shares of the loss's variation; none where there were too few trials to say.
    """

    requested: int
    trials: tuple[TrialReport, ...]
    timed_out: bool
    seconds: float
    curve_advice: tuple[RangeChange, ...] | Unset = UNSET
    adjustments: tuple[MovedRange, ...] | Unset = UNSET
    packing: tuple[PlacedTrial, ...] | Unset = UNSET
    options: SearchAsked | Unset = UNSET
    importances: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ObjectiveReport:
    """A user's own objective. compared: what the final compares. read, never_read: searched parameters.
    kept: whether what the winner saved lies in the run."""

    name: str
    compared: str
    read: tuple[str, ...] | Unset = UNSET
    never_read: tuple[str, ...] | Unset = UNSET
    kept: bool


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """Losses of one training, the same epochs in both: (epoch, loss)."""

    validation: tuple[tuple[float, float], ...]
    training: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class ContenderReport:
    """A contender of the final. held_out_loss: on rows that did not choose it; held_out_rows: how many, None
    where splits were compared. networks: trained. configurations: several of a blend.
    searched_loss: None where the search has none. difference: of the losses to the incumbent's; None of
    itself. curves: of its trainings, one on each partition; a blend has none of its own. metric: the user's,
    on the same rows, None where it is not defined; metric_difference: to the incumbent's, negative where this
    one is better. recall_at_1: of a cosine classifier, in what share of the held-out rows the nearest
    training row has the same class."""

    name: str
    held_out_loss: float
    held_out_rows: int | Unset | None = UNSET
    temperature: float | Unset = UNSET
    networks: int
    configurations: tuple[Configuration, ...]
    searched_loss: float | None = None
    difference: Difference | None = None
    curves: tuple[TrainingCurve, ...] | Unset = UNSET
    metric: float | Unset | None = UNSET
    metric_difference: Difference | Unset = UNSET
    recall_at_1: float | Unset = UNSET


@dataclass(frozen=True, kw_only=True)
class TreesReport:
    """What became of boosted trees beside the networks, where they were asked for.

    share: of the trees in the model's predictions; 0 where the networks alone are the model. networks: the
    contender that they were blended with. networks_loss, trees_loss, blend_loss: on held-out rows, each
    with the share that others chose. difference: of the blend's losses, or of the metric, to the networks'.
    fits: as many as splits. left_out: why they were not tried; then nothing else is known.
    """

    share: float = 0.0
    networks: str | Unset = UNSET
    networks_loss: float | Unset = UNSET
    trees_loss: float | Unset = UNSET
    blend_loss: float | Unset = UNSET
    difference: Difference | Unset = UNSET
    fits: int | Unset = UNSET
    left_out: str | Unset = UNSET


@dataclass(frozen=True, kw_only=True)
class FinalReport:
    """Who won, and why.

    incumbent: the contender that the others had to beat. failed: those that dropped out, and why.
    confirmed: False where the winner was not judged on splits that the search had not seen.
    fewer_networks: (trained, wanted) per split, where the time limit left no time for all.
    epochs_on_all_rows: of each configuration, where the model was trained again on all rows.
    without_latest_rows: True where the model should have been, and was not.
    trees: of a blend with trees, where one was asked for.
    """

    winner: str
    reason: str
    incumbent: str | Unset = UNSET
    confirmed: bool | Unset = UNSET
    contenders: tuple[ContenderReport, ...]
    failed: Mapping[str, str] | Unset = UNSET
    fewer_networks: tuple[int, int] | Unset | None = UNSET
    epochs_on_all_rows: tuple[float, ...] | Unset | None = UNSET
    without_latest_rows: bool | Unset = UNSET
    trees: TreesReport | Unset = UNSET

    @classmethod
    def of(
        cls,
        verdict: FinalVerdict,
        contenders: Sequence[ContenderReport],
        searched: Mapping[str, float | None],
        incumbent: str,
        failed: Mapping[str, str] | None = None,
        *,
        confirmed: bool = True,
    ) -> Self:
        """Each contender beside its difference to the incumbent and its loss in the search (``searched``)."""
        differences = verdict.differences
        rows = (
            replace(one, searched_loss=searched.get(one.name), difference=differences.get(one.name))
            for one in contenders
        )
        return cls(
            winner=verdict.winner,
            reason=verdict.reason,
            incumbent=incumbent,
            confirmed=confirmed,
            contenders=tuple(rows),
            failed=dict(failed or {}),
        )

    @property
    def to_beat(self) -> str:
        """The name of the incumbent."""
        return self.incumbent or RECOMMENDED

    def contender(self, name: str) -> ContenderReport:
        """The contender of that name. KeyError when there is none."""
        return {one.name: one for one in self.contenders}[name]


@dataclass(frozen=True)
class PairedDifference:
    """Mean paired difference of losses and its standard error."""

    mean: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """A model or a baseline on the test rows. average_precision: of the rarer of two classes.
    mean_iou, mean_dice: over the classes of masks, point_accuracy: share of their points that are right.
    ap50, ap: average precision of found boxes at an overlap of 0.5, and the mean from 0.5 to 0.95.
    metric: the user's, None where it is not defined; metric_difference: negative where this one is better
    than the network."""

    name: str
    loss: float
    r2: float | Unset = UNSET
    accuracy: float | Unset = UNSET
    balanced_accuracy: float | Unset = UNSET
    average_precision: float | Unset = UNSET
    mean_iou: float | Unset = UNSET
    mean_dice: float | Unset = UNSET
    point_accuracy: float | Unset = UNSET
    ap50: float | Unset = UNSET
    ap: float | Unset = UNSET
    difference_to_network: PairedDifference
    metric: float | Unset | None = UNSET
    metric_difference: PairedDifference | Unset = UNSET


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A test row that the model got wrong: base64 of a PNG, or the points of each channel of a series, None
    where one is missing; what it is, and what it was taken for. heat: rows of patches, how much the
    probability of what it was taken for falls when the patch is covered. mask, predicted_mask: PNGs, of
    masks; boxes, found_boxes: PNGs of the image with boxes drawn; label
    and predicted then name the classes that they show."""

    image: str | Unset = UNSET
    series: tuple[tuple[float | None, ...], ...] | Unset = UNSET
    label: Any
    predicted: Any
    probability: float | Unset = UNSET
    heat: tuple[tuple[float, ...], ...] | Unset = UNSET
    mask: str | Unset = UNSET
    predicted_mask: str | Unset = UNSET
    boxes: str | Unset = UNSET
    found_boxes: str | Unset = UNSET


@dataclass(frozen=True, kw_only=True)
class TestReport:
    """The test rows, looked at once. rows: with a known target. origin: held-out, or where they came from.

    results: the network first. left_out: baselines that the time limit left no time for. explanation: what
    the model uses and where it is worst, of a table.
    """

    __test__: ClassVar[bool] = False  # no test, whatever pytest makes of the name

    rows: int
    origin: str
    results: tuple[ScoreReport, ...] | Unset = UNSET
    predictions: Diagnosis | Unset = UNSET
    left_out: tuple[str, ...] | Unset = UNSET
    mistakes: tuple[Mistake, ...] | Unset = UNSET
    explanation: Explanation | Unset = UNSET


@dataclass(frozen=True, kw_only=True)
class InterruptedReport:
    """What is known of a run whose search or final was interrupted; no file holds it."""

    setup: RunSetup
    search: SearchReport
    seconds: float
    time_limit: float | None

    @property
    def trials(self) -> tuple[TrialReport, ...]:
        """Those that are kept."""
        return self.search.trials

    def to_dict(self) -> dict[str, Any]:
        """As the beginning of result.json."""
        more = {"search": self.search, "seconds": self.seconds, "time_limit": self.time_limit}
        return {**to_plain(self.setup), **to_plain(more)}


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """All of result.json.

    curve, train_curve, reading: validation and training losses of a training without a search, and what they
        say.
    search, time_limit: UNSET without a search. seconds: of the whole run.
    objective: UNSET where our networks were trained. metric: UNSET where the loss decides. offers: what other
    decisions would give, where a class is rare. enrolled: classes that were added to the model after
    training, with the number of their examples; all other numbers are of the model before.
    """

    setup: RunSetup
    curve: tuple[float, ...] | Unset = UNSET
    train_curve: tuple[float, ...] | Unset = UNSET
    reading: CurveDiagnosis | Unset = UNSET
    search: SearchReport | Unset = UNSET
    seconds: float
    time_limit: float | Unset | None = UNSET
    objective: ObjectiveReport | Unset = UNSET
    final: FinalReport
    estimate: Estimate
    metric: MetricReport | Unset = UNSET
    offers: tuple[DecisionOffer, ...] | Unset = UNSET
    enrolled: Mapping[str, int] | Unset = UNSET
    test: TestReport

    @property
    def trials(self) -> tuple[TrialReport, ...]:
        """Of the search; none without one."""
        return self.search.trials if self.search else ()

    def to_dict(self) -> dict[str, Any]:
        """What result.json holds."""
        document: dict[str, Any] = to_plain(self)
        setup = document.pop("setup")
        if self.setup.kind == "train":
            document["seconds"] = document.pop("seconds")  # to its place, the last
        return {**setup, **document}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """DocumentError when it is not what ``to_dict`` makes."""
        parts = {field.name: document[field.name] for field in fields(cls) if field.name in document}
        report = from_plain(cls, {**parts, "setup": document})
        _check(report)
        return report


def read_result(run: RunFolder) -> RunReport:
    """result.json of a finished run; UserError when it is not what we wrote."""
    document = read_json(run.result)
    try:
        return RunReport.from_dict(document)
    except DocumentError as error:
        raise UserError(
            f"{run.result} is damaged: {error}; delete it, and run the same command again"
        ) from None


def _check(report: RunReport) -> None:
    """DocumentError where something has its type and does not fit the rest."""
    from advisor.tasks import task_of  # which loads NumPy: a run is looked at, or begun, without

    setup, final, test = report.setup, report.final, report.test
    if setup.kind == "tune" and not report.search:
        raise DocumentError("'search' is missing")
    names = {contender.name for contender in final.contenders}
    score = task_of(setup.task).score
    predictions, classes = test.predictions or Diagnosis(), len(setup.classes)
    histogram, confusion = predictions.residual_histogram, predictions.confusion
    fits = {
        "final.winner": final.winner in names,
        "final.incumbent": final.to_beat in names,
        "test.results": all(getattr(one, score) is not UNSET for one in test.results or ()),
        "test.predictions.residual_histogram": not histogram or bool(histogram.counts),
        "test.predictions.confusion": not confusion or [*map(len, confusion)] == [classes] * classes,
        "curve": setup.kind == "tune" or report.curve is not UNSET,
    }
    for name, fit in fits.items():
        if not fit:
            raise misfit(name)
