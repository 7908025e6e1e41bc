"""Advice over HTTP: from an upload or from facts alone, why, what-if, diff, the report, rule packs."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import ROWS

import advisor
from advisor.facts.schema import FACTS

RULE = """\
format: 1
rules:
- id: our-width
  title: We like 96 units
  topic: architecture
  applies_to: [table]
  strength: must
  when: rows < 1000
  then:
    default: {width: 96}
  because: '{rows} rows, and we like 96 units.'
  why: >-
    It has been so for years, in all of our projects, and nobody remembers why.
  references:
    - {cite: 'our wiki', url: 'https://example.org/wiki', says: 'take 96'}
  evidence: habit
"""
DETAILS = """\
  examples:
    - {given: {rows: 999}, expect: {width: 96}}
    - {given: {rows: 1000}, expect: does not fire}
"""


@pytest.fixture(scope="module")
def advised(client):
    """A recommendation for an upload."""
    answer = client.post("/v1/recommendations", json={"dataset": client.upload(), "target": "y", "seed": 3})
    assert answer.status_code == 201, answer.text
    return answer


@pytest.fixture(scope="module")
def facts(client, advised):
    return client.get(f"{advised.headers['location']}/report.json").json()["facts"]


def test_an_upload_gets_what_the_command_gives(advised, tmp_path):
    (tmp_path / "d.csv").write_text(ROWS)
    here = advisor.recommend(tmp_path / "d.csv", "y", seed=3).to_dict()
    there = advised.json()
    for part in ("configuration", "space", "findings", "provenance"):
        assert there[part] == json.loads(json.dumps(here[part]))
    assert "/" not in json.dumps(there["data"])  # no path of the server


def test_facts_alone_get_the_same_and_no_row_travels(client, advised, facts):
    assert "samples" not in facts and facts["values"]["rows"] == 64
    answer = client.post("/v1/recommendations", json={"facts": facts, "name": "mine", "seed": 3})
    assert answer.status_code == 201, answer.text
    assert answer.json()["configuration"] == advised.json()["configuration"]
    other = client.get(f"{advised.headers['location']}/diff", params={"other": answer.json()["id"]}).json()
    assert other["parameters"] == [] and "Nothing differs" in other["text"]
    again = client.get(f"/v1/recommendations/{answer.json()['id']}")
    assert again.json() == answer.json()
    tag = {"If-None-Match": again.headers["etag"]}
    assert client.get(f"/v1/recommendations/{answer.json()['id']}", headers=tag).status_code == 304


def test_the_same_key_makes_one_recommendation(client, facts):
    key = {"Idempotency-Key": "key-1"}
    first = client.post("/v1/recommendations", json={"facts": facts}, headers=key)
    again = client.post("/v1/recommendations", json={"facts": facts}, headers=key)
    assert first.json() == again.json() and again.headers["location"].endswith(first.json()["id"])
    other = client.post("/v1/recommendations", json={"facts": facts, "seed": 9}, headers=key)
    assert other.status_code == 409


def test_why_what_if_and_the_report(client, advised):
    place = advised.headers["location"]
    why = client.get(f"{place}/why/width").json()
    assert why["value"] == advised.json()["configuration"]["width"] and why["steps"] and why["text"]
    near = client.get(f"{place}/why/widht")
    assert near.status_code == 404 and "did you mean 'width'" in near.json()["detail"]
    changed = client.post(
        f"{place}/what-if", json={"facts": {"rows": 1_000_000}, "fixed": {"width": 99}}
    ).json()
    assert changed["configuration"]["width"] == 99 and "rows_per_feature" in changed["moved_along"]
    assert {"parameter": "width"}.items() <= changed["parameters"][1].items()
    wrong = client.post(f"{place}/what-if", json={"facts": {"rows": "many"}})
    assert wrong.status_code == 422 and "whole number" in wrong.json()["detail"]
    page = client.get(f"{place}/report")
    assert page.text.startswith("<!doctype html>") and "sandbox" in page.headers["content-security-policy"]


def pictures(count=16):
    """Light and dark squares, as PNG: name -> content."""
    from PIL import Image

    found = {}
    for number in range(count):
        kind, buffer = ("dark", "light")[number % 2], io.BytesIO()
        Image.new("L", (8, 8), 40 + 150 * (number % 2) + number).save(buffer, "PNG")
        found[f"{kind}/{number}.png"] = buffer.getvalue()
    return found


@pytest.mark.parametrize("table", [False, True])
def test_a_folder_of_images_is_uploaded_as_an_archive(client, table):
    """With a folder for each class, or with a table of labels."""
    buffer, files = io.BytesIO(), pictures()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"set/{name}", content)
        if table:
            rows = "".join(f"{name},{name.partition('/')[0]}\n" for name in files)
            archive.writestr("set/labels.csv", f"file,shade\n{rows}")
    dataset = client.upload(buffer.getvalue(), "set.zip")
    shown = client.post(f"/v1/datasets/{dataset}/preview").json()
    assert (shown["kind"], len(shown["columns"])) == (("table", 2) if table else ("image", 0))
    wanted = {"dataset": dataset} | ({"target": "shade"} if table else {})
    answer = client.post("/v1/recommendations", json=wanted)
    assert answer.status_code == 201, answer.text
    assert answer.json()["data"]["kind"] == "image" and "convolution" in answer.text
    refused = client.post("/v1/recommendations", json={"dataset": client.upload(), "kind": "image"})
    assert "archive (.zip)" in refused.json()["detail"]


def test_images_with_masks_are_uploaded_as_an_archive_with_a_legend(client):
    buffer, draw = io.BytesIO(), np.random.default_rng(0)
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(8):
            mask = np.zeros((16, 16), np.uint8)
            mask[4:12, number : number + 8] = 1
            noise = draw.integers(0, 100, mask.shape)
            for folder, array in (("images", 150 * mask + noise), ("masks", mask)):
                Image.fromarray(array.astype(np.uint8)).save(part := io.BytesIO(), "PNG")
                archive.writestr(f"cells/{folder}/{number}.png", part.getvalue())
        archive.writestr("cells/legend.csv", "0,ground\n1,cell\n")
    dataset = client.upload(buffer.getvalue(), "cells.zip")
    assert client.post(f"/v1/datasets/{dataset}/preview").json()["kind"] == "mask"
    answer = client.post("/v1/recommendations", json={"dataset": dataset})
    assert answer.status_code == 201, answer.text
    assert answer.json()["data"]["kind"] == "mask" and "encoder_decoder" in answer.text


def test_the_same_facts_are_the_same_advice_under_another_id(client, facts):
    one, two = (client.post("/v1/recommendations", json={"facts": facts}).json() for _ in range(2))
    assert one.pop("id") != two.pop("id") and one.pop("created") <= two.pop("created")
    assert one == two


def test_after_a_restart_the_questions_are_answered_alike(client, advised):
    from advisor.service.routes.advising import AdviceDesk

    place = f"{advised.headers['location']}/report.json"
    before = client.get(place).json()
    client.app_itself.state.service.parts[AdviceDesk] = AdviceDesk()
    assert client.get(place).json() == before


def test_pages_of_a_list_hold_each_once(client, advised):
    seen, cursor = [], None
    while True:
        page = client.get(
            "/v1/recommendations", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        ).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) and advised.json()["id"] in seen
    assert client.get("/v1/recommendations", params={"cursor": "nonsense"}).status_code == 422


def test_an_upload_survives_a_dropped_connection(client):
    content = ROWS.encode()
    made = client.post("/v1/datasets", json={"name": "../../etc/pass wd.CSV", "size": len(content)}).json()
    place = f"/v1/datasets/{made['id']}"
    assert made["name"] == "pass-wd.csv"
    assert client.patch(f"{place}/content", content=content[:100]).json()["received"] == 100
    assert client.post("/v1/recommendations", json={"dataset": made["id"], "target": "y"}).status_code == 409
    lost = client.patch(f"{place}/content", content=content[50:])
    assert (lost.status_code, lost.json()["received"]) == (409, 100)
    assert client.get(place).json()["received"] == 100
    rest = client.patch(f"{place}/content", content=content[100:], headers={"Upload-Offset": "100"})
    assert rest.json()["complete"]
    more = client.patch(f"{place}/content", content=b"x", headers={"Upload-Offset": str(len(content))})
    assert more.status_code == 413
    first = client.post(f"{place}/preview").json()
    assert first["rows"] == 80 and [c["type"] for c in first["columns"]] == ["numeric", "numeric", "boolean"]
    folder = Path(client.app_itself.state.service.settings.data) / "projects"
    assert list(folder.glob(f"*/datasets/{made['id']}/*"))
    assert client.delete(place).status_code == 204 and client.get(place).status_code == 404
    assert not list(folder.glob(f"*/datasets/{made['id']}"))


def test_a_rule_pack_is_checked_versioned_and_used(client, facts):
    bad = client.post("/v1/rules", json={"name": "ours", "files": {"a.yaml": RULE}})
    assert bad.status_code == 422 and bad.json()["complaints"]
    own = RULE.replace("habit", "folklore") + DETAILS
    made = [client.post("/v1/rules", json={"name": "ours", "files": {"a.yaml": own}}) for _ in range(2)]
    assert [one.json().get("version") for one in made] == [1, 2], made[0].text
    wanted = {"facts": facts, "rules": [made[1].json()["id"]]}
    advised = client.post("/v1/recommendations", json=wanted)
    assert advised.json().get("configuration", {}).get("width") == 96, advised.text
    assert "our-width" in client.get(f"{advised.headers['location']}/why/width").json()["text"]
    assert client.post("/v1/recommendations", json=wanted, headers=client.as_("other")).status_code == 404


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"values": {"rows": -5}}, "counts something"),
        ({"values": {"rows": "many"}}, "is not a int"),
        ({"values": {"no_such": 1}}, "there is no fact"),
        ({"values": {"missing.share": 1e300}}, "1e+300"),
        ({"columns": [{"name": 3}]}, "'columns[0].name' is not"),
        ({"sampled": []}, "are missing"),
        ({"values": None}, "are missing"),
    ],
)
def test_what_are_no_facts_is_refused_in_a_sentence(client, facts, change, says):
    name, value = next(iter(change.items()))
    bad = {**facts, name: {**facts[name], **value} if name == "values" and value else value}
    answer = client.post("/v1/recommendations", json={"facts": bad})
    assert answer.status_code == 422 and says in answer.json()["detail"], answer.text
    assert set(facts["values"]) <= set(FACTS)


@pytest.mark.parametrize("part", ["recommendations", "what-if"])
def test_no_request_makes_the_server_fetch_a_network(client, advised, facts, part):
    fixed = {"network": "timm:resnet18"}
    if part == "recommendations":
        answer = client.post("/v1/recommendations", json={"facts": facts, "fixed": fixed})
    else:
        answer = client.post(f"{advised.headers['location']}/what-if", json={"fixed": fixed})
    assert answer.status_code == 422 and "a service does not load" in answer.json()["detail"], answer.text


def test_a_metric_comes_with_an_upload_and_with_facts(client, facts, tmp_path):
    """The recommendation of `advisor recommend --metric`; a run of it is judged by that metric."""
    (tmp_path / "d.csv").write_text(ROWS)
    here = advisor.recommend(tmp_path / "d.csv", "y", metric="balanced_accuracy").to_dict()
    asked = {"dataset": client.upload(), "target": "y", "metric": "balanced_accuracy"}
    for body in (asked, {"facts": facts, "metric": "balanced_accuracy"}):
        there = client.post("/v1/recommendations", json=body).json()
        assert there["configuration"] == json.loads(json.dumps(here["configuration"]))
        assert there["configuration"]["decision"] == "for_metric"


@pytest.mark.parametrize(
    ("judged", "says"),
    [
        ({"metric": "r2"}, "does not fit a binary target"),
        ({"metric": "os:system"}, "a service does not run"),
        ({"metric": "rocauc"}, "did you mean 'roc_auc'"),
        ({"cost": {"yes": {"maybe": 5}}}, "the costs name 'maybe'"),
        ({"cost": {"yes": {"no": 5}}, "metric": "f1"}, "not both"),
    ],
)
def test_a_metric_that_cannot_judge_is_refused(client, judged, says):
    answer = client.post("/v1/recommendations", json={"dataset": client.upload(), "target": "y", **judged})
    assert answer.status_code == 422 and says in answer.json()["detail"], answer.text
