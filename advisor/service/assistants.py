"""Tools for coding assistants (MCP): the verbs of the service, each a short question with a small answer.

The tools call the service's own API with the token of whoever asks: they may what the token may. Over stdio,
where the assistant works for the user whose files these are, a table is measured here and a network of
the user's own is checked, if they allowed their code.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import httpx2
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from advisor import __version__
from advisor.client import RemoteService, ServiceError
from advisor.errors import UserError
from advisor.service.base.access import who_asks
from advisor.service.base.problems import MEDIA_TYPE, problem_bytes

ApiCall = Callable[[Context, str, str, Any], Awaitable[Any]]
"""(context, method, path, body) -> the JSON of the answer. ToolError where it is refused."""
PATH = "/mcp"
INSTRUCTIONS = (
    "Advice for tuning neural networks, with reasons, and trials to run. Start with recommend; ask why "
    "before you change a value; then start_study, and ask, report, tell until ask says that it is finished."
)
FIRST = (
    "network",
    "hidden_layers",
    "width",
    "learning_rate",
    "weight_decay",
    "batch_size",
    "epochs",
    "validation",
)
"""Choices that a small answer shows; `why` and `report_summary` have the rest."""
MOST_FINDINGS, MOST_TEXT = 8, 3_000
Id = Annotated[str, Field(max_length=60)]


def api_server(call: ApiCall) -> MCPServer:
    """The tools that need nothing but the API."""
    server = MCPServer("tuning-advisor", instructions=INSTRUCTIONS, version=__version__)

    @server.tool()
    async def why(context: Context, recommendation: Id, parameter: str) -> str:
        """Why a parameter has its value: rules, facts, sources, and what would flip it."""
        path = f"/v1/recommendations/{_part(recommendation)}/why/{_part(parameter)}"
        return str((await call(context, "GET", path, None))["text"])[:MOST_TEXT]

    @server.tool()
    async def what_if(
        context: Context,
        recommendation: Id,
        facts: dict[str, str | int | float | bool] | None = None,
        fixed: dict[str, str | int | float | bool] | None = None,
    ) -> str:
        """What would be recommended if facts (rows, gpu.memory_gb, ...) or values of your own were others."""
        body = {"facts": facts or {}, "fixed": fixed or {}}
        path = f"/v1/recommendations/{_part(recommendation)}/what-if"
        return str((await call(context, "POST", path, body))["text"])[:MOST_TEXT]

    @server.tool()
    async def report_summary(context: Context, recommendation: Id) -> dict[str, Any]:
        """The whole configuration with its search ranges, and all findings."""
        found = await call(context, "GET", f"/v1/recommendations/{_part(recommendation)}", None)
        ranges = {name: _range(source["final"]) for name, source in found["provenance"].items()}
        searched = {name: words for name, words in ranges.items() if words}
        messages = [f"{one['severity']}: {one['message']}" for one in found["findings"]]
        return {"configuration": found["configuration"], "searched": searched, "findings": messages}

    @server.tool()
    async def start_study(
        context: Context,
        recommendation: Id | None = None,
        space: str | dict[str, Any] | None = None,
        trials: int = 40,
        direction: str = "minimize",
    ) -> dict[str, Any]:
        """A study to ask for trials: around a recommendation, in a space (YAML or Optuna's JSON), or both."""
        body = {"recommendation": recommendation, "space": space, "trials": trials, "direction": direction}
        made = await call(context, "POST", "/v1/studies", body)
        return {"study": made["id"], "trials": made["trials"]}

    @server.tool()
    async def ask(context: Context, study: Id) -> dict[str, Any]:
        """The next trial to run: its number and configuration; null when the budget is used up."""
        answer = await call(context, "POST", f"/v1/studies/{_part(study)}/trials", {"worker": "assistant"})
        given = answer["trial"]
        if given is None:
            return {"trial": None, "state": answer["state"]}
        return {name: given[name] for name in ("number", "attempt", "configuration", "lease_seconds")}

    @server.tool()
    async def report(context: Context, study: Id, number: int, epoch: int, loss: float) -> dict[str, Any]:
        """Tell a trial's loss after an epoch; the answer says whether to stop it."""
        path = f"/v1/studies/{_part(study)}/trials/{number}/reports"
        answer: dict[str, Any] = await call(context, "POST", path, {"epoch": epoch, "loss": loss})
        return answer

    @server.tool()
    async def tell(
        context: Context, study: Id, number: int, value: float | None = None, error: str = ""
    ) -> dict[str, Any]:
        """Tell how a trial ended: its value, or the error it failed with."""
        verb, body = ("fail", {"error": error}) if error else ("complete", {"value": value})
        path = f"/v1/studies/{_part(study)}/trials/{number}/{verb}"
        answer: dict[str, Any] = await call(context, "POST", path, body)
        return answer

    @server.tool()
    async def status(context: Context, study: Id | None = None, run: Id | None = None) -> dict[str, Any]:
        """Where a study or a tuning run stands, and the best so far."""
        if (study is None) == (run is None):
            raise ToolError("give a study or a run")
        if run is not None:
            found = await call(context, "GET", f"/v1/runs/{_part(run)}", None)
            search = found["search"] or {}
            shown = {name: search.get(name) for name in ("done", "best", "seconds_left", "winner")}
            return {"state": found["state"], "detail": found["detail"], "trials": found["trials"], **shown}
        found = await call(context, "GET", f"/v1/studies/{_part(str(study))}", None)
        best = found["best"] and {name: found["best"][name] for name in ("number", "value", "configuration")}
        counts = {name: found[name] for name in ("state", "done", "trials")}
        return {**counts, "running": len(found["running"]), "best": best}

    return server


def _part(text: str) -> str:
    """Part of a path: what is none of ours stays one part."""
    from urllib.parse import quote

    return quote(text, safe="")


def _range(final: Mapping[str, Any]) -> str:
    if "low" in final:
        return f"{final['low']:.4g} to {final['high']:.4g}"
    return ", ".join(map(str, final["choices"])) if "choices" in final else ""


def small_advice(found: Mapping[str, Any]) -> dict[str, Any]:
    """A recommendation in a few lines: its id, the first choices, the gravest findings."""
    configuration = found["configuration"]
    chosen = {name: configuration[name] for name in FIRST if name in configuration}
    findings = [f"{one['severity']}: {one['message']}" for one in found["findings"]]
    return {"recommendation": found["id"], "configuration": chosen, "findings": findings[:MOST_FINDINGS]}


# --------------------------------------------------------------------------------------- over HTTP, at /mcp


class HttpTools:
    """The tools at /mcp of the service itself, for whoever has a token."""

    def __init__(self, app: Callable[[], ASGIApp], host: str) -> None:
        self._app, self._host = app, host
        self.server = api_server(self._call)

        @self.server.tool()
        async def recommend(
            context: Context, facts: dict[str, Any] | None = None, dataset: Id | None = None, target: str = ""
        ) -> dict[str, Any]:
            """What to use, what to search and why: for facts.json, or for an uploaded data set and its
            target."""
            given = {"facts": facts} if facts is not None else {"dataset": dataset, "target": target}
            return small_advice(await self._call(context, "POST", "/v1/recommendations", given))

        off = TransportSecuritySettings(
            enable_dns_rebinding_protection=False
        )  # the gateway has looked at both
        own = self.server.streamable_http_app(
            streamable_http_path=PATH, json_response=True, stateless_http=True, transport_security=off
        )
        self._tools: ASGIApp = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, after a look at the token: what tools there are is nobody else's to know."""
        if await who_asks(Request(scope)) is None:
            identity = scope.get("state", {}).get("request_id", "")
            body = problem_bytes(401, "send a valid token: Authorization: Bearer TOKEN", identity)
            headers = [(b"content-type", MEDIA_TYPE.encode()), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._tools({**scope, "path": PATH, "root_path": ""}, receive, send)

    async def _call(self, context: Context, method: str, path: str, body: Any) -> Any:
        request = context.request_context.request
        words = request.headers.get("authorization", "") if isinstance(request, Request) else ""
        transport = httpx2.ASGITransport(app=self._app())
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{self._host}") as client:
            answer = await client.request(
                method, path, headers={"Authorization": words}, json=body if body is not None else None
            )
        document = answer.json() if answer.content else {}
        if answer.status_code >= 400:
            raise ToolError(str(document.get("detail", answer.status_code)))
        return document


# ------------------------------------------------------------------------------------------- over stdio


def serve_stdio(service: RemoteService, *, allow_code: bool) -> None:
    """Serve the tools on stdin and stdout, with a service behind them.

    allow_code: whether check_module may import a module of the user's own.
    """

    async def call(context: Context, method: str, path: str, body: Any) -> Any:
        try:
            return await asyncio.to_thread(service.request, method, path, body)
        except ServiceError as error:
            raise ToolError(str(error.document.get("detail", error))) from None
        except UserError as error:
            raise ToolError(str(error)) from None

    server = api_server(call)

    @server.tool()
    async def recommend(context: Context, data: str, target: str) -> dict[str, Any]:
        """What to use, what to search and why, for a table of this machine: measured here, no row leaves
        it."""
        try:
            found = await asyncio.to_thread(_measured_here, service, data, target)
        except UserError as error:
            raise ToolError(str(error)) from None
        return small_advice(found)

    if allow_code:

        @server.tool()
        async def check_module(context: Context, factory: str, input_shape: list[int]) -> list[str]:
            """What is wrong with a network of yours before it is trained: PACKAGE.MODULE:FACTORY and a
            row's shape."""
            return await asyncio.to_thread(_checked, factory, input_shape)

    server.run("stdio")


def _measured_here(service: RemoteService, data: str, target: str) -> Mapping[str, Any]:
    from advisor.workflows.recommend import get_advice

    advice = get_advice(data, target)
    identity = advice.identity
    head = {"name": identity.name, "target": identity.target, "fingerprint": identity.fingerprint}
    return service.recommend({"data": head, **json.loads(json.dumps(advice.facts.to_dict(), default=str))})


def _checked(factory: str, input_shape: list[int]) -> list[str]:
    """In a process of its own, as the command does it: a user's module may do what it likes to its
    process."""
    import subprocess
    import sys

    shape = ",".join(str(int(side)) for side in input_shape)
    words = ["check", "--module", factory, "--input-shape", shape, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "advisor", *words], capture_output=True, text=True, check=False, timeout=300
    )
    try:
        findings = json.loads(done.stdout)["findings"]
    except (ValueError, KeyError, TypeError):
        raise ToolError(done.stderr.strip()[-500:] or "the check gave no result") from None
    return [f"{one['severity']}: {one['message']}" for one in findings] or ["the checks found no problem"]
