"""Routes of advice: a recommendation from an upload or from facts alone, why, what-if, diff, report, rules.

A recommendation is pure: from its facts, its options and the rules it is made again in some
milliseconds, so only these are kept, with the document that was answered.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import AfterValidator, Field, model_validator
from sqlalchemy.engine import Connection, RowMapping

from advisor import __version__
from advisor.documents import to_plain
from advisor.errors import UserError, did_you_mean, shown
from advisor.evaluation.metrics import metric_of
from advisor.facts.schema import FACTS
from advisor.files import FORMAT, write_text
from advisor.kinds import Kind, TaskName
from advisor.networks.pretrained.names import PREFIX
from advisor.rules import shipped
from advisor.rules.provenance import (
    compare_findings,
    compare_recommendations,
    read_fact,
    with_facts,
)
from advisor.rules.recommendation import Recommendation, advise, own_values
from advisor.service.base import tables
from advisor.service.base.access import (
    Admin,
    Adviser,
    Body,
    Cursor,
    Key,
    Limit,
    Reader,
    ServiceState,
    State,
    listed,
    once,
    row_of,
    with_etag,
)
from advisor.service.base.problems import Problem
from advisor.service.base.security import Principal, note_action
from advisor.service.base.store import new_id, now
from advisor.service.routes.advising import (
    AdviceDesk,
    AdvicePool,
    FactsOrder,
    Known,
    MadeAdvice,
    beyond_any_data,
    json_of,
    known_of,
    made_advice,
    opened_document,
    shown_data,
)
from advisor.service.routes.archive import ENDING
from advisor.service.routes.datasets import ReadingPlaces, complete_file, project_folder, whole_or_none

router = APIRouter(prefix="/v1", tags=["advice"])
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "script-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""Of a report: a page that can reach nothing, whose own policy allows its one script by its hash."""
IMAGES: Kind = "image"
"""What an archive holds."""
MOST_FILES, MOST_FILE = 20, 200_000
"""Files of a rule pack, and the characters of each."""
Text = Annotated[str, Field(min_length=1, max_length=200)]
Value = str | int | float | bool


def _of_our_networks(fixed: dict[str, Any]) -> dict[str, Any]:
    """ValueError for a network whose weights would be fetched from elsewhere: no request makes a server ask
    another one, or build what it cannot hold."""
    for name, value in fixed.items():
        if str(value).startswith(PREFIX):
            raise ValueError(
                f"{name}={shown(value, 60)} is a network from elsewhere, which a service does not load: "
                "train it with `advisor train`"
            )
    return fixed


def _named_metric(name: str) -> str:
    """ValueError for a metric that is none, or that is a function of the user's: no request brings code."""
    try:
        metric = metric_of(name)
    except UserError as error:
        raise ValueError(str(error)) from None
    if metric.is_own:
        raise ValueError("a function of your own is code, which a service does not run: name a metric")
    return name


OwnValues = Annotated[dict[Text, Value], AfterValidator(_of_our_networks)]


class AdviceRequest(Body):
    """Either ``dataset`` (an upload) with ``target``, or ``facts``: the content of facts.json, and no row.

    fixed: parameters with your own value. without: rules to leave out. rules: ids of your own rule packs.
    metric, cost: what decides in place of the loss; cost is {true class: {predicted class: cost}}.
    The other fields say how the data set is read, as the options of `advisor recommend` do.
    """

    dataset: Text | None = None
    target: Text | None = None
    test: Text | None = None
    facts: dict[str, Any] | None = None
    name: Text | None = None
    fixed: OwnValues = Field(default_factory=dict)
    without: Annotated[list[Text], Field(max_length=100)] = Field(default_factory=list)
    rules: Annotated[list[Text], Field(max_length=10)] = Field(default_factory=list)
    types: dict[Text, Text] = Field(default_factory=dict)
    kind: Kind | None = None
    task: TaskName | None = None
    id_column: Text | None = None
    time_column: Text | None = None
    group_column: Text | None = None
    weight_column: Text | None = None
    metric: Annotated[Text, AfterValidator(_named_metric)] | None = None
    cost: dict[Text, dict[Text, float]] | None = None
    channels: Literal["first", "last"] | None = None
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    join_spellings: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> AdviceRequest:
        if (self.dataset is None) == (self.facts is None):
            raise ValueError("give either dataset, the id of an upload, or facts, the content of facts.json")
        if self.metric is not None and self.cost is not None:
            raise ValueError("give a metric or costs, not both: costs are the metric")
        return self


class WhatIfRequest(Body):
    """facts: names with other values, as `advisor what-if` takes them. fixed: your own values."""

    facts: dict[Text, Value | None] = Field(default_factory=dict)
    fixed: OwnValues = Field(default_factory=dict)


class RulePackRequest(Body):
    """Rules of a team. files: their names (ending with .yaml) and texts."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]
    files: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,59}\.yaml$")], str], Field(min_length=1)
    ]


# ------------------------------------------------------------------------------------------- making one


@router.post("/recommendations", status_code=201)
async def create_recommendation(
    request: Request, body: AdviceRequest, who: Adviser, state: State, key: Key = None
) -> Response:
    """What to use, what to search, and why: from an upload, or from facts alone."""
    folders = await _rule_folders(state, who, body.rules)
    if body.facts is not None:
        order = FactsOrder(**{one.name: getattr(body, one.name) for one in fields(FactsOrder)})
        made: MadeAdvice = await state.parts[AdvicePool].advise(order, folders)
        options = {"fixed": body.fixed, "without": body.without, "rules": body.rules}
    else:
        known, options = await _from_upload(state, who, body, folders)
        made = made_advice(known)
    row: dict[str, Any] = {
        "id": new_id("rc"),
        "project": who.project,
        "created": now(),
        "name": made.name,
        "dataset": body.dataset,
        "options": json.dumps(options),
        "facts": made.packed_facts,
        "document": made.packed,
    }

    def write(connection: Connection) -> tuple[int, Mapping[str, Any]]:
        connection.execute(sa.insert(tables.recommendations), row)
        note_action(connection, who, "recommendation.create", row["id"], request.state.request_id)
        return 201, {"id": row["id"]}  # of 40 kB only this is kept under the key

    kept = await once(state, who, key, request, write)
    made_id = str(json.loads(bytes(kept.body))["id"])
    if made_id == row["id"]:
        answer = json_of(shown_head(row))[:-1] + b"," + made.shown
    else:
        first = await row_of(state, tables.recommendations, who, made_id, "recommendation")
        answer = json_of(shown_recommendation(first, opened_document(first["document"])))
    headers = {"Location": f"/v1/recommendations/{made_id}"}
    return Response(answer, 201, headers, media_type="application/json")


async def _from_upload(
    state: ServiceState, who: Principal, body: AdviceRequest, folders: Sequence[Path]
) -> tuple[Known, dict[str, Any]]:
    path = await complete_file(state, who, str(body.dataset))
    test = None if body.test is None else await complete_file(state, who, body.test)
    options = {
        **body.model_dump(exclude={"dataset", "target", "facts", "name"}),
        "kind": _kind_of_upload(path, body),
        "rules": [str(folder) for folder in folders],
        "test": None if test is None else str(test),
    }
    order = {"do": "recommend", "path": str(path), "target": body.target, "options": options}
    found = await state.parts[ReadingPlaces].read(state, order, path.parent.parent)
    known = known_of(found["facts"], found["document"], options["fixed"], found["options"])
    return known, {**found["options"], "fixed": body.fixed, "identity": found["identity"]}


def _kind_of_upload(path: Path, body: AdviceRequest) -> str | None:
    """A table is said to be one: a column of paths in it must never be followed. None: the reader of an
    archive tells, once it is unpacked."""
    if path.suffix in (".npz", ".npy", ".arff", ENDING):
        return body.kind
    if body.kind == IMAGES:
        raise UserError("images are uploaded as an archive (.zip) or as an array (.npz)")
    return body.kind or ("sequence" if body.id_column else "table")


async def known_advice(state: ServiceState, who: Principal, row_id: str) -> Known:
    """The recommendation of that id, remembered or made again; 404 where it is not the project's."""
    row = await row_of(state, tables.recommendations, who, row_id, "recommendation")
    desk: AdviceDesk = state.parts[AdviceDesk]
    known = desk.find(row_id)
    if known is None:
        options = json.loads(row["options"])
        if row["dataset"] is None:
            options["rules"] = [str(path) for path in await _rule_folders(state, who, options["rules"])]
        known = await asyncio.to_thread(
            known_of,
            opened_document(row["facts"]),
            opened_document(row["document"]),
            options["fixed"],
            options,
        )
        desk.keep(row_id, known)
    return known


def shown_recommendation(row: Mapping[str, Any] | RowMapping, document: Mapping[str, Any]) -> dict[str, Any]:
    """A recommendation as it is answered: no path of the server in it."""
    return {**shown_head(row), **document, "data": shown_data(document["data"])}


def shown_head(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    """What is answered of a recommendation beside its document."""
    return {name: row[name] for name in ("id", "created", "name", "dataset")}


# ------------------------------------------------------------------------------------- questions about one


@router.get("/recommendations")
async def list_recommendations(
    who: Reader, state: State, cursor: Cursor = None, limit: Limit = 50
) -> dict[str, Any]:
    """The project's recommendations, newest first, without their documents."""
    names = ("id", "created", "name", "dataset")
    return await listed(
        state, tables.recommendations, who, cursor, limit, lambda row: {name: row[name] for name in names}
    )


@router.get("/recommendations/{recommendation_id}")
async def get_recommendation(request: Request, recommendation_id: str, who: Reader, state: State) -> Response:
    """Configuration, space, findings and provenance, as they were answered first."""
    row = await row_of(state, tables.recommendations, who, recommendation_id, "recommendation")
    return with_etag(request, shown_recommendation(row, opened_document(row["document"])))


@router.get("/recommendations/{recommendation_id}/why/{parameter}")
async def why(
    request: Request, recommendation_id: str, parameter: str, who: Reader, state: State
) -> Response:
    """Why a parameter has its value: the steps with facts and sources, what was rejected, what flips it."""
    from advisor.report.reasons import paragraph

    known = await known_advice(state, who, recommendation_id)
    names = known.recommendation.provenance
    if parameter not in names:
        raise Problem(404, f"there is no parameter of that name{did_you_mean(parameter[:100], names)}")
    entry = (await asyncio.to_thread(known.ledger, parameter))[parameter]
    return with_etag(request, {**to_plain(entry), "text": paragraph(entry)})


@router.post("/recommendations/{recommendation_id}/what-if")
async def what_if(recommendation_id: str, body: WhatIfRequest, who: Reader, state: State) -> dict[str, Any]:
    """What would be recommended if some facts, or some of your own values, were others. Nothing is kept."""
    known = await known_advice(state, who, recommendation_id)
    return await asyncio.to_thread(imagined, known, body)


def imagined(known: Known, body: WhatIfRequest) -> dict[str, Any]:
    """How the recommendation would differ: parameters, findings, and the facts that moved along."""
    wanted = {name: read_fact(name, _written(value), FACTS) for name, value in body.facts.items()}
    facts, along = with_facts(known.facts.values, wanted)
    if (wrong := beyond_any_data(facts)) is not None:
        raise UserError(wrong)
    one = known.recommendation
    own = [finding for finding in one.findings if not finding.rule]
    base = shipped.base_space(one.kind)
    fixed = {**own_values(one), **body.fixed}
    other = advise(facts, known.rules, base, fixed, findings=own, data=one.data)
    return {**difference_of(one, other), "moved_along": along, "configuration": dict(other.configuration)}


def _written(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def difference_of(one: Recommendation, other: Recommendation) -> dict[str, Any]:
    """How two recommendations differ, as data and in sentences."""
    from advisor.report.reasons import difference

    changes, findings = compare_recommendations(one, other), compare_findings(one, other)
    text = difference(changes, findings)
    return {"parameters": [vars(change) for change in changes], "findings": findings, "text": text}


@router.get("/recommendations/{recommendation_id}/diff")
async def diff(
    recommendation_id: str, who: Reader, state: State, other: Annotated[str, Query(max_length=40)]
) -> dict[str, Any]:
    """How another recommendation of the project differs from this one, and by which rules."""
    one = await known_advice(state, who, recommendation_id)
    two = await known_advice(state, who, other)
    if one.recommendation.kind != two.recommendation.kind:
        raise UserError(f"one is for a {one.recommendation.kind}, the other for a {two.recommendation.kind}")
    return difference_of(one.recommendation, two.recommendation)


@router.get("/recommendations/{recommendation_id}/report", response_class=HTMLResponse)
async def report_page(recommendation_id: str, who: Reader, state: State) -> HTMLResponse:
    """The report as one page that needs nothing else."""
    from advisor.report.page import render_html

    known = await known_advice(state, who, recommendation_id)
    shown = _without_paths(known.recommendation)
    page = await asyncio.to_thread(lambda: render_html(shown, known.facts, None, known.ledger()))
    return HTMLResponse(page, headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/recommendations/{recommendation_id}/report.json")
async def report_json(request: Request, recommendation_id: str, who: Reader, state: State) -> Response:
    """The report as data: recommendation, facts and the whole ledger."""
    known = await known_advice(state, who, recommendation_id)
    entries = await asyncio.to_thread(known.ledger)
    shown = _without_paths(known.recommendation).to_dict()
    own = {"recommendation": shown, "facts": known.facts.to_dict(), "ledger": to_plain(entries)}
    return with_etag(request, {"format": FORMAT, "advisor": __version__, **own})


def _without_paths(recommendation: Recommendation) -> Recommendation:
    hidden = ("source", "test", "rules")
    data = {name: ("" if name in hidden else value) for name, value in recommendation.data.items()}
    return replace(recommendation, data=data)


# ------------------------------------------------------------------------------------------------ rule packs


@router.post("/rules", status_code=201)
async def create_rules(request: Request, body: RulePackRequest, who: Admin, state: State) -> JSONResponse:
    """A team's own rules, checked; a pack of the same name becomes its next version."""
    if len(body.files) > MOST_FILES or any(len(text) > MOST_FILE for text in body.files.values()):
        raise Problem(413, f"a rule pack has at most {MOST_FILES} files of {MOST_FILE:,} characters")
    pack, home = new_id("rp"), project_folder(state, who.project) / "rules"
    complaints, count = await asyncio.to_thread(_checked_pack, home / pack, body.files)
    if complaints:
        raise Problem(422, complaints[0], complaints=complaints[:50])

    def write(connection: Connection) -> dict[str, Any]:
        columns = tables.rule_packs.c
        last = sa.select(sa.func.max(columns.version)).where(
            columns.project == who.project, columns.name == body.name
        )
        version = (connection.scalar(last) or 0) + 1
        row = {"id": pack, "project": who.project, "created": now(), "name": body.name, "version": version}
        connection.execute(sa.insert(tables.rule_packs).values(**row, files=json.dumps(body.files)))
        note_action(connection, who, "rules.create", pack, request.state.request_id)
        return {"id": pack, "name": body.name, "version": version, "rules": count}

    return JSONResponse(await state.store.writing(write), 201)


@router.get("/rules")
async def list_rules(who: Reader, state: State, cursor: Cursor = None, limit: Limit = 50) -> dict[str, Any]:
    """The project's rule packs, newest first."""
    names = ("id", "created", "name", "version")
    return await listed(
        state, tables.rule_packs, who, cursor, limit, lambda row: {name: row[name] for name in names}
    )


def _checked_pack(folder: Path, files: Mapping[str, str]) -> tuple[list[str], int]:
    _write_pack(folder, files)
    checked = shipped.check_rule_folders([shipped.folder("rules"), folder])
    if checked.complaints:
        shutil.rmtree(folder, ignore_errors=True)
    own = str(folder)
    count = sum(str(rule.file).startswith(own) for rule in checked.rules)
    return [line.replace(f"{own}/", "") for line in checked.complaints], count


def _write_pack(folder: Path, files: Mapping[str, str]) -> None:
    with whole_or_none(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(folder / name, text)


async def _rule_folders(state: ServiceState, who: Principal, packs: Sequence[str]) -> list[Path]:
    """The folders of rule packs, written again where this machine lacks them."""
    folders = []
    for pack in packs:
        row = await row_of(state, tables.rule_packs, who, pack, "rule pack")
        folder = project_folder(state, who.project) / "rules" / row["id"]
        if not folder.is_dir():
            await asyncio.to_thread(_write_pack, folder, json.loads(row["files"]))
        folders.append(folder)
    return folders
