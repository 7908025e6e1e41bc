"""What a user judges models by: scikit-learn's scorers by name, a function of the user's own, or what
mistakes cost. What differs between metrics is a field of ``Metric``; ``judge`` computes them.

No NumPy and no scikit-learn: names are checked where options are.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from advisor.errors import UserError, did_you_mean
from advisor.kinds import CLASSIFICATIONS, TaskName

if TYPE_CHECKING:
    from advisor.tasks import Task

Judges = Literal["scores", "decisions"]
"""What a metric looks at: probabilities or predicted numbers as they are, or the class that is decided on."""
Costs = Mapping[str, Mapping[str, float]]
"""Class -> predicted class -> what that costs; what is not named costs nothing on the diagonal, else 1."""
Value = TypeVar("Value")


@dataclass(frozen=True)
class Metric:
    """One way to judge predictions.

    name: as the user gave it. words: for people.
    judges: what it looks at. fits: the tasks that it is for.
    greater_is_better: whether more is better of what is shown. (scikit-learn's ``neg_`` scorers are shown
        as what they negate.) low, high: what it cannot be below and above.
    argument: what follows the colon of its name: a quantile, a number of classes, the positive class.
    takes: what that is, "" for nothing.
    trains: the loss that networks are trained on for it, where a rule follows it; "" for the task's own.
    scorer: scikit-learn's name of it; "" where it is made otherwise.
    costs: of a cost matrix.
    counts: of masks and boxes, what is counted over all images (``scenes/by_image.py``); "" for all other
        metrics.
    """

    name: str
    words: str
    judges: Judges
    fits: tuple[TaskName, ...]
    greater_is_better: bool = True
    low: float = -math.inf
    high: float = 1.0
    argument: str = ""
    takes: Literal["", "class", "quantile", "count"] = ""
    trains: Literal["", "mean_absolute_error", "quantile"] = ""
    scorer: str = ""
    costs: Costs | None = None
    counts: Literal["", "IoU", "Dice", "AP50", "AP50:95"] = ""

    @property
    def is_own(self) -> bool:
        """Whether it is a function of the user's."""
        return not (self.scorer or self.takes or self.costs)

    @property
    def quantile(self) -> float | None:
        """The quantile that is asked for."""
        return float(self.argument) if self.takes == "quantile" else None

    def facts(self) -> dict[str, Any]:
        """What a rule may look at."""
        return {
            "has_metric": True,
            "metric.judges": self.judges,
            "metric.loss": self.trains,
            "metric.quantile": self.quantile,
        }


CLASSES: tuple[TaskName, ...] = CLASSIFICATIONS
TWO: tuple[TaskName, ...] = ("binary",)
MANY: tuple[TaskName, ...] = ("multiclass",)
NUMBERS: tuple[TaskName, ...] = ("regression",)
MASKS: tuple[TaskName, ...] = ("segmentation",)
BOXES: tuple[TaskName, ...] = ("detection",)


def _share(
    name: str, words: str, judges: Judges, fits: tuple[TaskName, ...], takes: Any = "", low: float = 0.0
) -> Metric:
    """A metric of classes that is 1 where all is right."""
    return Metric(name, words, judges, fits, low=low, takes=takes, scorer=name)


def _error(
    name: str,
    words: str,
    fits: tuple[TaskName, ...] = NUMBERS,
    trains: Any = "",
    scorer: str | None = None,
    takes: Any = "",
) -> Metric:
    """A metric that is 0 where all is right."""
    own = name if scorer is None else scorer
    return Metric(name, words, "scores", fits, False, 0.0, math.inf, takes=takes, trains=trains, scorer=own)


def _averaged(name: str, words: str) -> tuple[Metric, ...]:
    """A metric of one class, and its averages over classes."""
    averages = (
        _share(f"{name}_{average}", f"{average} {words}", "decisions", CLASSES)
        for average in ("macro", "weighted", "micro")
    )
    return (_share(name, words, "decisions", TWO, "class"), *averages)


def _of_images(name: str, words: str, fits: tuple[TaskName, ...], counts: Any) -> Metric:
    """A metric of masks or boxes: of one class, or the mean over the classes."""
    return Metric(name, words, "scores", fits, low=0.0, takes="class", counts=counts)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _share("roc_auc", "ROC AUC", "scores", TWO, "class"),
        *(
            _share(f"roc_auc_{way}", f"ROC AUC ({way.replace('_', ', ')})", "scores", MANY)
            for way in ("ovr", "ovo", "ovr_weighted", "ovo_weighted")
        ),
        _share("average_precision", "average precision", "scores", TWO, "class"),
        _share("accuracy", "accuracy", "decisions", CLASSES),
        _share("balanced_accuracy", "balanced accuracy", "decisions", CLASSES),
        *_averaged("f1", "F1"),
        *_averaged("precision", "precision"),
        *_averaged("recall", "recall"),
        *_averaged("jaccard", "Jaccard index"),
        _share("matthews_corrcoef", "Matthews correlation", "decisions", CLASSES, low=-1.0),
        _share("top_k_accuracy", "top-k accuracy", "scores", MANY, "count"),
        _error("neg_log_loss", "log loss", CLASSES),
        _error("neg_brier_score", "Brier score", CLASSES),
        _share("d2_log_loss_score", "D2 of the log loss", "scores", CLASSES, low=-math.inf),
        _share("d2_brier_score", "D2 of the Brier score", "scores", CLASSES, low=-math.inf),
        _share("r2", "R2", "scores", NUMBERS, low=-math.inf),
        _share("explained_variance", "explained variance", "scores", NUMBERS, low=-math.inf),
        _error("neg_mean_squared_error", "mean squared error"),
        _error("neg_root_mean_squared_error", "root mean squared error"),
        _error("neg_mean_absolute_error", "mean absolute error", trains="mean_absolute_error"),
        _error("neg_median_absolute_error", "median absolute error", trains="mean_absolute_error"),
        _error(
            "neg_mean_absolute_percentage_error",
            "mean absolute percentage error",
            trains="mean_absolute_error",
        ),
        replace(
            _share("d2_absolute_error_score", "D2 of the absolute error", "scores", NUMBERS, low=-math.inf),
            trains="mean_absolute_error",
        ),
        _error("neg_max_error", "largest error"),
        _error("neg_mean_squared_log_error", "mean squared logarithmic error"),
        _error("neg_root_mean_squared_log_error", "root mean squared logarithmic error"),
        _error("neg_mean_poisson_deviance", "Poisson deviance"),
        _error("neg_mean_gamma_deviance", "gamma deviance"),
        _error("pinball", "pinball loss", trains="quantile", scorer="", takes="quantile"),
        _of_images("iou", "mean IoU", MASKS, "IoU"),
        _of_images("dice", "mean Dice", MASKS, "Dice"),
        _of_images("ap50", "AP50", BOXES, "AP50"),
        _of_images("ap", "AP50:95", BOXES, "AP50:95"),
    )
}
"""The metrics that have names."""
ALIASES: Mapping[str, str] = {
    "auc": "roc_auc",
    "brier": "neg_brier_score",
    "brier_score": "neg_brier_score",
    "log_loss": "neg_log_loss",
    "logloss": "neg_log_loss",
    "mae": "neg_mean_absolute_error",
    "mean_absolute_error": "neg_mean_absolute_error",
    "mean_absolute_percentage_error": "neg_mean_absolute_percentage_error",
    "mape": "neg_mean_absolute_percentage_error",
    "map": "ap",
    "map50": "ap50",
    "mean_dice": "dice",
    "mean_iou": "iou",
    "miou": "iou",
    "mcc": "matthews_corrcoef",
    "mean_squared_error": "neg_mean_squared_error",
    "mse": "neg_mean_squared_error",
    "quantile": "pinball",
    "rmse": "neg_root_mean_squared_error",
    "root_mean_squared_error": "neg_root_mean_squared_error",
    "top_k": "top_k_accuracy",
}
"""What people call them besides."""
COST, OWN = "cost", "package.module:function"
DEFAULT_ARGUMENT = {"quantile": "0.5", "count": "5", "class": "", "": ""}
_CHECKS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "quantile": (lambda text: 0 < float(text) < 1, "a quantile between 0 and 1, such as {name}:0.9"),
    "count": (lambda text: int(text) >= 1, "a number of classes, such as {name}:3"),
    "class": (lambda text: bool(text), "the positive class, such as {name}:yes"),
}


def metric_of(name: str) -> Metric:
    """The metric of that name: one of ``METRICS`` or ``ALIASES``, perhaps with an argument
    (``pinball:0.9``, ``top_k:3``, ``f1:yes``), or ``package.module:function``. UserError for another word."""
    if not isinstance(name, str) or not name:
        raise UserError(f"metric is {name!r}; expected a name such as roc_auc, or {OWN}")
    first, colon, argument = name.partition(":")
    known = METRICS.get(ALIASES.get(first, first))
    if known is None:
        if colon and first.replace(".", "_").isidentifier() and argument.isidentifier():
            return Metric(name, argument.replace("_", " "), "decisions", (*CLASSES, *NUMBERS), high=math.inf)
        others = [] if colon else _other_scorers()
        if first in others:
            raise UserError(f"metric {name} compares clusterings or several labels: {_some_that_fit(None)}")
        raise UserError(
            f"unknown metric '{name}'{did_you_mean(first, [*METRICS, *ALIASES])}: give one of "
            f"scikit-learn's scorers, {OWN}, or a file of costs (--cost)"
        )
    if colon and not known.takes:
        raise UserError(f"metric {name}: {known.name} takes nothing after a colon")
    argument = argument if colon else DEFAULT_ARGUMENT[known.takes]
    if colon:
        fits, expected = _CHECKS[known.takes]
        try:
            good = fits(argument)
        except ValueError:
            good = False
        if not good:
            raise UserError(f"metric {name}: expected {expected.format(name=first)}")
    words = f"{known.words} at {argument}" if known.takes == "quantile" else known.words
    words = f"{known.counts} of {argument}" if known.counts and argument else words
    return replace(known, name=name, argument=argument, words=words)


def offered(task: Task) -> tuple[str, ...]:
    """Metrics whose decision is offered where a class is rare."""
    names = ("balanced_accuracy", "f1", "f1_macro")
    return tuple(name for name in names if task.name in METRICS[name].fits)[:2]


def name_of(function: Callable[..., Any]) -> str:
    """``package.module:function`` of a function; UserError where it has no such name."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    if not module or not str(name).isidentifier():
        raise UserError(f"metric is {function!r:.80}: give a function that a module has a name for")
    return f"{module}:{name}"


def _other_scorers() -> Sequence[str]:
    from sklearn.metrics import get_scorer_names

    return [name for name in get_scorer_names() if name not in METRICS]


def _some_that_fit(task: TaskName | None) -> str:
    names = [name for name, one in METRICS.items() if task is None or task in one.fits]
    return f"choose one of {', '.join(names)}" if names else "none does yet"


def cost_metric(costs: Costs) -> Metric:
    """The metric of a cost matrix: the mean cost of a row."""
    return Metric(COST, "mean cost", "decisions", CLASSES, False, -math.inf, math.inf, costs=costs)


def asked_metric(name: str | None, costs: Costs | None) -> Metric | None:
    """The metric that options ask for; None: none. UserError when they ask for two."""
    if name is not None and costs is not None:
        raise UserError("give a metric or costs, not both: costs are the metric")
    if costs is not None:
        return cost_metric(costs)
    return None if name is None else metric_of(name)


def check_task(metric: Metric, task: TaskName) -> None:
    """UserError where a metric does not fit a task."""
    if task not in metric.fits:
        raise UserError(f"metric {metric.name} does not fit a {task} target: {_some_that_fit(task)}")


def check_fit(metric: Metric, task: TaskName, classes: Sequence[str]) -> None:
    """UserError where a metric does not fit a task, or names classes that there are not."""
    check_task(metric, task)
    if metric.takes == "class" and metric.argument and metric.argument not in classes:
        meant = did_you_mean(metric.argument, classes)
        raise UserError(
            f"metric {metric.name}: there is no class '{metric.argument}'{meant}; "
            f"the classes are {', '.join(classes[:20])}"
        )
    for truth, row in (metric.costs or {}).items():
        for name in (truth, *row):
            if name not in classes:
                raise UserError(
                    f"the costs name '{name}'{did_you_mean(name, classes)}, which is no class; "
                    f"the classes are {', '.join(classes[:20])}"
                )


# ------------------------------------------------------------------------------------------------------ costs


def read_costs(path: str | Path) -> dict[str, dict[str, float]]:
    """A cost matrix from a file: CSV with a row for each true class and a column for each predicted one, the
    first column the true classes' names; or YAML, ``truth: {predicted: cost}``. UserError for what is
    neither."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file of costs") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the costs of {file}: {error}") from None
    if file.suffix.lower() in (".yaml", ".yml"):
        import yaml

        try:
            return checked_costs(yaml.safe_load(text), str(file))
        except yaml.YAMLError as error:
            raise UserError(f"{file} is no YAML: {str(error).splitlines()[0]}") from None
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise UserError(
            f"{file}: expected a header with the predicted classes and a row for each true class, all as long"
        )
    columns = [name.strip() for name in rows[0][1:]]
    return checked_costs(
        {row[0].strip(): dict(zip(columns, row[1:], strict=True)) for row in rows[1:]}, str(file)
    )


def checked_costs(costs: Any, where: str = "cost") -> dict[str, dict[str, float]]:
    """Costs as plain data. UserError where they are no mapping of mappings of finite numbers."""
    form = f"{where}: expected {{true class: {{predicted class: cost}}}}"
    if not isinstance(costs, Mapping) or not costs:
        raise UserError(form)
    found: dict[str, dict[str, float]] = {}
    for truth, row in costs.items():
        if not isinstance(row, Mapping):
            raise UserError(f"{form}; '{truth}' has {row!r:.60}")
        found[str(truth)] = {
            str(name): _cost(cell, f"{where}: {truth}, {name}") for name, cell in row.items()
        }
    if not any(cost != 0 for row in found.values() for cost in row.values()):
        raise UserError(f"{where}: nothing costs anything")
    return found


def _cost(cell: Any, where: str) -> float:
    try:
        cost = float(cell)
    except (TypeError, ValueError):
        cost = math.nan
    if isinstance(cell, bool) or not math.isfinite(cost):
        raise UserError(f"{where}: '{cell}' is not a number")
    return cost
