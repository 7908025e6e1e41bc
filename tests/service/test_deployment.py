"""The files of examples/deployment fit together and to the program, as far as that shows without Docker and Kubernetes."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from advisor.cli import service
from advisor.service.base.settings import PORT

FOLDER = Path(__file__).parents[2] / "examples" / "deployment"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
OBJECTS = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def of_kind(kind):
    return [one for one in OBJECTS if one["kind"] == kind]


def pods():
    """The templates of all pods, by the labels that they get."""
    for one in of_kind("Deployment"):
        yield one["spec"]["template"]["metadata"]["labels"], one["spec"]["template"]["spec"]
    for one in of_kind("RayCluster"):  # whose operator gives its pods this label
        groups = [one["spec"]["headGroupSpec"], *one["spec"]["workerGroupSpecs"]]
        for group in groups:
            yield {"ray.io/cluster": one["metadata"]["name"]}, group["template"]["spec"]


def commands():
    deployed = [pod["containers"][0].get("args", [""])[0] for _, pod in pods()]
    image = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1]
    texts = [COMPOSE["services"]["service"]["command"], *deployed, " ".join(yaml.safe_load(image))]
    return [text for text in texts if "advisor serve" in text]


@pytest.mark.parametrize("text", commands())
def test_the_commands_are_ours(text):
    words = shlex.split(text)
    given = words[words.index("serve") + 1 :]
    context = service.serve.make_context("serve", given, resilient_parsing=False)  # refuses unknown options
    assert context.params["host"] == "0.0.0.0" and str(context.params["data"]) == "/data"
    assert context.params["port"] == PORT


def test_compose_waits_for_what_it_needs_and_keeps_what_it_writes():
    services = COMPOSE["services"]
    used = {volume.split(":")[0] for one in services.values() for volume in one["volumes"]}
    assert used == set(COMPOSE["volumes"])
    assert set(services["service"]["depends_on"]) == {"database", "ray"}
    assert services["service"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert "healthcheck" in services["database"]
    assert services["service"]["ports"] == [f"127.0.0.1:{PORT}:{PORT}"] and "ports" not in services["ray"]
    for one in services.values():
        if "build" in one:
            context = (FOLDER / one["build"]["context"]).resolve()
            assert (context / one["build"]["dockerfile"]).is_file()
    assert f"EXPOSE {PORT}" in DOCKERFILE and "USER advisor" in DOCKERFILE


def test_every_object_of_kubernetes_names_what_there_is():
    assert all(one["apiVersion"] and one["metadata"]["name"] for one in OBJECTS)
    claims = {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim")}
    labels = [labels for labels, _ in pods()]
    for _, pod in pods():
        volumes = {one["name"]: one for one in pod["volumes"]}
        assert {one["persistentVolumeClaim"]["claimName"] for one in volumes.values()} <= claims
        assert {one["name"] for one in pod["containers"][0]["volumeMounts"]} <= set(volumes)
    selectors = [one["spec"]["selector"] for one in of_kind("Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind("Deployment")]
    for policy in of_kind("NetworkPolicy"):
        selectors.append(policy["spec"]["podSelector"]["matchLabels"])
        selectors += [
            one["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for one in rule["from"]
        ]
    assert all(any(wanted.items() <= one.items() for one in labels) for wanted in selectors)
    (cluster,) = of_kind("RayCluster")
    (command,) = [text for text in commands() if "--https" in text]
    assert f"http://{cluster['metadata']['name']}-head-svc:8265" in command


def test_the_probe_asks_a_route_that_needs_no_token(client):
    (deployment,) = of_kind("Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    probe = container["readinessProbe"]["httpGet"]
    assert client.get(probe["path"], headers={"Authorization": ""}).status_code == 200
    assert probe["port"] == container["ports"][0]["containerPort"] == PORT
    (host,) = {one["value"] for one in probe["httpHeaders"] if one["name"] == "Host"}
    assert f"--allow-host {host}" in container["args"][0]  # others are refused with 421
