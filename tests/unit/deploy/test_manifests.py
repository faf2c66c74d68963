"""What is rendered is valid, holds no secret, opens one door, and lets nobody be root."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from tests.unit.deploy import deployment
from tests.unit.deploy.deployment import ROOT, SECRETS, compose_file, containers, workloads

Documents = list[dict[str, Any]]


@pytest.fixture(params=["base", "overlays/dev"])
def documents(request: pytest.FixtureRequest, rendered: dict[str, Documents]) -> Documents:
    return rendered[request.param]


def test_kubernetes_accepts_every_document(documents: Documents):
    version = kubernetes_validate.latest_version()
    assert len(workloads(documents)) == 16
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_key_would_be_refused(rendered: dict[str, Documents]):
    deployed = workloads(rendered["base"])[0]
    damaged = deployed | {"spec": deployed["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(damaged, kubernetes_validate.latest_version(), strict=True)


def test_compose_accepts_the_file():
    compose = PyCompose.from_yaml(yaml.safe_dump(compose_file()))
    compose.validate()
    assert len(compose.service_names()) == len(compose_file()["services"])


def test_a_misspelt_compose_key_would_be_refused():
    content = compose_file()
    content["services"]["pool"]["enviroment"] = {}
    with pytest.raises(ValueError, match="enviroment"):
        PyCompose.from_yaml(yaml.safe_dump(content))


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_says_which_secret_is_missing(missing: str):
    with pytest.raises(LookupError, match=rf"{missing} is missing: write \.env as docs/deploy\.md says"):
        compose_file({name: value for name, value in SECRETS.items() if name != missing})


def test_the_base_brings_no_secret_and_no_default_for_one(rendered: dict[str, Documents]):
    assert not [document for document in rendered["base"] if document["kind"] == "Secret"]
    for workload in workloads(rendered["base"]):
        for container in containers(workload):
            for entry in container.get("env", []):
                if "valueFrom" in entry:
                    assert entry["valueFrom"]["secretKeyRef"]["name"] == "headwater"
                    assert "optional" not in entry["valueFrom"]["secretKeyRef"]
                else:
                    assert not any(word in entry["name"] for word in ("PASSWORD", "TOKEN")), entry["name"]


def test_the_overlay_makes_the_one_secret_everybody_names(rendered: dict[str, Documents]):
    documents = rendered["overlays/dev"]
    (secret,) = [document for document in documents if document["kind"] == "Secret"]
    assert set(secret["data"]) == set(SECRETS)
    named = {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for workload in workloads(documents)
        for container in containers(workload)
        for entry in container.get("env", [])
        if "valueFrom" in entry
    }
    assert named == {secret["metadata"]["name"]}


def test_no_secret_is_in_the_repository():
    assert "secrets.env" in (ROOT / "k8s" / ".gitignore").read_text().splitlines()
    assert {".env", "teacher.env"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_only_generation_has_a_place_for_keys_of_teachers_and_it_may_be_empty(documents: Documents):
    services = compose_file()["services"]
    assert {name: service["env_file"] for name, service in services.items() if "env_file" in service} == {
        "generation": [{"path": "teacher.env", "required": False}]
    }
    secrets = {
        workload["metadata"]["name"]: source["secretRef"]
        for workload in workloads(documents)
        for container in containers(workload)
        for source in container.get("envFrom", [])
        if "secretRef" in source
    }
    assert secrets == {"generation": {"name": "teacher", "optional": True}}


def test_nobody_is_root(documents: Documents):
    """The cluster's `restricted` standard, and a file system nobody writes to."""
    for workload in workloads(documents):
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["requests"]) >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_no_container_may_do_more():
    for name, service in compose_file()["services"].items():
        locked = (service["read_only"], service["cap_drop"], service["security_opt"])
        assert locked == (True, ["ALL"], ["no-new-privileges:true"]), name
        assert "privileged" not in service


def test_only_the_gateway_is_published(documents: Documents):
    published = {
        document["metadata"]["name"]
        for document in documents
        if document["kind"] == "Service" and document["spec"].get("type", "ClusterIP") != "ClusterIP"
    }
    assert published <= {"gateway"}
    assert not [document for document in documents if document["kind"] == "Ingress"]
    policies = [document["spec"] for document in documents if document["kind"] == "NetworkPolicy"]
    everybody = {"matchLabels": {"app.kubernetes.io/part-of": "headwater"}}
    assert [policy["podSelector"] for policy in policies if "ingress" not in policy] == [everybody], (
        "nothing else comes in"
    )
    open_to_all = [
        policy["podSelector"] for policy in policies if any("from" not in rule for rule in policy.get("ingress", []))
    ]
    assert open_to_all == [{"matchLabels": {"app.kubernetes.io/name": "gateway"}}]


def test_compose_publishes_the_gateway_and_flower_on_loopback():
    ports = {name: service["ports"] for name, service in compose_file()["services"].items() if "ports" in service}
    assert ports == {"gateway": ["127.0.0.1:8400:8400"], "flower": ["127.0.0.1:5555:5555"]}


def test_who_may_talk_can_be_told_by_its_labels(documents: Documents):
    """Each label that a policy or a Service selects by is on the pods it means."""
    pods = {
        workload["metadata"]["name"]: workload["spec"]["template"]["metadata"]["labels"]
        for workload in workloads(documents)
    }

    def selected(wanted: dict[str, str]) -> set[str]:
        return {name for name, labels in pods.items() if wanted.items() <= labels.items()}

    for document in documents:
        if document["kind"] == "Service":
            assert selected(document["spec"]["selector"]) == {document["metadata"]["name"]}
    needs_database = {
        workload["metadata"]["name"]
        for workload in workloads(documents)
        if any(
            entry["name"] == "HEADWATER_DATABASE_URL" for box in containers(workload) for entry in box.get("env", [])
        )
    }
    assert selected({"headwater/database": "owner"}) == needs_database
    assert selected({"headwater/role": "api"}) == {
        "pool",
        "generation",
        "verification",
        "training",
        "cascade",
        "gateway",
    }


def test_flower_asks_for_a_password(rendered: dict[str, Documents]):
    compose = deployment.compose_processes()["flower"].environment
    cluster = deployment.kubernetes_processes(rendered["base"])["flower"].environment
    expected = f"headwater:{SECRETS['FLOWER_PASSWORD']}"
    assert compose["FLOWER_BASIC_AUTH"] == cluster["FLOWER_BASIC_AUTH"] == expected


def test_apis_are_alive_by_another_question_than_ready(documents: Documents):
    for workload in workloads(documents):
        if workload["metadata"].get("labels", {}).get("headwater/role") == "api":
            (container,) = workload["spec"]["template"]["spec"]["containers"]
            assert container["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}
            assert container["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
