"""What the tests of the service share: an application in this process, and a server process of its own."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from fastapi.testclient import TestClient

from advisor.service.app import guarded, make_app
from advisor.service.base.security import make_project, make_token
from advisor.service.base.settings import SCOPES, ServiceLimits, ServiceSettings
from advisor.service.base.store import Store

ROWS = "a,b,y\n" + "\n".join(
    f"{i % 7},{(i * 5) % 11},{'yes' if (i % 7) + (i * 5) % 11 > 8 else 'no'}" for i in range(80)
)


class Client(TestClient):
    """headers: of the token that is used where a request brings none."""

    def __init__(self, app, tokens):
        super().__init__(guarded(app), base_url="http://127.0.0.1:8571", raise_server_exceptions=False)
        self.tokens, self.app_itself = tokens, app
        self.headers["Authorization"] = f"Bearer {tokens['admin']}"

    def as_(self, name):
        return {"Authorization": f"Bearer {self.tokens[name]}"}

    def upload(self, content=None, name="d.csv"):
        content = ROWS.encode() if content is None else content
        made = self.post("/v1/datasets", json={"name": name, "size": len(content)}).json()
        answer = self.patch(f"/v1/datasets/{made['id']}/content", content=content)
        assert answer.json()["complete"], answer.text
        return made["id"]


def make_client(folder, again=None, **limits):
    """again: the tokens that the database has already."""
    limits = ServiceLimits(**limits)
    app = make_app(ServiceSettings(folder, executor="in-process", advice_processes=0, limits=limits))
    if again is not None:
        return Client(app, again)

    def write(connection):
        project, other = make_project(connection, "default"), make_project(connection, "other")
        tokens = {scope: make_token(connection, project, scope, scope).secret for scope in SCOPES}
        return {**tokens, "other": make_token(connection, other, "other", "admin").secret}

    return Client(app, app.state.service.store.write(write))


@dataclass
class Answer:
    status: int
    headers: dict
    content: bytes

    @property
    def json(self):
        return json.loads(self.content)


@dataclass
class Server:
    url: str
    data: str
    token: str
    process: subprocess.Popen
    once: str
    log: list = field(default_factory=list)

    def ask(self, method, path, body=None, token=None, headers=(), raw=None):
        """An answer, whatever its status."""
        own = {"Authorization": f"Bearer {token or self.token}"} if token != "" else {}
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        own |= {"Content-Type": "application/json"} if body is not None else {}
        request = urllib.request.Request(self.url + path, content, own | dict(headers), method=method)
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=60) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    def upload(self, name, content):
        made = self.ask("POST", "/v1/datasets", {"name": name, "size": len(content)})
        assert made.status == 201, made.content
        path = f"/v1/datasets/{made.json['id']}/content"
        assert self.ask("PATCH", path, raw=content).json["complete"]
        return made.json["id"]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def advisor(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "advisor", *words], capture_output=True, text=True, check=True, **options
    )


def new_token(data, scope):
    """As `advisor token create` makes it, without a process that takes a second to begin."""
    store = Store(ServiceSettings(Path(data)).database_url)
    try:
        return store.write(lambda one: make_token(one, make_project(one, "default"), scope, scope).secret)
    finally:
        store.close()


@contextlib.contextmanager
def serving(data, *options, scope="admin"):
    """A server on a free port, with a token of the default project."""
    command = [sys.executable, "-m", "advisor", "serve", "--data", str(data), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=str(data))
    with Path(data, "log").open("a") as log:
        yield from _served(process, data, scope, log)


def _served(process, data, scope, log):
    try:
        first, second = process.stderr.readline(), process.stderr.readline()
        url = re.search(r"http://\S+", first)
        assert url, first + second + process.stderr.read()
        drain(process, log)
        yield Server(url[0], str(data), new_token(data, scope), process, second.split()[-1])
    finally:
        process.terminate()
        process.wait(15)


def drain(process, log):
    def copy():
        for line in process.stderr:
            log.write(line)
            log.flush()

    threading.Thread(target=copy, daemon=True).start()
