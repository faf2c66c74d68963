"""The three descriptions of Headwater's processes in one form: the table of `local`, docker-compose.yml and k8s/."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
ENGINE_EXTENSION = ROOT / "services" / "generation" / "engine_extension.py"
KUBECTL = Path(sys.executable).with_name("kubectl")
SECRETS = {
    "POSTGRES_PASSWORD": "postgres-secret",
    "HEADWATER_SERVICE_TOKEN": "token",
    "FLOWER_PASSWORD": "flower-secret",
}
ARTIFACTS = "/artifacts"
ONE_SHOT = ("migrate", "bootstrap", "model")


@dataclass(frozen=True)
class Process:
    """One process as it is deployed. `health`: `host:port/path`, or the words of a command, or None."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: str | None
    image: str
    mounts: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)


def words(command: list[str]) -> tuple[str, ...]:
    """The command with `--option=value` as two words."""
    parts = (word.split("=", 1) if word.startswith("--") else [word] for word in command)
    return tuple(word for part in parts for word in part)


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Compose's ${NAME:-default} and ${NAME:?message}; `$$` is a dollar. A missing one raises with its message."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match["name"] in variables:
            return variables[match["name"]]
        if match["kind"] == "?":
            raise LookupError(f"{match['name']} {match['rest']}")
        return match["rest"]

    return re.sub(r"\$\$|\$\{(?P<name>\w+):(?P<kind>[-?])(?P<rest>[^}]*)\}", value, text)


def compose_file(variables: Mapping[str, str] = SECRETS) -> dict[str, Any]:
    """docker-compose.yml with its variables put in."""
    content: dict[str, Any] = yaml.safe_load(interpolate((ROOT / "docker-compose.yml").read_text(), variables))
    return content


def compose_processes() -> dict[str, Process]:
    """The services of docker-compose.yml by name."""
    services: dict[str, dict[str, Any]] = compose_file()["services"]
    return {name: _compose_process(name, service) for name, service in services.items()}


def _compose_process(name: str, service: dict[str, Any]) -> Process:
    environment = {key: str(value) for key, value in service.get("environment", {}).items()}
    check = service.get("healthcheck", {})
    health = environment.get("HEALTH_URL")
    if "test" in check:
        health = " ".join(check["test"][1:])
    elif check.get("disable"):
        health = None
    return Process(
        name,
        words([*service.get("entrypoint", []), *service["command"]]),
        environment,
        health,
        service["image"],
        tuple(volume.removesuffix(":ro").rsplit(":", 1)[-1] for volume in service.get("volumes", [])),
        service,
    )


def render(overlay: str, directory: Path) -> list[dict[str, Any]]:
    """`kubectl kustomize` of k8s/<overlay>, with the files that docs/deploy.md puts into it; it reads no cluster and no network."""
    shutil.copytree(ROOT / "k8s", directory, dirs_exist_ok=True)
    secrets = "".join(f"{name}={value}\n" for name, value in SECRETS.items())
    for folder in (directory / "overlays").iterdir():
        (folder / "secrets.env").write_text(secrets)
        shutil.copy(ENGINE_EXTENSION, folder)
    command = [str(KUBECTL), "kustomize", str(directory / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def workloads(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What makes pods."""
    return [document for document in documents if document["kind"] in {"Deployment", "StatefulSet", "Job"}]


def containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    """Every container of a workload, those that run first too."""
    pod = workload["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def kubernetes_processes(documents: list[dict[str, Any]]) -> dict[str, Process]:
    """The containers of a rendering by process name; those that only wait are left out."""
    config = {
        document["metadata"]["name"]: document["data"] for document in documents if document["kind"] == "ConfigMap"
    }
    processes = {}
    for workload in workloads(documents):
        for container in containers(workload):
            if container["name"].startswith("wait-for-"):
                continue
            name = workload["metadata"]["name"] if container["name"] == "main" else container["name"]
            if (workload["metadata"]["name"], container["name"]) == ("migrate", "main"):
                name = "bootstrap"  # a Job's first containers are the steps before its last one
            processes[name] = _kubernetes_process(name, container, config)
    return processes


def _kubernetes_process(name: str, container: dict[str, Any], config: Mapping[str, Mapping[str, str]]) -> Process:
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "secretRef" in source:
            assert source["secretRef"]["optional"], "of what it holds nothing is known here"
        else:
            environment |= config[source["configMapRef"]["name"]]
    own: dict[str, str] = {}
    for entry in container.get("env", []):
        # As kubelet does: a value may name what stands before it in the list.
        given = SECRETS[entry["valueFrom"]["secretKeyRef"]["key"]] if "valueFrom" in entry else entry["value"]
        own[entry["name"]] = _expand(given, own)
    environment |= own
    command = [_expand(word, environment) for word in [*container.get("command", []), *container.get("args", [])]]
    probe = container.get("readinessProbe", {})
    health = None
    if "httpGet" in probe:
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        health = f"http://127.0.0.1:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
    elif "exec" in probe:
        health = " ".join(probe["exec"]["command"])
    mounts = tuple(mount["mountPath"] for mount in container.get("volumeMounts", []))
    return Process(name, words(command), environment, health, container["image"], mounts, container)


def _expand(text: str, environment: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), text)
