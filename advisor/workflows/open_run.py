"""Opening a run: the advice and the folder for some data, or for a run that is
there already. No torch, ray, optuna."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.data.signals.image_paths import SUFFIXES
from advisor.data.signals.ucr_files import archive_pair
from advisor.errors import UserError, shown
from advisor.files import read_text, write_text
from advisor.rules import shipped
from advisor.rules.recommendation import Recommendation
from advisor.runs.advice import Advice, check_fingerprint, read_run
from advisor.runs.folder import RunFolder, choose_run_folder
from advisor.runs.remote import local_copy
from advisor.workflows.recommend import get_advice, reading_of, reopen, with_target

if TYPE_CHECKING:
    from advisor.workflows.recommend import Source, Target

DATA_SUFFIXES = (".csv", ".tsv", ".parquet", ".xlsx", ".npz", ".npy")
"""Files that a message about a folder proposes."""


def open_run(
    data: Source, target: Target, out: str | Path | None, options: Mapping[str, Any]
) -> tuple[Advice, RunFolder]:
    """The advice and the run folder for some data, or for a run that is there
    already; a run's place may be a URL."""
    data, target = with_target(data, target)
    data, out = local_copy(data), local_copy(out, new=True)
    if isinstance(data, str | Path) and is_run(data):
        if Path(data).is_dir():
            _refuse_empty(Path(data))
            RunFolder.open(data)  # that it is no run is a better complaint than one about the options
        given = sorted(name for name, value in options.items() if value) + (["target"] if target else [])
        if given:
            raise UserError(f"{data} already says how its data are read: leave out {', '.join(given)}")
        advice, run = reopen(Path(data))
        return (advice, run) if out is None else (advice, _folder_for(advice, out))
    advice = get_advice(data, target, reading_of(options, data))
    run = _folder_for(advice, out)
    if run.recommendation.is_file():
        # a recommendation that is there may carry the user's edits; the same command goes on with it
        kept = read_run(run.recommendation)
        check_fingerprint(kept, advice.data)
        asked_alike = kept.reading.to_dict() == advice.reading.to_dict()
        if asked_alike and (
            not advice.reading.fixed or _same_plan(kept.recommendation, advice.recommendation)
        ):
            return Advice(advice.data, kept.facts, kept.recommendation, kept.reading, kept.rules), run
        if run.has_search():
            raise UserError(
                f"{run.path} holds a search with other options: use the same ones, or another --out"
            )
        provenance = kept.recommendation.provenance
        if lost := [name for name, p in provenance.items() if p.yours and name not in advice.reading.fixed]:
            raise UserError(
                f"{run.recommendation} has values that you set ({', '.join(lost)}): give them with --fixed "
                "too, or use another --out"
            )
    return advice, run


def _folder_for(advice: Advice, out: str | Path | None) -> RunFolder:
    """As ``choose_run_folder``; where the folder's run was begun with other
    options on this source, these are named."""
    try:
        return choose_run_folder(out, advice.identity)
    except UserError:
        run = RunFolder(Path(out or "."))
        if not (run.facts.is_file() and run.recommendation.is_file()):
            raise
        there = run.identity()
        if (there.source, there.target) != (advice.identity.source, advice.identity.target):
            raise
        kept, given = read_run(run.recommendation).reading.to_dict(), advice.reading.to_dict()
        if not (
            other := [name for name in kept if kept[name] != given[name] and name not in ("rules", "without")]
        ):
            raise
        options = ", ".join(
            f"--{name.replace('_', '-')} {_as_text(kept[name])}, not {_as_text(given[name])}"
            for name in other
        )
        begun = f"--out {out} holds a run that was begun with {options}"
        raise UserError(f"{begun}: give the same, or choose another folder") from None


def _as_text(value: Any) -> str:
    return shown(value, 60) if value or value == 0 else "none"


def is_run(data: str | Path) -> bool:
    """Whether this names a run folder or an (edited) recommendation rather than data."""
    path = Path(data)
    if path.is_dir():
        return RunFolder(path).recommendation.is_file() or not _holds_images(path)
    return path.suffix in (".yaml", ".yml")


def _holds_images(folder: Path) -> bool:
    """Whether a folder is a set of images, or of series in files of their archive."""
    return archive_pair(folder) is not None or any(
        path.suffix.lower() in SUFFIXES for path in folder.rglob("*")
    )


def _refuse_empty(folder: Path) -> None:
    """UserError for a folder that is neither a run, nor half of one, nor data, with what to give instead."""
    run = RunFolder(folder)
    if run.facts.exists() or run.recommendation.exists():
        return
    files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in DATA_SUFFIXES)
    found = (
        f"it has {', '.join(shown(name, 40) for name in files[:4])}: give one of these"
        if files
        else "give a file, or a run"
    )
    raise UserError(
        f"{shown(folder, 200)} is not a run (it has neither facts.json nor recommendation.yaml) and no "
        "data: it has no image "
        f"files and no pair of NAME_TRAIN.ts and NAME_TEST.ts; {found}"
    )


def write_advice(run: RunFolder, advice: Advice) -> None:
    """facts.json and recommendation.yaml of a run; a file that says the same
    already is left as it is, edits and all."""
    run.write_facts(advice.facts.to_dict(), advice.identity)
    if run.recommendation.is_file():
        there = Recommendation.from_yaml(
            read_text(run.recommendation), shipped.base_space, str(run.recommendation)
        )
        if there.data == advice.recommendation.data and _same_plan(there, advice.recommendation):
            return
    write_text(run.recommendation, advice.recommendation.to_yaml())


def _same_plan(one: Recommendation, other: Recommendation) -> bool:
    """Whether both fix and search the same."""
    return one.configuration == other.configuration and one.space.to_dict() == other.space.to_dict()
