"""The saved model: fitted stacks with the schema that reads new rows, as
safetensors and JSON, never a pickle."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray

from advisor import __version__
from advisor.data.modalities import READ_MODALITIES, AnySchema, NewRows, read_new_rows, schema_from_dict
from advisor.data.options import FileForm
from advisor.dataset import Features, Signals
from advisor.errors import DataFormWarning, FormChange, UserError, made_by_newer
from advisor.evaluation.by_target import JUDGED
from advisor.evaluation.conformal import Conformal
from advisor.evaluation.trees.boosted import BoostedTrees
from advisor.evaluation.trees.share import TreePart
from advisor.files import read_json
from advisor.runs.enrolment import Enrolled, Familiar, similarity_of
from advisor.runs.folder import RunFolder
from advisor.runs.remote import local_copy
from advisor.spaces.aliases import values_of
from advisor.tasks import MULTICLASS, SMALLEST_PROBABILITY, Task, task_of
from advisor.training.loop import Fitted
from advisor.training.modalities import MODALITIES, Shape, TrainedModality

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    Rows = pl.DataFrame | pd.DataFrame | NDArray[Any] | str | Path

FORMAT = 2
FORMAT_WITHOUT_TREES = 1
"""Still written where there are none, so that an older advisor reads it."""
DESCRIPTION, WEIGHTS, CHECKSUMS = "model.json", "weights.safetensors", "checksums.json"
TEMPERATURE_RANGE = (0.1, 10.0)
TEMPERATURE_DEVIATION = 0.25
"""Standard deviation of the logarithm of the temperature beforehand. Without it, a few hundred
held-out rows that happen to be all correct ask for boundless certainty, and one wrong row among the
new ones costs more than all it gained."""
PREPROCESSED, CONFORMAL, TREES = "preprocessor", "conformal", "trees"
TARGET_ARRAYS = ("target_mean", "target_scale", "target_range", "target_knee")
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""A class label that 64 bits hold and that is written back as it was read."""


@dataclass(frozen=True)
class Model:
    """An ensemble of fitted stacks (folds, seeds and, where a blend won, several
    configurations), equally weighted.

    temperature: the logarithms of the mean probabilities are divided by it (Guo
        et al. 2017); 1 changes nothing.
    shares: of the classes among the training rows, where ``predict`` takes the class that stands out most
        against its share (the best guess for balanced accuracy); without them it takes the most likely one.
    conformal: what intervals and class sets are made by; None in models of before there were any.
    familiar: from which similarity on a row resembles a class; None without a cosine classifier.
    enrolled: classes that were added after training, the last ones of the schema's.
    trees: boosted trees whose scores are averaged with the networks' before the temperature.
    """

    schema: AnySchema
    stacks: tuple[Fitted, ...]
    temperature: float = 1.0
    shares: tuple[float, ...] = ()
    conformal: Conformal | None = None
    familiar: Familiar | None = None
    enrolled: tuple[Enrolled, ...] = ()
    trees: TreePart | None = None

    def __repr__(self) -> str:
        networks = sum(len(stack.member_split) for stack in self.stacks)
        trees = "" if self.trees is None else f" and trees (share {self.trees.share:.2f})"
        return f"<Model of '{self.schema.target}' ({self.schema.task}): {networks} networks{trees}>"

    @property
    def task(self) -> Task:
        """What was learnt."""
        return task_of(self.schema.task)

    @property
    def classes(self) -> NDArray[Any]:
        """The classes in the order of ``predict_proba``'s columns, with the values and the type of the
        target that was given; trained on a file without types, in its spelling: numbers where all are
        written back as they stood, else text."""
        if self.schema.given is not None:
            return self.schema.given.array()
        labels = self.schema.classes
        if labels and all(INTEGER.fullmatch(label) for label in labels):
            return np.array([int(label) for label in labels], dtype=np.int64)
        return np.array(labels)

    def predict(
        self, data: Rows, *, strict: bool = False, encoding: str | None = None, sheet: str | None = None
    ) -> NDArray[Any]:
        """One prediction per row: a class label, or a number in the target's
        unit. Shape (rows,), in row order.

        Tables: columns are found by name (of an array by their order); further columns are ignored;
        levels never seen in training are allowed. Images and sequences: an array, or any file or folder
        that they can be trained from. Raises UserError when a column of the training table is missing,
        or when rows have another shape. Warns with ``advisor.DataFormWarning`` of columns that are
        unlike those of the training table in form (another way of writing dates or numbers, unreadable
        or blank cells, new categories only);
        strict: raises UserError for them.
        encoding: of a text file, sheet: of a spreadsheet; by default as the training rows were read.
        """
        rows = self._rows(data, strict, encoding, sheet)
        decided = self.task.decided(self.scores(rows.features), self.shares)
        answers: NDArray[Any] = self.classes[decided] if self.task.of_classes else self.answers(rows, decided)
        return answers

    def answers(self, rows: NewRows, decided: NDArray[Any]) -> Any:
        """Predictions of new rows as the training rows' target was given: of masks the values of the
        training masks,
        each as large as its image, of boxes a ``FoundBoxes`` for each image."""
        return READ_MODALITIES[self.schema.kind].answers(self.schema, rows, decided)

    def predict_proba(
        self, data: Rows, *, strict: bool = False, encoding: str | None = None, sheet: str | None = None
    ) -> NDArray[np.float64]:
        """Class probabilities, shape (rows, classes), of masks (rows, classes, height, width). Raises
        UserError for a
        regression model, and as ``predict`` does."""
        if not self.task.has_chances:
            raise UserError(
                f"a model of {self.task} has no class probabilities: use predict, whose boxes have scores"
            )
        if not self.schema.classes:
            raise UserError(
                f"the model of '{self.schema.target}' is a regression model and has no class probabilities: "
                "use predict"
            )
        return self.scores(self._rows(data, strict, encoding, sheet).features)

    def predict_interval(
        self,
        data: Rows,
        level: float = 0.9,
        *,
        strict: bool = False,
        encoding: str | None = None,
        sheet: str | None = None,
    ) -> NDArray[Any]:
        """Where the truth lies with probability ``level``: low and high (rows, 2) in the target's unit, or
        for classes which may be the row's, bool (rows, classes) in the order of ``classes``.

        Holds on average over new rows like the training rows (of new groups or later times where these were
        held out), not for each kind of row. UserError for a model of before, and as ``predict``.
        """
        return self.within(self.scores(self._rows(data, strict, encoding, sheet).features), level)

    def within(self, scores: NDArray[np.float64], level: float) -> NDArray[Any]:
        """The same for scores."""
        if not JUDGED[self.task.target].intervals:
            raise UserError(f"a prediction of {self.task} has no interval: leave interval out")
        if self.conformal is None:
            raise UserError("this model was trained by a version without prediction intervals: train again")
        if self.task.of_classes:
            return self.conformal.sets(scores, level)
        return self.conformal.intervals(scores, level)

    def unlike_any_class(self, features: Features | Signals) -> NDArray[np.bool_]:
        """Which rows resemble no class, (rows,). ValueError for a model without a cosine classifier."""
        if self.familiar is None:
            raise ValueError("only a cosine classifier tells which rows are unlike any class")
        return similarity_of(self.stacks, features) < self.familiar.threshold

    def read(
        self, data: Rows, *, strict: bool = False, encoding: str | None = None, sheet: str | None = None
    ) -> Features | Signals:
        """New rows as the training rows were read; warns, or refuses, as ``predict`` does."""
        return self._rows(data, strict, encoding, sheet).features

    def _rows(self, data: Rows, strict: bool, encoding: str | None, sheet: str | None) -> NewRows:
        rows = read_new_rows(data, self.schema, self.form_of(encoding, sheet), strict=strict)
        if rows.changes:
            warnings.warn(DataFormWarning.of(rows.changes), stacklevel=3)
        return rows

    def form_of(self, encoding: str | None, sheet: str | None) -> FileForm:
        """How a file of new rows is read: as it is said, else as the training rows were."""
        return FileForm(encoding, sheet) if encoding or sheet else self.schema.form

    def scores(self, features: Features | Signals) -> NDArray[np.float64]:
        """Probabilities (rows, classes) or predictions (rows,) for rows that are encoded already."""
        mean = self.task.averaged(np.stack([stack.predict(features) for stack in self.stacks]))
        if self.trees is not None:
            mean = self.trees.blended(mean, features, len(self.schema.classes))
        return tempered(mean, self.temperature) if self.task.of_classes else mean


@dataclass(frozen=True)
class PredictedRows:
    """Predictions of the rows of a source.

    table: one row for each, in their order. unused: columns of the source that are not used. changes: what
    is unlike
    the training rows in the form of the others. told: what else to tell of how it was read, as code ->
    sentence.
    files: predictions that do not stand in a table, by the name of their file: masks as PNG, boxes as JSON.
    """

    table: pl.DataFrame
    unused: tuple[str, ...]
    changes: tuple[FormChange, ...]
    told: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)


def predictions(
    model: Model,
    source: str | Path,
    *,
    strict: bool = False,
    encoding: str | None = None,
    sheet: str | None = None,
    interval: float | None = None,
) -> PredictedRows:
    """What `advisor predict` writes for the rows of a source, in their order.

    ``prediction``, and for classes a ``probability_CLASS`` for each (with a cosine classifier before them
    ``unlike_any_class``, true or false); images and sequences that have names
    have them first; of masks the share of each class among the points, and the masks as files;
    of boxes a row for each box that was found, and all of them as a COCO file. interval:
    adds ``low`` and ``high``, or for classes ``set``, those that may be the row's,
    with | between them. Raises UserError as ``Model.predict`` does.
    """
    import polars as pl

    rows = read_new_rows(source, model.schema, model.form_of(encoding, sheet), strict=strict)
    told = tuple(rows.unused), rows.changes, dict(rows.told)
    columns: dict[str, Any] = {"name": rows.names} if any(rows.names) else {}
    scores = model.scores(rows.features)
    within = None if interval is None else model.within(scores, interval)
    modality = READ_MODALITIES[model.schema.kind]
    if modality.files is not None and modality.table is not None:
        decided = model.task.decided(scores, model.shares)
        table = pl.DataFrame(dict(modality.table(model.schema, rows, decided)))
        return PredictedRows(table, *told, modality.files(model.schema, rows, decided))
    if not model.task.of_classes:
        columns["prediction"] = scores
        columns |= {} if within is None else {"low": within[:, 0], "high": within[:, 1]}
        return PredictedRows(pl.DataFrame(columns), *told)
    classes = model.classes
    if classes.dtype == object:
        classes = classes.astype(str)
    columns["prediction"] = classes[model.task.decided(scores, model.shares)]
    if model.familiar is not None:
        columns["unlike_any_class"] = model.unlike_any_class(rows.features)
    if within is not None:
        columns["set"] = ["|".join(str(label) for label in classes[row]) for row in within]
    columns |= {f"probability_{label}": scores[:, i] for i, label in enumerate(classes.tolist())}
    return PredictedRows(pl.DataFrame(columns), *told)


def tempered(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """softmax(log p / T), row by row."""
    logs = np.log(np.clip(probabilities, SMALLEST_PROBABILITY, 1.0)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(probabilities: NDArray[np.float64], target: NDArray[Any]) -> float:
    """The most probable temperature given the held-out rows (Guo et al. 2017),
    beforehand log-normal about 1."""
    from scipy.optimize import minimize_scalar

    def cost(log_temperature: float) -> float:
        log_loss = MULTICLASS.row_losses(
            target, tempered(probabilities, float(np.exp(log_temperature)))
        ).sum()
        return float(log_loss) + (log_temperature / TEMPERATURE_DEVIATION) ** 2 / 2

    found = minimize_scalar(cost, bounds=np.log(TEMPERATURE_RANGE), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x)) if found.fun < cost(0.0) else 1.0


def model_files(model: Model) -> dict[str, bytes]:
    """The model as file name -> content; the caller writes them into one folder."""
    tensors: dict[str, NDArray[Any]] = {}
    stacks = []
    for number, stack in enumerate(model.stacks):
        tensors.update({f"{number}/{name}": tensor.numpy() for name, tensor in stack.state.items()})
        for split, preprocessor in enumerate(stack.preprocessors):
            arrays = preprocessor.arrays()
            shared = stack.preprocessors[0].arrays() if split else {}  # as the weights of a backbone are
            tensors.update(
                {
                    f"{number}/{PREPROCESSED}/{split}/{name}": array
                    for name, array in arrays.items()
                    if shared.get(name) is not array
                }
            )
        tensors.update({f"{number}/{name}": getattr(stack, name) for name in TARGET_ARRAYS})
        stacks.append(_describe(stack))
    if model.conformal is not None:
        tensors[CONFORMAL] = model.conformal.errors
    for number, fit in enumerate(model.trees.fits if model.trees else ()):
        tensors.update({f"{TREES}/{number}/{name}": array for name, array in fit.arrays().items()})
    description = {
        "format": FORMAT_WITHOUT_TREES if model.trees is None else FORMAT,
        "advisor": __version__,
        "schema": model.schema.to_dict(),
        "temperature": model.temperature,
        "shares": list(model.shares),
        "held_out": None if model.conformal is None else [model.conformal.rows, model.conformal.knee],
        "familiar": None if model.familiar is None else asdict(model.familiar),
        "enrolled": [asdict(one) for one in model.enrolled],
        "stacks": stacks,
        **({} if model.trees is None else {"trees": _describe_trees(model.trees)}),
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    files = {
        DESCRIPTION: json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False).encode(),
        WEIGHTS: safetensors.numpy.save(contiguous),
    }
    return files | {CHECKSUMS: _checksums(files)}


def _describe(stack: Fitted) -> dict[str, Any]:
    return {
        "configuration": dict(stack.configuration),
        "task": stack.task.name,
        "outputs": stack.outputs,
        "shape": _plain(stack.shape),
        "scaling": [p.scaling for p in stack.preprocessors],
        "member_split": list(stack.member_split),
        "best_epochs": list(stack.best_epochs),
        # JSON has no infinity: the loss of a member that diverged from the start
        "validation_losses": [loss if math.isfinite(loss) else None for loss in stack.validation_losses],
    }


def _describe_trees(trees: TreePart) -> dict[str, Any]:
    """columns: of the rows that they are asked for."""
    return {"share": trees.share, "fits": len(trees.fits), "columns": trees.columns}


def _plain(shape: Shape) -> dict[str, Any]:
    fields = asdict(shape)  # type: ignore[call-overload]  # each is a dataclass
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _checksums(files: Mapping[str, bytes]) -> bytes:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    return json.dumps(digests | {CHECKSUMS: _digest_of(digests)}, indent=1).encode()


def _digest_of(digests: Mapping[str, str]) -> str:
    """The list's own checksum: without it a damaged list would put the blame on a sound file."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def load_model(path: str | Path) -> Model:
    """The model of a run folder or a run's URL, or of its ``model`` folder.

    Raises UserError when there is none, when a file was changed or damaged since it was
    written, or when a newer advisor wrote it.
    """
    folder = Path(local_copy(path))
    run = RunFolder(folder)
    if run.result.is_file() and not run.model.is_dir() and "objective" in read_json(run.result):
        raise UserError(
            f"{folder} was tuned with your own objective, which saves its own models: see {run.winner}"
        )
    folder = folder / "model" if (folder / "model").is_dir() else folder
    files = {name: _read(folder, name) for name in (DESCRIPTION, WEIGHTS, CHECKSUMS)}
    stored = files.pop(CHECKSUMS)
    if stored != _checksums(files):
        raise UserError(
            f"{folder}: {_changed(stored, files)} was changed or damaged since it was written: train again"
        )
    description = json.loads(files[DESCRIPTION])
    if description["format"] > FORMAT:
        newer = made_by_newer(description["format"], FORMAT, description.get("advisor"))
        raise UserError(f"{folder / DESCRIPTION} {newer}")
    tensors = safetensors.numpy.load(files[WEIGHTS])
    shares = tuple(float(share) for share in description.get("shares", ()))
    schema = schema_from_dict(description["schema"])
    modality = MODALITIES[schema.kind]
    stacks = (_stack(entry, number, tensors, modality) for number, entry in enumerate(description["stacks"]))
    conformal = None
    if held_out := description.get("held_out"):
        conformal = Conformal(tensors[CONFORMAL], int(held_out[0]), float(held_out[1]))
    known = description.get("familiar")
    return Model(
        schema,
        tuple(stacks),
        float(description["temperature"]),
        shares,
        conformal,
        Familiar(**known) if known else None,
        tuple(Enrolled(**one) for one in description.get("enrolled", ())),
        _trees(description.get("trees"), tensors, len(schema.classes)),
    )


def _trees(
    entry: Mapping[str, Any] | None, tensors: Mapping[str, NDArray[Any]], classes: int
) -> TreePart | None:
    if entry is None:
        return None
    fits = []
    for number in range(int(entry["fits"])):
        prefix = f"{TREES}/{number}/"
        own = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
        fits.append(BoostedTrees.from_arrays(own, int(entry["columns"]), classes))
    return TreePart(tuple(fits), float(entry["share"]), int(entry["columns"]))


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no model ('{name}' is missing): give a folder that train or tune finished"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {folder / name}: {error.strerror}") from None


def _changed(stored: bytes, files: Mapping[str, bytes]) -> str:
    """The name of the file that differs from its checksum; the list of checksums
    itself when no single one does."""
    try:
        digests = dict(json.loads(stored))
        if digests.pop(CHECKSUMS) != _digest_of(digests):
            return CHECKSUMS
        wrong = [
            name for name, content in files.items() if digests[name] != hashlib.sha256(content).hexdigest()
        ]
    except (ValueError, KeyError, TypeError):
        return CHECKSUMS
    return " and ".join(wrong) or CHECKSUMS


def _stack(
    entry: Mapping[str, Any], number: int, tensors: Mapping[str, NDArray[Any]], modality: TrainedModality
) -> Fitted:
    configuration = values_of(entry["configuration"])
    types = modality.types(configuration)
    own = {
        name.removeprefix(f"{number}/"): array
        for name, array in tensors.items()
        if name.startswith(f"{number}/")
    }
    preprocessors = []
    first: dict[str, NDArray[Any]] = {}
    for split, scaling in enumerate(entry["scaling"]):
        prefix = f"{PREPROCESSED}/{split}/"
        arrays = {name.removeprefix(prefix): own.pop(name) for name in list(own) if name.startswith(prefix)}
        arrays = first = first | arrays  # what splits share is saved with the first
        preprocessors.append(types.statistics.from_arrays(scaling, arrays))
    targets: dict[str, Any] = {name: own.pop(name) for name in TARGET_ARRAYS}
    return Fitted(
        configuration=configuration,
        task=task_of(entry["task"]),
        outputs=entry["outputs"],
        shape=types.shape.from_dict(entry["shape"]),
        preprocessors=tuple(preprocessors),
        member_split=tuple(entry["member_split"]),
        state={name: torch.from_numpy(np.array(array)) for name, array in own.items()},
        **targets,
        best_epochs=tuple(entry["best_epochs"]),
        validation_losses=tuple(math.inf if loss is None else loss for loss in entry["validation_losses"]),
        # held-out scores belong to the training table and are not part of a model
        held_out_rows=np.zeros(0, dtype=np.int64),
        held_out=np.zeros(0),
    )
