"""What stands before every route: hosts and origins, sizes, load, headers, logs, numbers."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from advisor.service.base.problems import MEDIA_TYPE, problem_bytes
from advisor.service.base.settings import LOOPBACK, ServiceSettings

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of every answer that does not bring a policy of its own: nothing from elsewhere, no script but ours."""
HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with "no-referrer" a browser hides from us that a form is ours
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REQUEST_ID = re.compile(r"[\w.-]{8,64}")
SAFE = ("GET", "HEAD", "OPTIONS")
LONG_PATHS = re.compile(r"/v1/datasets/[^/]+/content|(?:/v1)?/runs/[^/]+/predict")
"""Bodies of these are data: they have a bound of their own."""
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LOG = logging.getLogger("advisor.service")


class Numbers:
    """What /metrics tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("advisor_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "advisor_request_seconds",
            "Until the answer began.",
            ("route",),
            registry=self.registry,
            buckets=BUCKETS,
        )
        self.open = Gauge("advisor_requests_open", "Requests under way.", registry=self.registry)
        self.asks = Counter(
            "advisor_asks", "Trials given out, by how they were found.", ("source",), registry=self.registry
        )


class Gateway:
    """The middleware. Refuses what no route should see, and says of every request how it went.

    Nothing of a query string, a header or a body is logged: a token may stand there.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, numbers: Numbers) -> None:
        self._app, self._settings, self._numbers = app, settings, numbers
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if REQUEST_ID.fullmatch(asked) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        told = _Told(send, request_id)
        refusal = self._refusal(scope, headers)
        begun = time.perf_counter()
        if refusal is not None:
            await told.refuse(*refusal)
        else:
            self._open += 1
            self._numbers.open.inc()
            try:
                await self._app(scope, _Bounded(receive, self._most(scope)), told)
            finally:
                self._open -= 1
                self._numbers.open.dec()
        self._note(scope, request_id, told.status, (told.at or time.perf_counter()) - begun)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, str | None] | None:
        """Status, sentence and Retry-After of what is refused before any route sees it."""
        host = headers.get("host", "").lower()
        if not self._is_ours(host, scope):
            return (
                421,
                "this Host name is not allowed; the operator can allow it with --allow-host",
                None,
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host
        if scope["method"] not in SAFE and (foreign or site in ("cross-site", "same-site")):
            return 403, "a page of another site may not send requests here", None
        if scope["path"] != "/healthz" and self._open >= self._settings.limits.requests_at_once:
            return 503, "too many requests are in progress: send this one again", "1"
        length = headers.get("content-length", "0")
        if not length.isdigit():
            return 400, "Content-Length is not a number", None
        if int(length) > self._most(scope):
            return 413, f"the body is larger than {self._most(scope):,} bytes", None
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        port = (scope.get("server") or (None, None))[1]
        allowed = {*LOOPBACK, self._settings.host, *self._settings.hosts}
        return host in allowed or host in {f"{name}:{port}" for name in allowed}

    def _most(self, scope: Scope) -> int:
        limits = self._settings.limits
        return limits.upload_bytes if LONG_PATHS.fullmatch(scope["path"]) else limits.body_bytes

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._numbers.requests.labels(scope["method"] if route != "none" else "-", route, status).inc()
        self._numbers.seconds.labels(route).observe(seconds)
        who = scope.get("state", {}).get("who")
        told = {"request": request_id, "method": scope["method"], "route": route, "status": status}
        LOG.info(
            "request", extra={**told, "ms": round(seconds * 1e3, 2), "token": getattr(who, "token", None)}
        )


class _TooLarge(HTTPException):
    """A body without a length, or with a wrong one, went past its bound."""

    def __init__(self) -> None:
        super().__init__(413, "the body is larger than is allowed")


class _Bounded:
    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _TooLarge
        return message


class _Told:
    """Sends, with our headers, and remembers how it went."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._id = send, request_id
        self.status, self.at = 0, 0.0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.at = message["status"], time.perf_counter()
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def refuse(self, status: int, detail: str, again: str | None) -> None:
        body = problem_bytes(status, detail, self._id)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        headers += [(b"retry-after", again.encode())] if again else []
        headers += [(b"connection", b"close")] if status == 413 else []
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class JsonLines(logging.Formatter):
    """A log record as one JSON line: when, how grave, what, and the fields that came with it."""

    _PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {"at": round(record.created, 3), "level": record.levelname.lower()}
        fields["what"] = record.getMessage()
        fields |= {name: value for name, value in vars(record).items() if name not in self._PLAIN}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def log_as_json(level: int = logging.INFO) -> None:
    """Make the service's log JSON lines on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    LOG.handlers[:] = [handler]
    LOG.setLevel(level)
    LOG.propagate = False
