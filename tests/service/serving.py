"""A server process of its own for the tests of the service, and requests to it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field


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
    return subprocess.run([sys.executable, "-m", "advisor", *words], capture_output=True, text=True, check=True, **options)


def make_token(data, *words):
    return advisor("token", "create", "--data", str(data), *words).stdout.strip()


@contextlib.contextmanager
def serving(data, *options, scope="admin"):
    """A server on a free port, with a token of the default project."""
    command = [sys.executable, "-m", "advisor", "serve", "--data", str(data), "--port", "0", *options]
    log = open(os.path.join(str(data), "log"), "a+")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=str(data))
    try:
        first, second = process.stderr.readline(), process.stderr.readline()
        url = re.search(r"http://\S+", first)
        assert url, first + second + process.stderr.read()
        drain(process, log)
        yield Server(url[0], str(data), make_token(data, "--scope", scope), process, second.split()[-1])
    finally:
        process.terminate()
        process.wait(15)
        log.close()


def drain(process, log):
    import threading

    def copy():
        for line in process.stderr:
            log.write(line)
            log.flush()

    threading.Thread(target=copy, daemon=True).start()
