"""A run as the subject of a script: which configuration, which columns, how many networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.exporting.script import ScriptSubject
    from advisor.runs.model import Model


def script_subject(path: Path) -> ScriptSubject:
    """What ``--format script`` makes a file of: the winner's configuration of a run with a model, of a
    blend the best of its parts; else what is recommended, with the data read again.

    UserError for a folder that is no run, and where the data are needed and cannot be found.
    """
    from advisor.exporting.script import ScriptSubject
    from advisor.runs.advice import read_run
    from advisor.runs.model import load_model

    kept = read_run(path)
    data, notes = kept.recommendation.data, tuple[str, ...]()
    if kept.reading.from_run is not None:
        notes = ("weights of an earlier run, with which training begins: here it begins with random ones",)
    common: dict[str, Any] = {
        "run": kept.run.path.name,
        "data": str(data["name"]),
        "source": str(data.get("source") or ""),
        "seed": kept.reading.seed,
        "test_fraction": kept.reading.test_fraction,
        "weights": str(kept.reading.weights or ""),
    }
    if not kept.run.model.is_dir():
        return ScriptSubject(**common, **_recommended(path), notes=notes)
    model = load_model(path)
    configuration, told = _trained(kept.run, model)
    notes += told
    if model.enrolled:
        names = ", ".join(one.label for one in model.enrolled)
        notes = (*notes, f"classes added with advisor enrol ({names}): add rows of them to your file")
    stacks = [stack for stack in model.stacks if dict(stack.configuration) == dict(configuration)]
    first = (stacks or list(model.stacks))[0]
    along_time = model.schema.time_column is not None  # the judged networks are none of the model's
    members = first.configuration["final_members"] if along_time else len(first.member_split)
    return ScriptSubject(
        **common,
        schema=model.schema,
        configuration=first.configuration,
        members=int(members) if along_time else int(members) // len(first.preprocessors),
        partitions=_partitions(kept.run) if along_time else max(1, len(stacks)),
        channels=_channels(first.preprocessors[0]),
        notes=notes,
    )


def _channels(statistics: Any) -> int:
    """Of a row of images or series, with the one that says where series have points; of tables 0. (The shape
    of fixed convolutions' features no longer tells.)"""
    points = getattr(statistics, "points", None)
    return 0 if points is None else len(points.mean) + int(points.masked[0])


def _partitions(run: Any) -> int:
    """On how many a model of rows along time was judged: its stacks are other ones."""
    from advisor.objectives.final_jobs import FINAL_REPEATS
    from advisor.runs.result import read_result

    report = read_result(run)
    return len(FINAL_REPEATS) if report.search and report.final.confirmed is not False else 1


def _trained(run: Any, model: Model) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The configuration of a model, and what to tell of it."""
    from advisor.runs.result import read_result

    final = read_result(run).final
    winner = final.contender(final.winner)
    beside: tuple[str, ...] = ()
    if model.trees is not None:
        beside = (f"the boosted trees of the model (share {model.trees.share:.2f}): here the networks alone",)
    if len(winner.configurations) == 1:
        return model.stacks[0].configuration, beside
    parts = [one for one in final.contenders if len(one.configurations) == 1]
    best = min(parts, key=lambda one: one.held_out_loss)
    of_stacks = (stack.configuration for stack in model.stacks)
    wanted = next(one for one in of_stacks if dict(one) == dict(best.configurations[0]))
    told = (
        f"the blend of {len(winner.configurations)} configurations that won ({winner.held_out_loss:.4g} on "
        f"held-out rows): here the best of them, {best.name} ({best.held_out_loss:.4g})"
    )
    return wanted, (told, *beside)


def _recommended(path: Path) -> dict[str, Any]:
    """What is recommended, of a run without a model."""
    from advisor.workflows.modalities import MODALITY_OF
    from advisor.workflows.recommend import reopen

    advice, _ = reopen(path)
    configuration = advice.recommendation.configuration
    return {
        "schema": advice.data.schema,
        "configuration": configuration,
        "members": int(configuration["final_members"]),
        "partitions": 1,
        "channels": MODALITY_OF[advice.recommendation.kind].channels(advice.data),
    }
