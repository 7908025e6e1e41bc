"""Hostile requests and files: each is answered 4xx with one sentence; nothing is opened, nothing hangs, nothing is 500."""

import gzip
import io
import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from advisor.errors import UserError
from advisor.service.routes.archive import source_in

DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE_TEXTS = [
    "",
    "\0",
    "\ud800",
    "a" * 300,
    "../../etc/passwd",
    "' OR 1=1 --",
    "{{7*7}}",
    "\r\nX-Evil: 1",
    "%00",
]
PLACES = [
    "../",
    "file:///etc/passwd",
    "http://169.254.169.254/latest/",
    "openml:31",
    "sklearn:iris",
    "s3://b/k",
    "/etc",
]
ROUTES = [
    ("POST", "/v1/recommendations"),
    ("POST", "/v1/datasets"),
    ("POST", "/v1/studies"),
    ("POST", "/v1/runs"),
    ("POST", "/v1/rules"),
    ("POST", "/v1/tokens"),
]
BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"{}" * 3,
    b'{"facts": NaN}',
    b'{"facts": {"values": {"rows": 1e999}}}',
    b'{"facts": {"values": {"rows": ' + b"9" * 5_000 + b"}}}",
    b'{"name": "\\ud800", "size": 1}',
    b'{"name": "x\\u0000.csv", "size": 1}',
    b'{"name": "x.csv", "size": -1}',
    b'{"name": "x.csv", "size": 1e30}',
    b'{"name": "x.exe", "size": 1}',
    b'{"name": "x.csv.pkl", "size": 1}',
    b'{"space": "!!python/object/apply:os.system [id]", "trials": 1}',
    b'{"space": "a: &a [*a]", "trials": 1}',
    b'{"space": "format: 1\\nparameters: {x: {type: float, low: .nan, high: 1, default: 0}}", "trials": 1}',
    b'{"space": {"x": {"name": "__import__", "attributes": {}}}, "trials": 1}',
    b'{"space": {}, "trials": 1}',
    b'{"name": "r", "files": {"../x.yaml": "format: 1"}}',
    b'{"name": "r", "files": {"x.yaml": "rules: [{when: \\"__import__(1)\\"}]"}}',
    b'{"name": "t", "scope": "root"}',
    b'{"recommendation": {"$ne": null}}',
    b"\xff\xfe\x00",
    json.dumps({"facts": {str(i): i for i in range(300)}}).encode(),
    DEEP.encode(),
]


def check(answer):
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    assert answer.headers["content-type"] == "application/problem+json", answer.headers
    detail = answer.json()["detail"]
    assert detail and "\n" not in detail and len(detail) < 1_000 and "Traceback" not in answer.text
    return detail


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_hostile_bodies(client, method, path):
    for body in BODIES:
        for media in ("application/json", "text/plain"):
            check(client.request(method, path, content=body, headers={"Content-Type": media}))


@pytest.mark.parametrize("field", ["dataset", "test", "target"])
def test_nothing_that_is_named_is_opened(client, field):
    good = {"dataset": client.upload(), "target": "y"}
    for place in PLACES if field != "target" else PLACES[:1]:  # it is looked for in the file
        check(client.post("/v1/recommendations", json={**good, field: place}))
    for body in ({"dataset": good["dataset"], "source": place}, {"url": place, "target": "y"}):
        check(client.post("/v1/recommendations", json=body))


def test_a_table_may_name_no_file_of_the_server(client):
    """A column of paths to images: read as text, never followed."""
    rows = "p,y\n" + "\n".join(f"/etc/passwd{i % 3}.png,{i % 2}" for i in range(60))
    dataset = client.upload(rows.encode(), "paths.csv")
    answer = client.post("/v1/recommendations", json={"dataset": dataset, "target": "y"})
    assert answer.json()["data"]["kind"] == "table"
    check(client.post("/v1/recommendations", json={"dataset": dataset, "target": "y", "kind": "image"}))


def test_hostile_paths_and_headers(client):
    for text in HOSTILE_TEXTS:
        for path in ("/v1/datasets/{}", "/v1/recommendations/{}", "/v1/studies/{}/best", "/v1/runs/{}"):
            place = path.format(
                text.encode("utf-8", "replace").hex() if "\ud800" in text or "\0" in text else text
            )
            answer = client.get(
                place.replace("\r\n", "%0d%0a"), headers={"X-Request-Id": "a b"}, follow_redirects=False
            )
            assert answer.status_code < 500, (place, answer.status_code)
    for name, value in [
        ("Authorization", "Bearer " + "x" * 9_000),
        ("Authorization", "Basic eDp5"),
        ("Authorization", "Bearer adv_%27_x"),
    ]:
        assert client.get("/v1/me", headers={name: value}).status_code == 401
    for value in ("-1", "1e3", "abc"):
        assert client.post("/v1/tokens", headers={"Content-Length": value}, content=b"").status_code in (
            400,
            422,
        )
    for query in ("cursor=x", "limit=0", "limit=-1", "limit=99999999", "limit=x", "cursor=" + "A" * 199):
        check(client.get(f"/v1/recommendations?{query}"))
    for key in ("a" * 129, "a b", "\x7f"):
        check(client.post("/v1/runs", json={"recommendation": "rc_0"}, headers={"Idempotency-Key": key}))


def _zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * 50_000_000)
        archive.writestr("[Content_Types].xml", "<Types/>")
    return buffer.getvalue()


def _huge_array():
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000, 100000), }"
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def _pickled():
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _zip(*files, mode=0o644):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def _lying_zip():
    """Says that its one file has 3 bytes."""
    content = bytearray(_zip(("a/x.png", b"0" * 10_000)))
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(mark) + place
        content[at : at + 4] = struct.pack("<I", 3)
    return bytes(content)


ARCHIVES = {
    "climbs.zip": (_zip(("../../x.png", b"x")), "outside of its folder"),
    "absolute.zip": (_zip(("/etc/x.png", b"x")), "outside of its folder"),
    "links.zip": (_zip(("a/x.png", "/etc/passwd"), mode=0o120777), "a link"),
    "deep.zip": (_zip(("a/" * 40 + "x.png", b"x")), "too deep"),
    "long.zip": (_zip(("a" * 250 + ".png", b"x")), "too long"),
    "twice.zip": (_zip(("a/x.png", b"x"), ("a/X/../x.png", b"y")), "outside of its folder"),
    "lies.zip": (_lying_zip(), "cannot be unpacked"),
    "empty.zip": (_zip(("a/x.exe", b"MZ")), "no images"),
    "no.zip": (b"PK\x03\x04" + b"\xff" * 100, "cannot be unpacked"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives(tmp_path, name):
    """As the process that reads an upload unpacks it."""
    content, words = ARCHIVES[name]
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        source_in(tmp_path / "sets" / name, 2**30)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["sets", name])


def test_an_archive_is_unpacked_no_further_than_is_allowed(own_client):
    client = own_client(unpacked_bytes=2**20)
    dataset = client.upload(_zip(("a/x.png", b"0" * 2**21)), "bomb.zip")
    assert "1,048,576 bytes" in check(client.post(f"/v1/datasets/{dataset}/preview"))
    home = client.app_itself.state.service.settings.data / "projects"
    assert [path.name for path in home.glob("*/datasets/*/*")] == ["bomb.zip"]


FILES = [
    ("nul.csv", b"\0" * 1_000),
    ("wide.csv", b",".join(b"c%d" % i for i in range(20_000)) + b",y\n" + b",".join([b"1"] * 20_001)),
    ("bomb.csv", gzip.compress(b"0" * 50_000_000)),
    ("bomb.xlsx", _zip_bomb()),
    ("no.parquet", b"PAR1" + b"\xff" * 200 + b"PAR1"),
    ("huge.npy", _huge_array()),
    ("pickle.npy", _pickled()),
    ("bomb.arff", b"@relation x\n@attribute a {" + b"x," * 100_000 + b"}\n@data\n"),
]


@pytest.mark.parametrize(("name", "content"), FILES, ids=[name for name, _ in FILES])
def test_hostile_files(client, name, content):
    dataset = client.upload(content, name)
    if name.startswith("bomb"):
        preview = client.post(f"/v1/datasets/{dataset}/preview")
        assert preview.status_code in (200, 413, 422), preview.text
    answer = client.post("/v1/recommendations", json={"dataset": dataset, "target": "y"})
    if answer.status_code != 201:
        assert str(client.app_itself.state.service.settings.data) not in check(answer)


def test_reading_takes_no_longer_and_no_more_than_is_allowed(own_client):
    client = own_client(read_seconds=0.3)
    rows = b"a,b,c,y\n" + b"".join(b"%d,%d,t%d,%d\n" % (i, i * 7 % 1000, i, i % 2) for i in range(120_000))
    dataset = client.upload(rows, "slow.csv")
    assert "stopped" in check(client.post("/v1/recommendations", json={"dataset": dataset, "target": "y"}))
    client = own_client(read_bytes=2**20)
    dataset = client.upload(rows, "large.csv")
    check(client.post("/v1/recommendations", json={"dataset": dataset, "target": "y"}))


@pytest.mark.slow
def test_the_schema_holds_for_what_is_made_up_from_it(client):
    """schemathesis over the OpenAPI document, bounded: no 5xx, and no answer that the document doesn't know."""
    import schemathesis

    document = client.get("/openapi.json").json()
    skipped = ("/events", "/resume", "/stop", "/healthz", "/metrics", "/v1/tokens/")
    document["paths"] = {
        path: item for path, item in document["paths"].items() if not any(s in path for s in skipped)
    }
    schema = schemathesis.openapi.from_dict(document)
    seen = []
    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy()

        @settings(
            max_examples=4,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @__import__("hypothesis").given(case=strategy)
        def ask(case):
            arguments = case.as_transport_kwargs()
            url = arguments.pop("url")
            names = ("params", "headers", "cookies", "json", "data", "content")
            own = {name: value for name, value in arguments.items() if name in names and value is not None}
            own["headers"] = {
                name: value
                for name, value in dict(own.get("headers") or {}).items()
                if name.lower() not in ("authorization", "host", "user-agent", "content-length")
                and value.isascii()
            }
            own.pop("cookies", None)
            path = "/" + url.split("/", 3)[-1] if "://" in url else url
            answer = client.request(case.method, path, **own)
            assert answer.status_code < 500, (case.method, path, own, answer.text)
            seen.append(answer.status_code)

        ask()
    assert len(seen) > 40
