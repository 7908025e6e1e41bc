"""Who may ask what: tokens and their scopes, projects that don't see each other, hosts and origins, limits."""

import asyncio
import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import serving

from advisor.errors import UserError
from advisor.service.base.security import Buckets, Doorkeeper, make_project, make_token
from advisor.service.base.settings import ServiceSettings
from advisor.service.base.store import Store
from advisor.service.server import listening


def test_every_route_but_health_needs_a_token(client):
    open_routes = {"/healthz"}
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            url = re.sub(r"\{(\w+)\}", "1", path)
            answer = client.request(method, url, headers={"Authorization": "Bearer adv_no_token"})
            if path in open_routes:
                assert answer.status_code == 200
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"] == "Bearer"


def test_the_documentation_has_every_route(client):
    text = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            shown = re.sub(r"\{\w+_id\}", "{id}", path)
            row = re.search(rf"^\| {method.upper()} {re.escape(shown)} \|.*\| (\w+) \|$", text, re.MULTILINE)
            assert row, f"docs/service.md lacks {method.upper()} {shown}, or the test that covers it"
            assert _is_called(method, path, row[1]), f"{row[1]} has no {method.upper()} {shown}"


def _is_called(method, path, name):
    """Whether a file of tests calls a route: by the method, with the last word of its path."""
    code = Path(__file__).with_name(f"{name}.py").read_text()
    word = [part for part in path.split("/") if part and "{" not in part][-1]
    calls = rf"\.{method}\(|['\"]{method.upper()}['\"]"
    return word in code and re.search(calls, code)


def test_errors_are_problem_documents_with_the_request_id(client):
    answer = client.get("/v1/no-such-thing", headers={"X-Request-Id": "my-request-1"})
    body = answer.json()
    assert (answer.status_code, body["status"], body["title"]) == (404, 404, "not found")
    assert body["request_id"] == answer.headers["x-request-id"] == "my-request-1"
    refused = client.post("/v1/recommendations", json={"facts": {}, "secret": "hunter2"})
    assert refused.status_code == 422 and "hunter2" not in refused.text
    assert refused.json()["errors"][0]["pointer"] == "/body/secret"


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        ("read", "GET", "/v1/recommendations", 200),
        ("read", "POST", "/v1/recommendations", 403),
        ("read", "GET", "/v1/tokens", 403),
        ("run", "POST", "/v1/tokens", 403),
        ("admin", "GET", "/v1/audit", 200),
        ("admin", "GET", "/metrics", 200),
        ("other", "GET", "/metrics", 403),
    ],
)
def test_a_scope_is_what_a_token_may(client, scope, method, path, status):
    assert client.request(method, path, headers=client.as_(scope)).status_code == status


def test_what_is_another_projects_does_not_exist(client):
    dataset = client.upload()
    for method, path in [
        ("GET", f"/v1/datasets/{dataset}"),
        ("DELETE", f"/v1/datasets/{dataset}"),
        ("POST", f"/v1/datasets/{dataset}/preview"),
    ]:
        there = client.request(method, path, headers=client.as_("other"))
        nowhere = client.request(method, path.replace(dataset, "ds_0"), headers=client.as_("other"))
        assert there.status_code == nowhere.status_code == 404
    assert client.get("/v1/datasets", headers=client.as_("other")).json() == {"items": [], "cursor": None}
    wanted = {"dataset": dataset, "target": "y"}
    assert client.post("/v1/recommendations", json=wanted, headers=client.as_("other")).status_code == 404


def test_a_token_is_shown_once_listed_and_revoked(client):
    made = client.post("/v1/tokens", json={"name": "ci", "scope": "read"}).json()
    own = {"Authorization": f"Bearer {made['secret']}"}
    assert client.get("/v1/me", headers=own).json()["scope"] == "read"
    listed = client.get("/v1/tokens").text
    assert made["id"] in listed and made["secret"] not in listed and "digest" not in listed
    assert client.delete(f"/v1/tokens/{made['id']}").status_code == 204
    assert client.get("/v1/me", headers=own).status_code == 401
    assert client.delete(f"/v1/tokens/{made['id']}").status_code == 404
    assert {"token.create", "token.revoke"} <= {
        one["action"] for one in client.get("/v1/audit").json()["items"]
    }


def test_only_digests_of_tokens_are_kept(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'x.db'}")
    made = store.write(lambda c: make_token(c, make_project(c, "p"), "n", "read"))
    door = Doorkeeper(store)
    assert door.of_token(made.secret).scope == "read"
    for wrong in ("", "adv", "adv__", made.secret[:-1], made.secret + "x", "x" * 10_000, "adv_%_x"):
        assert door.of_token(wrong) is None
    gone = store.write(lambda c: make_token(c, make_project(c, "p"), "n", "read", days=-1))
    assert door.of_token(gone.secret) is None
    with pytest.raises(UserError, match=r"unknown scope 'raed' .did you mean 'read'"):
        store.write(lambda c: make_token(c, "p", "n", "raed"))
    store.close()
    assert made.secret.rpartition("_")[2].encode() not in (tmp_path / "x.db").read_bytes()


def test_a_write_that_fails_takes_no_other_with_it(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'x.db'}")
    good = [store.submit(lambda c, i=i: make_project(c, f"p{i}")) for i in range(20)]
    bad = store.submit(lambda c: make_project(c, "!"))
    assert len({one.result() for one in good}) == 20
    with pytest.raises(UserError, match="a project's name"):
        bad.result()
    store.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8571"}, 421),
        ({"Host": "localhost:8571"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:8571"}, 200),
    ],
)
def test_a_page_of_another_site_cannot_ask(client, headers, status):
    dataset = client.upload()
    answer = client.post(f"/v1/datasets/{dataset}/preview" if status != 200 else "/v1/x", headers=headers)
    assert answer.status_code == (status if status != 200 else 404)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_past_the_limits_the_answer_says_when_to_ask_again(own_client):
    client = own_client(requests_a_minute=3)
    assert [client.get("/v1/me").status_code for _ in range(3)] == [200] * 3
    refused = client.get("/v1/me")
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert client.get("/v1/me", headers=client.as_("read")).status_code == 200  # each token has its own


def test_a_bucket_fills_up_evenly():
    at = [0.0]
    buckets = Buckets(60, lambda: at[0])
    assert [buckets.take("t") for _ in range(60)] == [0.0] * 60
    assert buckets.take("t") == pytest.approx(1.0)
    at[0] = 2.5
    assert [buckets.take("t") for _ in range(3)] == [0.0, 0.0, pytest.approx(0.5)]


def test_too_large_and_too_many(own_client):
    client = own_client(body_bytes=1000, requests_at_once=0)
    busy = client.get("/v1/me")
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert client.get("/healthz").status_code == 200
    client = own_client(body_bytes=1000, upload_bytes=2000, project_bytes=3000)
    assert client.post("/v1/tokens", content=b"x" * 1001).status_code == 413
    assert client.post("/v1/tokens", content=(b"x" * 600 for _ in range(2))).status_code == 413
    assert client.post("/v1/datasets", json={"name": "d.csv", "size": 2001}).status_code == 413
    assert client.post("/v1/datasets", json={"name": "d.csv", "size": 2000}).status_code == 201
    refused = client.post("/v1/datasets", json={"name": "d.csv", "size": 2000})
    assert refused.status_code == 413 and "delete some" in refused.json()["detail"]


def test_an_answer_is_sent_at_once(tmp_path):
    """With Nagle's algorithm a body waits for the acknowledgement of its head, which receivers hold back for 40 ms."""

    async def option_of_a_connection() -> int:
        taken = asyncio.get_running_loop().create_future()
        with listening(ServiceSettings(tmp_path, port=0)) as listener:
            server = await asyncio.start_server(lambda _, writer: taken.set_result(writer), sock=listener)
            async with server:
                _, ours = await asyncio.open_connection(*listener.getsockname())
                theirs = await taken
                option = theirs.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                ours.close()
                theirs.close()
        return option

    assert asyncio.run(option_of_a_connection())


@pytest.mark.slow
def test_a_server_process_from_start_to_stop(tmp_path):
    with serving.serving(tmp_path, scope="advise") as server:
        assert server.ask("GET", "/healthz", token="").json == {"status": "ok"}
        assert server.ask("GET", "/v1/me").json["scope"] == "advise"
        (tmp_path / "d.csv").write_text(serving.ROWS)
        words = ("recommend", str(tmp_path / "d.csv"), "--target", "y", "--server", server.url)
        told = serving.advisor(*words, env={**os.environ, "ADVISOR_TOKEN": server.token}, cwd=tmp_path).stdout
        assert f"report: {server.url}/v1/recommendations/rc_" in told and not (tmp_path / "runs").exists()
        listed = serving.advisor("token", "list", "--data", str(tmp_path)).stdout
        token = re.search(r"(\S+)  default  advise  valid", listed)[1]
        serving.advisor("token", "revoke", "--data", str(tmp_path), token)
        time.sleep(2.1)  # REMEMBERED_SECONDS: so long a token that another process revoked is taken
        assert server.ask("GET", "/v1/me").status == 401
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line["route"] == "/v1/me"] == [200, 401]
    assert server.token not in (tmp_path / "log").read_text()
