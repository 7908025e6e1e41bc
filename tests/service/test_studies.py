"""Ask and tell over HTTP: leases, keys, pruning, failures, batches, results, events, and what a restart keeps."""

import json
import subprocess
import sys
import threading
import time

import pytest
import serving

import advisor
from advisor.client import ServiceError

SPACE = {
    "lr": {"name": "FloatDistribution", "attributes": {"low": 1e-4, "high": 1.0, "log": True, "step": None}},
    "layers": {"name": "IntDistribution", "attributes": {"low": 1, "high": 4, "log": False, "step": 1}},
    "kind": {"name": "CategoricalDistribution", "attributes": {"choices": ["a", "b"]}},
}
YAML = """\
format: 1
parameters:
  x: {type: float, low: -1.0, high: 1.0, default: 0.5}
  y: {type: float, low: 0.0, high: 1.0, default: 0.5, when: x > 0}
"""


def new_study(client, **options):
    answer = client.post("/v1/studies", json={"space": SPACE, "trials": 10, "seed": 1} | options)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def ask(client, place, key=None):
    answer = client.post(f"{place}/trials", headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["trial"]


def tell(client, place, number, value, **more):
    return client.post(f"{place}/trials/{number}/complete", json={"value": value} | more)


def test_a_budget_is_asked_told_and_used_up(client):
    place = new_study(client, trials=4)
    values = {}
    for value in (0.5, 0.25, 0.75):
        trial = ask(client, place)
        assert set(trial["configuration"]) == set(SPACE) and trial["attempt"] == 1
        values[trial["number"]] = value
        ended = tell(client, place, trial["number"], value).json()
        assert (ended["state"], ended["value"]) == ("complete", value)
    last = ask(client, place)
    waiting = client.post(f"{place}/trials")
    assert (waiting.status_code, waiting.json()["state"], waiting.headers["retry-after"]) == (
        200,
        "wait",
        "1",
    )
    assert client.get(place).json()["running"][0]["number"] == last["number"]
    tell(client, place, last["number"], 0.9)
    assert client.post(f"{place}/trials").json() == {"trial": None, "state": "finished"}
    best = client.get(f"{place}/best").json()
    assert best["value"] == 0.25 and values[best["number"]] == 0.25
    standing = client.get(place)
    assert (standing.json()["state"], standing.json()["done"]) == ("finished", 4)
    assert client.get(place, headers={"If-None-Match": standing.headers["etag"]}).status_code == 304
    first = client.get(f"{place}/trials", params={"limit": 3}).json()
    rest = client.get(f"{place}/trials", params={"cursor": first["cursor"]}).json()
    assert [len(first["items"]), len(rest["items"]), rest["cursor"]] == [3, 1, None]
    assert set(client.get(f"{place}/importance").json()["importance"]) <= set(SPACE)


def test_the_same_key_gets_the_same_trial_also_at_once_and_after_its_end(client):
    place, found = new_study(client), []
    threads = [threading.Thread(target=lambda: found.append(ask(client, place, "key-1"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(one["number"], one["attempt"]) for one in found} == {(found[0]["number"], 1)}
    other = ask(client, place, "key-2")
    assert other["number"] != found[0]["number"]
    tell(client, place, found[0]["number"], 1.0)
    again = ask(client, place, "key-1")
    assert again["configuration"] == found[0]["configuration"]


def test_told_twice_is_told_once_and_another_value_is_a_conflict(client):
    place = new_study(client)
    number = ask(client, place)["number"]
    first, again = tell(client, place, number, 0.5), tell(client, place, number, 0.5)
    assert first.json()["value"] == again.json()["value"] == 0.5
    assert tell(client, place, number, 0.6).status_code == 409
    for method in ("complete", "fail", "reports", "heartbeat"):
        body = {"epoch": 1, "loss": 1.0} if method == "reports" else {}
        assert client.post(f"{place}/trials/999/{method}", json=body).status_code == 404


def test_a_silent_trial_is_given_to_the_next_who_asks(client):
    place = new_study(client, lease_seconds=1)
    lost = ask(client, place, "lost")
    deadline = time.monotonic() + 30
    while client.get(place).json()["running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    late = tell(client, place, lost["number"], 0.1, attempt=1)
    assert late.status_code == 409 and "expired" in late.json()["detail"]
    given = ask(client, place, "next")
    assert (given["number"], given["attempt"]) == (lost["number"], 2)
    assert given["configuration"] == lost["configuration"]
    report = {"epoch": 1, "loss": 0.3, "attempt": 1}
    said = client.post(f"{place}/trials/{lost['number']}/reports", json=report).json()
    assert said == {"stop": True, "why": "another worker has it"}
    assert tell(client, place, lost["number"], 0.1, attempt=1).status_code == 409
    assert tell(client, place, given["number"], 0.2, attempt=2).json()["state"] == "complete"
    assert ask(client, place, "lost")["number"] != lost["number"]


def test_reports_are_answered_with_stop(client):
    place = new_study(client, trials=30, epochs=10)
    states = []
    for index in range(12):
        number = ask(client, place)["number"]
        for epoch in range(1, 11):
            body = {"epoch": epoch, "loss": 1.0 / epoch + (5 if index == 11 else 0)}
            answer = client.post(f"{place}/trials/{number}/reports", json=body).json()
            if answer["stop"]:
                assert answer["why"]
                break
        states.append(client.post(f"{place}/trials/{number}/complete").json()["state"])
    assert states[:11] == ["complete"] * 11 and states[11] == "pruned"
    number = ask(client, place)["number"]
    diverged = client.post(f"{place}/trials/{number}/reports", json={"epoch": 1, "loss": None}).json()
    assert diverged["stop"] and client.get(f"{place}/trials").json()["items"][-1]["state"] == "diverged"


def test_failures(client):
    place = new_study(client)
    number = ask(client, place)["number"]
    answer = client.post(f"{place}/trials/{number}/fail", json={"cause": "node lost"}).json()
    assert answer == {"number": number, "state": "waiting"}
    again = ask(client, place)
    assert (again["number"], again["attempt"]) == (number, 2)
    assert client.post(f"{place}/trials/{number}/fail", json={"error": "shapes"}).json()["state"] == "failed"
    for _ in range(2):
        client.post(f"{place}/trials/{ask(client, place)['number']}/fail", json={"error": "no such file"})
    refused = client.post(f"{place}/trials")
    assert refused.status_code == 422 and "no such file" in refused.json()["detail"]


def test_a_batch_answers_each_operation(client):
    place = new_study(client)
    asked = {"operations": [{"do": "ask", "key": "b1"}, {"do": "ask"}, {"do": "ask", "key": "b1"}]}
    first, second, same = client.post(f"{place}/batch", json=asked).json()["results"]
    assert (first["status"], second["status"], same["status"]) == (201, 201, 200)
    one, two = (answer["body"]["trial"]["number"] for answer in (first, second))
    operations = [
        {"do": "report", "number": one, "body": {"epoch": 1, "loss": 0.5}},
        {"do": "heartbeat", "number": two},
        {"do": "complete", "number": one},
        {"do": "fail", "number": two, "body": {"cause": "error", "error": "x"}},
        {"do": "complete", "number": 999},
        {"do": "report", "number": one, "body": {"epoch": "x"}},
    ]
    results = client.post(f"{place}/batch", json={"operations": operations}).json()["results"]
    assert [answer["status"] for answer in results] == [200, 200, 200, 200, 404, 422]
    assert results[2]["body"]["value"] == 0.5 and results[3]["body"]["state"] == "failed"


def test_greater_can_be_better(client):
    place = new_study(client, direction="maximize", space=YAML, enqueue=[{"x": 0.25}])
    first = ask(client, place)
    assert first["configuration"] == {"x": 0.25, "y": 0.5}
    tell(client, place, first["number"], 0.5)
    tell(client, place, ask(client, place)["number"], 0.9)
    assert client.get(f"{place}/best").json()["value"] == 0.9


def test_a_study_around_a_recommendation(client):
    advised = client.post("/v1/recommendations", json={"dataset": client.upload(), "target": "y"}).json()
    place = new_study(client, space=None, recommendation=advised["id"])
    trials = [ask(client, place) for _ in range(3)]
    assert trials[0]["configuration"] == advised["configuration"]
    assert [trial["origin"] for trial in trials] == ["recommendation", "library default", "search"]
    both = new_study(client, space=YAML, recommendation=advised["id"])
    mixed = ask(client, both)["configuration"]
    assert mixed["width"] == advised["configuration"]["width"] and mixed["x"] == 0.5


def test_a_study_is_deleted_by_an_admin(client):
    place = new_study(client)
    ask(client, place)
    assert client.delete(place, headers=client.as_("run")).status_code == 403
    assert client.delete(place, headers=client.as_("other")).status_code == 404
    assert client.delete(place).status_code == 204
    assert client.post(f"{place}/trials").status_code == client.get(place).status_code == 404


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"space": None}, "give a recommendation, a space, or both"),
        ({"space": "format: 1\nparameters: {x: {type: float}}"}, "space"),
        ({"space": {"x": {"name": "FloatDistribution"}}}, "not a distribution"),
        ({"space": {"x": {"name": "os.system", "attributes": {}}}}, "not a distribution"),
        (
            {
                "space": {
                    "x": {**SPACE["layers"], "attributes": {"low": 0, "high": 9, "log": False, "step": 3}}
                }
            },
            "step",
        ),
        ({"enqueue": [{"nothing": 1}]}, "unknown parameter"),
        ({"trials": 10**7}, "at most"),
        ({"recommendation": "rc_0"}, "no such recommendation"),
    ],
)
def test_what_is_no_study_is_refused_in_a_sentence(client, options, says):
    answer = client.post("/v1/studies", json={"space": SPACE, "trials": 5} | options)
    assert answer.status_code in (404, 422) and says in answer.json()["detail"], answer.text


def test_a_restart_loses_no_trial_and_gives_none_twice(own_client):
    client = own_client()
    place = new_study(client)
    done = ask(client, place, "done")
    tell(client, place, done["number"], 0.5)
    out = ask(client, place, "out")
    folder = client.app_itself.state.service.settings.data
    client.__exit__(None, None, None)
    with serving.make_client(folder, again=client.tokens) as client:
        assert ask(client, place, "out")["number"] == out["number"]
        fresh = ask(client, place)
        assert fresh["number"] not in (out["number"], done["number"])
        assert tell(client, place, out["number"], 0.25, attempt=1).json()["state"] == "complete"
        assert client.get(f"{place}/best").json()["number"] == out["number"]
        assert client.get(place).json()["done"] == 2


EVENTS = ["leased", "report", "ended"]


@pytest.mark.slow
def test_client_examples_and_kill(tmp_path):
    """A real server: the Python client, events as they come, curl and C++ where there are such, kill -9."""
    with serving.serving(tmp_path) as server:
        service = advisor.connect(server.url, server.token)
        study = service.create_study(space=SPACE, trials=12, seed=3)
        seen = []
        listener = threading.Thread(target=_listen, args=(server, study.path, seen), daemon=True)
        listener.start()

        def objective(trial):
            loss = abs(trial.suggest_float("lr", 1e-4, 1) - 0.1) + trial.suggest_int("layers", 1, 4)
            trial.report(loss, 1)
            return loss

        study.optimize(objective, n_trials=6)
        assert study.best_value < 5 and len(list(study.trials())) == 6
        with pytest.raises(ServiceError, match="404"):
            service.study("st_0").ask()
        trial = study.ask()
        with pytest.raises(advisor.UserError, match="did you mean 'lr'"):
            trial.suggest_float("lrr", 0, 1)
        study.tell(trial, 0.01)
        kept = study.ask()
        server.process.kill()
        server.process.wait()
    with serving.serving(tmp_path) as server:
        service.url = server.url
        study = service.study(study.id)
        trials = {one["number"]: one["value"] for one in study.trials()}
        assert len(trials) == 7 and trials[trial.number] == 0.01
        study.tell(kept, 0.02)
        study.optimize(objective)
        assert len(list(study.trials())) == 12
    assert {"leased", "report", "ended"} <= {kind for kind in seen}
    assert (
        subprocess.run(
            [sys.executable, "-c", "import advisor.client, sys; assert 'optuna' not in sys.modules"]
        ).returncode
        == 0
    )


def _listen(server, path, seen):
    import urllib.request

    request = urllib.request.Request(
        f"{server.url}{path}/events", headers={"Authorization": f"Bearer {server.token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            for line in answer:
                if line.startswith(b"event:"):
                    seen.append(line.split()[1].decode())
                elif line.startswith(b"data:"):
                    json.loads(line[5:])
    except (OSError, ValueError):
        pass
