"""A class added to the model of a run from examples, without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from advisor.data.modalities import read_new_rows
from advisor.errors import UserError, shown
from advisor.exporting.card import CARD, model_card
from advisor.files import write_folder, write_json
from advisor.report.page import write_report
from advisor.runs.advice import read_run
from advisor.runs.enrolment import with_class
from advisor.runs.folder import RunFolder
from advisor.runs.model import load_model, model_files
from advisor.runs.result import read_result

LONGEST_NAME = 200


@dataclass(frozen=True)
class Enrolment:
    """What ``enrol`` did.

    label: of the new class. rows: its examples. classes: how many the model now has. model: its folder.
    former: the folder with the model as it was. false_alarms: share of held-out rows of known classes that
    ``unlike_any_class`` marks. told: notes on how the examples were read.
    """

    label: str
    rows: int
    classes: int
    model: Path
    former: Path
    false_alarms: float | None
    told: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"model": str(self.model), "former": str(self.former)}


def enrol(
    run: str | Path,
    examples: Any,
    *,
    name: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Enrolment:
    """Add a class to the model of a run from examples of it, without training.

    examples: rows like those that ``predict`` takes, all of the new class: a table, a folder of images, a
        file of series, a frame or an array.
    name: of the class; by default that of the file or the folder.
    The model before stays readable in RUN/model-1, the one after the next class in RUN/model-2. UserError for
    a run whose model has no cosine classifier, a class that it knows, no examples, or wrong columns.
    """
    if "://" in str(run):
        raise UserError(f"{run} is a URL; a class is added in a local folder: copy the run first")
    folder = RunFolder.open(run)
    folder.need(folder.model, "train it first")
    label = _label(examples, name)
    with folder.lease():
        model = load_model(folder.path)
        if isinstance(examples, str | Path) and not Path(examples).exists() and ":" not in str(examples):
            raise UserError(
                f"{examples} does not exist: give a file or a folder with examples of the new class"
            )
        rows = read_new_rows(examples, model.schema, model.form_of(encoding, sheet))
        new = with_class(model, label, rows.features)
        former = folder.path / f"model-{1 + len(folder.former_models)}"
        write_folder(former, {file.name: file.read_bytes() for file in folder.model.iterdir()})
        _write(folder, model_files(new), {one.label: one.rows for one in new.enrolled})
    told = (*(change.message for change in rows.changes), *rows.told.values())
    alarms = None if new.familiar is None else new.familiar.share
    return Enrolment(label, len(rows.features), len(new.schema.classes), folder.model, former, alarms, told)


def _label(examples: Any, name: str | None) -> str:
    if name is None and isinstance(examples, str | Path):
        path = Path(examples)
        name = path.resolve().name if path.is_dir() else path.stem
    label = (name or "").strip()
    if not label:
        raise UserError("say what the new class is called: --name")
    if len(label) > LONGEST_NAME or not label.isprintable():
        raise UserError(f"'{shown(label, 40)}' is not a class name: give another --name")
    return label


def _write(folder: RunFolder, files: Mapping[str, bytes], enrolled: Mapping[str, int]) -> None:
    """The new model with its card, and the report, which says what was added."""
    kept = read_run(folder.path)
    report = replace(read_result(folder), enrolled=enrolled)
    card = model_card(kept.recommendation, kept.facts, report)
    write_folder(folder.model, {**files, CARD: card.encode()})
    write_json(folder.result, report.to_dict())
    write_report(folder, kept.recommendation, kept.facts, kept.ledger(), report)
