"""The pages: a file is dropped, its target chosen, the recommendation read, tuned and watched."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from advisor.errors import UserError
from advisor.evaluation.metrics import METRICS
from advisor.report.wording import number
from advisor.runs.folder import RunFolder
from advisor.service.base import tables
from advisor.service.base.access import Admin, Adviser, Reader, Runner, ServiceState, State, needs, row_of
from advisor.service.base.problems import Problem, problem_of
from advisor.service.base.security import SESSION_COOKIE, SESSION_SECONDS, Principal
from advisor.service.base.settings import SCOPES
from advisor.service.jobs import routes as runs
from advisor.service.jobs.queueing import run_folder_of
from advisor.service.routes import accounts, advice, datasets
from advisor.service.routes.datasets import project_folder
from advisor.service.studies import routes as studies
from advisor.workflows.status import study_of

STATIC = Path(__file__).parent / "static"
SHOWN = 20
"""Entries of each list on the first page."""
MOST_COMPARED = 6
CHART = (640, 200)
"""Width and height of a chart, in its own units."""
FILES = {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}


class PageRoute(APIRoute):
    """A route whose errors are pages: to sign in, or with the sentence that says what is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, with our errors."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as problem:
                if problem.status == 401:
                    return RedirectResponse("/login", 303)
                return problem_page(request, problem.status, problem.detail)
            except (UserError, OSError, DBAPIError) as error:
                said = problem_of(error)
                if said is None:
                    raise
                return problem_page(request, said.status, said.detail)
            except (RequestValidationError, ValidationError) as error:
                first = error.errors()[0]
                return problem_page(request, 422, f"{'/'.join(map(str, first['loc']))}: {first['msg']}")
            except HTTPException as error:
                return problem_page(request, error.status_code, str(error.detail))

        return handled


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@cache
def templates() -> Environment:
    """Our templates. Every value is escaped: no text of a user becomes HTML."""
    environment = Environment(
        loader=PackageLoader("advisor.service.pages", "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["number"] = number
    environment.filters["size"] = _size
    return environment


def _size(count: int) -> str:
    """Bytes in words."""
    power = min(3, int(math.log10(max(1, count))) // 3)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"


def page(request: Request, name: str, **values: Any) -> HTMLResponse:
    """A page from its template."""
    who: Principal | None = getattr(request.state, "who", None)
    return HTMLResponse(templates().get_template(name).render(who=who, **values))


def problem_page(request: Request, status: int, detail: str) -> HTMLResponse:
    """What is wrong, as a page."""
    answer = page(request, "problem.html", detail=detail)
    answer.status_code = status
    return answer


def _body(answer: Response) -> Any:
    return json.loads(bytes(answer.body))


# -------------------------------------------------------------------------------------------- signing in


@router.get("/static/{name}")
async def static(name: str) -> FileResponse:
    """The style and the script."""
    if name not in FILES:
        raise Problem(404, "there is no such file")
    return FileResponse(STATIC / name, media_type=FILES[name])


@router.get("/login")
async def login_page(request: Request) -> Response:
    """Where a token is given."""
    return page(request, "login.html", wrong=False)


@router.post("/login")
async def login(request: Request, state: State, token: Annotated[str, Form(max_length=200)]) -> Response:
    """Change a token into a session of this browser."""
    who = await asyncio.to_thread(state.door.of_token, token.strip())
    if who is None:
        answer = page(request, "login.html", wrong=True)
        answer.status_code = 401
        return answer
    return await _with_session(state, who.token)


async def _with_session(state: ServiceState, token: str) -> Response:
    cookie = await asyncio.to_thread(state.door.open_session, token)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        SESSION_COOKIE,
        cookie,
        max_age=int(SESSION_SECONDS),
        httponly=True,
        samesite="strict",
        secure=state.settings.secure,
    )
    return answer


@router.post("/logout")
async def logout(request: Request, who: Reader, state: State) -> Response:
    """End this browser's session."""
    await asyncio.to_thread(state.door.close_session, request.cookies.get(SESSION_COOKIE, ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE)
    return answer


@router.get("/")
async def home(
    request: Request, state: State, once: Annotated[str | None, Query(max_length=100)] = None
) -> Response:
    """Drop a file; and what the project has. ``once``: the one-time token that `advisor serve` prints."""
    if once is not None:
        token = state.door.take_once(once)
        if token is None:
            detail = "this link was used before: sign in with a token (`advisor token create`)"
            return problem_page(request, 403, detail)
        return await _with_session(state, token)
    who = await needs("read")(request, None)
    return page(
        request,
        "home.html",
        datasets=(await datasets.list_datasets(who, state, None, SHOWN))["items"],
        recommendations=(await advice.list_recommendations(who, state, None, SHOWN))["items"],
        runs=(await runs.list_runs(who, state, None, SHOWN))["items"],
        studies=(await studies.list_studies(who, state, None, SHOWN))["items"],
    )


# ------------------------------------------------------------------------------------ data and advice


@router.get("/datasets/{dataset_id}")
async def dataset_page(request: Request, dataset_id: str, who: Reader, state: State) -> Response:
    """The first rows, the guessed types, and what there is to choose."""
    own = await datasets.get_dataset(dataset_id, who, state)
    found = await datasets.preview(dataset_id, who, state)
    metrics = [(name, metric.words) for name, metric in METRICS.items()]
    return page(request, "dataset.html", dataset=own, preview=found, metrics=metrics)


@router.post("/datasets/{dataset_id}/advise")
async def advise_form(
    request: Request,
    dataset_id: str,
    who: Adviser,
    state: State,
    target: Annotated[str, Form(max_length=200)] = "",
    task: Annotated[str, Form(max_length=20)] = "",
    group_column: Annotated[str, Form(max_length=200)] = "",
    time_column: Annotated[str, Form(max_length=200)] = "",
    metric: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Make the recommendation, and go there."""
    given = {"target": target, "task": task, "group_column": group_column, "time_column": time_column}
    given["metric"] = metric
    chosen = {name: value for name, value in given.items() if value}
    body = advice.AdviceRequest.model_validate({"dataset": dataset_id, **chosen})
    made = _body(await advice.create_recommendation(request, body, who, state))
    return RedirectResponse(f"/recommendations/{made['id']}", 303)


@router.get("/recommendations/{recommendation_id}")
async def recommendation_page(
    request: Request, recommendation_id: str, who: Reader, state: State
) -> Response:
    """The configuration with its reasons, the findings, and what would follow from other facts."""
    document = _body(await advice.get_recommendation(request, recommendation_id, who, state))
    known = await advice.known_advice(state, who, recommendation_id)
    facts = {
        name: value for name, value in known.facts.values.items() if isinstance(value, int | float | str)
    }
    return page(request, "recommendation.html", advised=document, facts=facts, searched=_searched(document))


def _searched(document: Mapping[str, Any]) -> dict[str, str]:
    """Parameter -> the range that a search still looks at, in words."""
    found = {}
    for name, source in document["provenance"].items():
        final = source["final"]
        if "low" in final:
            found[name] = f"{number(final['low'])} to {number(final['high'])}"
        elif "choices" in final:
            found[name] = ", ".join(number(choice) for choice in final["choices"])
    return found


@router.post("/recommendations/{recommendation_id}/runs")
async def run_form(
    request: Request,
    recommendation_id: str,
    who: Runner,
    state: State,
    trials: Annotated[int, Form()] = 40,
    minutes: Annotated[float, Form(gt=0)] = 60.0,
    with_trees: Annotated[bool, Form()] = False,
) -> Response:
    """Queue a run, and go there."""
    asked = {"recommendation": recommendation_id, "trials": trials, "with_trees": with_trees}
    body = runs.RunRequest.model_validate({**asked, "seconds": minutes * 60})
    made = _body(await runs.create_run(request, body, who, state))
    return RedirectResponse(f"/runs/{made['id']}", 303)


# ------------------------------------------------------------------------------------- runs and studies


@router.get("/runs/{run_id}")
async def run_page(request: Request, run_id: str, who: Reader, state: State) -> Response:
    """A run: where it stands, live; then its report, its model, and predictions."""
    return page(request, "run.html", **await _run(state, who, run_id))


@router.get("/runs/{run_id}/live")
async def run_live(request: Request, run_id: str, who: Reader, state: State) -> Response:
    """The part of the page that changes while a run goes on."""
    return page(request, "live.html", **await _run(state, who, run_id))


async def _run(state: ServiceState, who: Principal, run_id: str) -> dict[str, Any]:
    found = await runs.watched_run(state, who, run_id)
    folder = run_folder_of(state, await row_of(state, tables.runs, who, run_id, "run"))
    values = await asyncio.to_thread(_values, RunFolder(folder))
    return {"run": found, "chart": chart_of(values), "finished": RunFolder(folder).result.is_file()}


def _values(run: RunFolder) -> list[float]:
    """The values of the trials that have ended, in their order."""
    if not run.has_search():
        return []
    try:
        trials = study_of(run).get_trials(deepcopy=False)
    except (UserError, OSError):
        return []
    return [trial.value for trial in trials if trial.value is not None and math.isfinite(trial.value)]


def chart_of(values: list[float]) -> dict[str, Any] | None:
    """Points of each value, and the line of the best so far, for an SVG; None with fewer than two."""
    if len(values) < 2:
        return None
    low, ranked = min(values), sorted(values)
    high = max(ranked[(9 * len(ranked)) // 10], low + 1e-12)  # a few very bad ones do not flatten the rest
    width, height = CHART

    def place(index: int, value: float) -> str:
        x = 10 + (width - 20) * index / (len(values) - 1)
        y = 10 + (height - 20) * (high - min(value, high)) / (high - low)
        return f"{x:.1f},{y:.1f}"

    best = [min(values[: index + 1]) for index in range(len(values))]
    points = [place(index, value).split(",") for index, value in enumerate(values)]
    return {
        "points": points,
        "line": " ".join(place(index, value) for index, value in enumerate(best)),
        "low": low,
        "high": high,
        "trials": len(values),
    }


@router.post("/runs/{run_id}/stop")
async def stop_form(request: Request, run_id: str, who: Runner, state: State) -> Response:
    """Stop a run."""
    await runs.stop_run(request, run_id, who, state)
    return RedirectResponse(f"/runs/{run_id}", 303)


@router.post("/runs/{run_id}/resume")
async def resume_form(request: Request, run_id: str, who: Runner, state: State) -> Response:
    """Go on with a run."""
    await runs.resume_run(request, run_id, who, state)
    return RedirectResponse(f"/runs/{run_id}", 303)


@router.post("/runs/{run_id}/predict")
async def predict_form(run_id: str, who: Runner, state: State, rows: UploadFile) -> Response:
    """Predictions for an uploaded CSV file, as a CSV file."""
    content = await rows.read()
    body = await runs.predicted(state, who, run_id, content, is_csv=True)
    body.headers["Content-Disposition"] = 'attachment; filename="predictions.csv"'
    return body


@router.get("/studies/{study_id}")
async def study_page(request: Request, study_id: str, who: Reader, state: State) -> Response:
    """A study: where it stands, its best, its latest trials."""
    standing = _body(await studies.get_study(request, study_id, who, state))
    host = await studies.open_study(state, who, study_id)
    values = [trial.value for trial in host.study.trials if trial.value is not None]
    chart = chart_of([value for value in values if math.isfinite(value)])
    return page(request, "study.html", study=standing, chart=chart)


@router.get("/compare")
async def compare_page(
    request: Request,
    who: Reader,
    state: State,
    run: Annotated[list[str] | None, Query(max_length=MOST_COMPARED)] = None,
    study: Annotated[list[str] | None, Query(max_length=MOST_COMPARED)] = None,
) -> Response:
    """Runs and studies side by side: state, trials, the best and its configuration."""
    columns = []
    for run_id in run or []:
        found = await runs.watched_run(state, who, run_id)
        search = found["search"] or {}
        best = search.get("best") or {}
        columns.append(
            {
                "link": f"/runs/{run_id}",
                "name": run_id,
                "state": found["state"],
                "done": search.get("done", 0),
                "trials": found["trials"],
                "value": best.get("value"),
                "configuration": await asyncio.to_thread(_best_configuration, state, who, found),
            }
        )
    for study_id in study or []:
        standing = _body(await studies.get_study(request, study_id, who, state))
        best = standing["best"] or {}
        own = {name: standing[name] for name in ("name", "state", "done", "trials")}
        shown = {"value": best.get("value"), "configuration": best.get("configuration", {})}
        columns.append({"link": f"/studies/{study_id}", **own, **shown})
    names = sorted({name for column in columns for name in column["configuration"]})
    return page(request, "compare.html", columns=columns, names=names)


def _best_configuration(state: ServiceState, who: Principal, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a run's best trial, as far as it was searched."""
    folder = project_folder(state, who.project) / "runs" / str(found["id"])
    best = (found["search"] or {}).get("best")
    if best is None:
        return {}
    trials = study_of(RunFolder(folder)).get_trials(deepcopy=False)
    return dict(trials[best["number"]].params)


# ------------------------------------------------------------------------------------------------ tokens


@router.get("/tokens")
async def tokens_page(request: Request, who: Admin, state: State) -> Response:
    """The project's tokens."""
    items = (await accounts.list_tokens(who, state, None, 200))["items"]
    return page(request, "tokens.html", tokens=items, scopes=SCOPES, made=None)


@router.post("/tokens")
async def token_form(
    request: Request,
    who: Admin,
    state: State,
    name: Annotated[str, Form(max_length=100)],
    scope: Annotated[str, Form(max_length=10)],
) -> Response:
    """Make a token and show it, once."""
    body = accounts.TokenRequest.model_validate({"name": name, "scope": scope})
    made = _body(await accounts.create_token(request, body, who, state))
    items = (await accounts.list_tokens(who, state, None, 200))["items"]
    return page(request, "tokens.html", tokens=items, scopes=SCOPES, made=made["secret"])


@router.post("/tokens/{token_id}/revoke")
async def revoke_form(request: Request, token_id: str, who: Admin, state: State) -> Response:
    """Make a token worthless."""
    await accounts.delete_token(request, token_id, who, state)
    return RedirectResponse("/tokens", 303)
