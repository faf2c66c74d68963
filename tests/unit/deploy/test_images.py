"""No image is built here, so what would break one is looked for: its requirements, its files, its versions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.deploy.deployment import ROOT, Process, compose_file

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What runs in each image: the modules it starts from. The migrations look at every service's tables.
ENTRY_POINTS = {
    "gateway": [
        "services/gateway",
        "migrations/env.py",
        *(str(path.relative_to(ROOT)) for path in ROOT.glob("services/*/models.py")),
    ],
    "pool": ["services/pool"],
    "generation": ["services/generation"],
    "verification": ["services/verification"],
    "sampling": ["services/sampling"],
    "cascade": ["services/cascade"],
    "training": ["services/training"],
}
# engine_extension.py runs inside the engine, sender.py where vLLM is installed, which brings the others.
WITH_VLLM = {"generation": {"vllm", "torch", "safetensors"}}
# What is imported for a word of a command.
SERVERS = {"shared.serve": "uvicorn"} | {name: name for name in ("celery", "alembic", "flower", "redbeat")}


def images() -> dict[str, set[str]]:
    """By image: the modules that commands of docker-compose.yml start in it."""
    started: dict[str, set[str]] = {}
    for service in compose_file()["services"].values():
        if "build" in service:
            words = " ".join(service["command"])
            started.setdefault(service["build"]["args"]["SERVICE"], set()).update(
                library for server, library in SERVERS.items() if server in words
            )
    return started


def requirements(extras: Iterable[str]) -> Iterator[Requirement]:
    """What pyproject.toml asks for with these extras; `headwater[…]` is looked up."""
    listed = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    for requirement in map(Requirement, listed):
        if requirement.name == "headwater":
            yield from requirements(requirement.extras)
        else:
            yield requirement


def distributions(wanted: Iterable[Requirement]) -> set[str]:
    """These and everything they need, by name, as far as it is installed here."""
    found: set[tuple[str, str]] = set()
    waiting = list(wanted)
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key in found:
                continue
            found.add(key)
            try:
                needs = map(Requirement, metadata.requires(requirement.name) or [])
            except metadata.PackageNotFoundError:
                continue  # for another system than this one
            waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def imports(path: Path) -> set[str]:
    """The modules a file imports, at its top or inside a function, but not for type checking alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def reachable(entry_points: list[str]) -> set[str]:
    """Top-level names of all libraries that the entry points import, through `shared` and the service itself."""
    waiting = [
        path
        for entry in entry_points
        for path in ([ROOT / entry] if entry.endswith(".py") else (ROOT / entry).rglob("*.py"))
    ]
    seen: set[Path] = set()
    libraries: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports(path):
            root = module.split(".")[0]
            if root in {"shared", "services"}:
                file = ROOT / Path(*module.split("."))
                waiting += [found for found in (file.with_suffix(".py"), file / "__init__.py") if found.exists()]
            else:
                libraries.add(root)
    return libraries - set(sys.stdlib_module_names) - {"__future__"}


@pytest.mark.parametrize("service", ENTRY_POINTS)
def test_an_image_has_every_library_that_is_imported_in_it(service: str):
    image = distributions(requirements([service]))
    owners = metadata.packages_distributions()
    needed = (reachable(ENTRY_POINTS[service]) - WITH_VLLM.get(service, set())) | images()[service]
    missing = sorted(
        library for library in needed if not {canonicalize_name(owner) for owner in owners.get(library, [])} & image
    )
    assert not missing, f"the extra `{service}` of pyproject.toml lacks {missing}"


def test_there_is_an_image_for_each_extra_named_like_a_service(deployed: dict[str, Process]):
    assert set(images()) == set(ENTRY_POINTS) <= set(PROJECT["optional-dependencies"])
    ours = {process.image.rsplit(":", 1)[0] for process in deployed.values() if process.image.startswith("headwater-")}
    assert ours == {f"headwater-{service}" for service in ENTRY_POINTS}


def test_every_image_is_pinned(deployed: dict[str, Process]):
    tags = {process.image: process.image.rsplit(":", 1)[1] for process in deployed.values()}
    assert all(re.fullmatch(r"v?\d+(\.\d+)+", tag) for tag in tags.values()), tags
    assert PROJECT["version"] in tags.values()


def test_the_engine_is_the_version_that_is_tested(deployed: dict[str, Process]):
    version = (ROOT / "requirements" / "engine.in").read_text().split("==")[1].strip()
    assert deployed["engine"].image.endswith(f":v{version}")


def test_the_dockerfile_is_clean():
    result = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_dockerfile_uses_the_uv_of_the_makefile():
    pins = [re.findall(r"uv==([\d.]+)", text) for text in (DOCKERFILE, (ROOT / "Makefile").read_text())]
    assert pins[0] == pins[1]
    assert len(pins[0]) == 1


def test_what_is_copied_exists_and_is_let_through():
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    }
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_is_not_root_and_asks_for_health():
    last_stage = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.findall(r"^USER (.+)$", last_stage, re.MULTILINE) == ["2000:2000"]
    assert "HEALTHCHECK" in last_stage
