"""docker-compose.yml and k8s/ describe the processes of `headwater up`. Every difference that is meant is named here."""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from services.local import processes
from services.local.directory import DataDirectory
from services.local.engine import ROOT, EngineModel, fitted
from services.local.processes import CommandProbe, ExitProbe, HttpProbe, LogProbe, ProcessSpec, StackSettings, TcpProbe
from services.training.tiny import make_tiny_model
from shared.settings import Settings
from tests.unit.deploy.deployment import (
    ARTIFACTS,
    ENGINE_EXTENSION,
    SECRETS,
    Process,
    compose_file,
    kubernetes_processes,
    words,
)

DATA = DataDirectory(Path("/data"))
MODEL = f"{ARTIFACTS}/models/tiny-seed0"
CONTEXT_TOKENS = int(inspect.signature(make_tiny_model).parameters["max_positions"].default)
STACK = StackSettings(
    DATA,
    fitted(EngineModel("tiny", MODEL, context_tokens=CONTEXT_TOKENS)),
    postgres_password=SECRETS["POSTGRES_PASSWORD"],
    service_token=SECRETS["HEADWATER_SERVICE_TOKEN"],
    flower_password=SECRETS["FLOWER_PASSWORD"],
)
TABLE = {process.name: process for process in processes.process_table(STACK)}

# The differences that are meant.
EXTRA_PROCESSES = {"model"}  # `local` makes the base model before the table runs
WORDS = {  # containers listen on all addresses; the code is at /app
    "127.0.0.1": "0.0.0.0",
    sys.executable: "python",
    str(ROOT): "/app",
    str(ROOT / "alembic.ini"): "/app/alembic.ini",
}
ENGINE_PYTHON = "python3"  # vLLM's own image
# One process for scheduler and model, where they would share two cores. And vLLM on a GPU takes full checkpoints by itself.
ONLY_ON_THE_CPU = {
    "--distributed-executor-backend": "uni",
    "--worker-extension-cls": "services.generation.engine_extension.EngineExtension",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
ENGINE_SHARES_ITS_GPU = {"--gpu-memory-utilization": "0.5"}  # compose: one GPU for engine and training
POSTGRES_OF_THE_IMAGE = {"listen_addresses", "port", "unix_socket_directories"}
VALKEY = {"--bind": "*", "--dir": "/data"}
VALKEY_EXTRA = ("--protected-mode", "no")  # the network keeps others out
WITHOUT_DATABASE = {"verification", "sampling-worker"}  # they own no tables; on one machine all are told the same
WITHOUT_SETTINGS = {"postgres", "valkey", "engine"}  # not our code
KEY_FILE = "HEADWATER_API_KEY_FILE"  # only bootstrap writes it
NEEDS_ONLY_THE_DATABASE = "migrate"  # in the cluster it is told no more; alembic reads no more
DEPLOYED_ONLY = {
    "HF_HOME",
    "HOME",
    "HEALTH_URL",
    "POSTGRES_PASSWORD",
    "FLOWER_PASSWORD",
    "ENGINE_DTYPE",
    "ENGINE_CONTEXT_TOKENS",
}


def in_containers(text: str) -> str:
    """A value of `local` as it is between containers."""
    for name, port in STACK.ports.items():
        text = text.replace(f"127.0.0.1:{port}", f"{name}:{port}")
    text = text.replace(str(DATA.weights_cache), f"{ARTIFACTS}/weights-cache").replace(str(DATA.artifacts), ARTIFACTS)
    return text.replace(str(DATA.api_key), "/keys/api_key")


def services(name: str = "") -> list[str]:
    return [process for process in TABLE if process not in WITHOUT_SETTINGS and process.startswith(name)]


def test_they_are_the_same_processes(deployed: dict[str, Process]):
    assert set(deployed) == set(TABLE) | EXTRA_PROCESSES


@pytest.mark.parametrize("name", services())
def test_our_commands_are_the_same(name: str, deployed: dict[str, Process]):
    expected = tuple(WORDS.get(word, word) for word in words(list(TABLE[name].command)))
    assert deployed[name].command == expected


def meant_for_the_engine(values: Mapping[str, str], deployed: dict[str, Process]) -> dict[str, str]:
    """What of `local`'s flags or environment holds for the engine that is deployed."""
    is_cpu = deployed["engine"].image.startswith("vllm/vllm-openai-cpu:")
    return {name: value for name, value in values.items() if is_cpu or name not in ONLY_ON_THE_CPU}


def flags(command: tuple[str, ...]) -> dict[str, str]:
    """Options and their values; a switch has none."""
    following = itertools.pairwise((*command, "--"))
    return {word: "" if value.startswith("--") else value for word, value in following if word.startswith("--")}


def test_the_engine_has_the_same_flags(deployed: dict[str, Process]):
    local = TABLE["engine"].command
    expected = {flag: WORDS.get(value, value) for flag, value in flags(local).items()}
    assert ONLY_ON_THE_CPU.items() <= (expected | dict(TABLE["engine"].environment)).items()
    actual = deployed["engine"].command
    assert actual[:3] == (ENGINE_PYTHON, *local[1:3])
    named = {flag: value for flag, value in flags(actual).items() if (flag, value) not in ENGINE_SHARES_ITS_GPU.items()}
    assert named == meant_for_the_engine(expected, deployed)


def test_an_engine_on_the_cpu_has_the_extension_it_is_told_to_take(rendered: dict[str, list[dict[str, Any]]]):
    documents = rendered["overlays/dev"]
    engine = kubernetes_processes(documents)["engine"]
    module = ONLY_ON_THE_CPU["--worker-extension-cls"].rpartition(".")[0]
    folder = Path(engine.environment["PYTHONPATH"], *module.split(".")[:-1])
    (mount,) = [mount for mount in engine.raw["volumeMounts"] if mount["mountPath"] == str(folder)]
    (pod,) = [
        document["spec"]["template"]["spec"]
        for document in documents
        if (document["kind"], document["metadata"]["name"]) == ("Deployment", "engine")
    ]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    (data,) = [
        document["data"] for document in documents if document["metadata"]["name"] == volume["configMap"]["name"]
    ]
    assert data == {ENGINE_EXTENSION.name: ENGINE_EXTENSION.read_text()}
    assert Path(*module.split(".")).with_suffix(".py") == ENGINE_EXTENSION.relative_to(ROOT)


def postgres_settings(command: tuple[str, ...]) -> dict[str, str]:
    following = [word for flag, word in itertools.pairwise(command) if flag == "-c"]
    return dict(word.split("=", 1) for word in following)


def test_postgres_is_configured_the_same(deployed: dict[str, Process]):
    local = postgres_settings(TABLE["postgres"].command)
    expected = {name: value for name, value in local.items() if name not in POSTGRES_OF_THE_IMAGE}
    assert postgres_settings(deployed["postgres"].command) == expected
    assert expected["fsync"] == "on"


def test_valkey_is_configured_the_same(deployed: dict[str, Process]):
    local = list(TABLE["valkey"].command[1:])
    expected = dict(zip(local[::2], local[1::2], strict=True)) | VALKEY | dict([VALKEY_EXTRA])
    program, *options = deployed["valkey"].command
    assert program == "valkey-server"
    assert dict(zip(options[::2], options[1::2], strict=True)) == expected
    assert expected["--appendonly"] == "yes"


@pytest.mark.parametrize("name", services())
def test_our_settings_are_the_same(name: str, deployed: dict[str, Process]):
    expected = {key: in_containers(value) for key, value in TABLE[name].environment.items()}
    if name in WITHOUT_DATABASE:
        del expected["HEADWATER_DATABASE_URL"]
    if name != "bootstrap":
        expected.pop(KEY_FILE, None)
    actual = {key: value for key, value in deployed[name].environment.items() if key not in DEPLOYED_ONLY}
    if name == NEEDS_ONLY_THE_DATABASE and len(actual) == 1:
        expected = {"HEADWATER_DATABASE_URL": expected["HEADWATER_DATABASE_URL"]}
    assert actual == expected


def test_the_engine_is_told_the_same_but_nothing_of_ours(deployed: dict[str, Process]):
    local = meant_for_the_engine(TABLE["engine"].environment, deployed)
    expected = {key: value for key, value in local.items() if not key.startswith("HEADWATER_")}
    told = deployed["engine"].environment
    assert {key: told.get(key) for key in expected} == expected
    assert not {"HEADWATER_SERVICE_TOKEN", "HEADWATER_DATABASE_URL", "POSTGRES_PASSWORD"} & set(told)


def settings_classes() -> set[type[BaseSettings]]:
    """Every class that reads the environment."""
    modules = (
        importlib.import_module(f"services.{path.parent.name}.settings") for path in ROOT.glob("services/*/settings.py")
    )
    return {Settings} | {
        member
        for module in modules
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, BaseSettings) and member.__module__ == module.__name__
    }


def test_every_setting_is_set(deployed: dict[str, Process]):
    names = {f"HEADWATER_{field.upper()}" for field in Settings.model_fields}
    assert names <= set(deployed["pool"].environment), (
        "a field of shared/settings.py that containers leave to its default"
    )
    assert names <= set(TABLE["pool"].environment), (
        "a field of shared/settings.py that `headwater up` leaves to its default"
    )
    known = {
        f"{kind.model_config['env_prefix']}{field.upper()}"
        for kind in settings_classes()
        for field in kind.model_fields
    }
    told = {key for process in deployed.values() for key in process.environment if key.startswith("HEADWATER_")}
    assert told <= known, "a setting nobody reads"


def expected_health(spec: ProcessSpec) -> str | None:
    match spec.ready:
        case HttpProbe(port, path):
            return f"http://127.0.0.1:{port}{path}"
        case CommandProbe(command):
            return " ".join([Path(command[0]).name, *command[1:]])
        case TcpProbe(port):
            return f"valkey-cli -p {port} ping | grep -q PONG"
        case LogProbe() if "worker" in spec.command:
            app = spec.command[spec.command.index("-A") + 1]
            host = spec.command[spec.command.index("--hostname") + 1].replace("%h", "$HOSTNAME")
            return f'python -m celery -A {app} inspect ping --destination "{host}" --timeout 10'
        case LogProbe() | ExitProbe():
            return None


@pytest.mark.parametrize("name", list(TABLE))
def test_readiness_is_asked_the_same_way(name: str, deployed: dict[str, Process]):
    expected, actual = expected_health(TABLE[name]), deployed[name].health
    if expected is None:
        assert actual is None
    else:
        assert expected in (actual or "")


def test_compose_starts_them_in_the_order_of_the_table():
    services = compose_file()["services"]
    for name, spec in TABLE.items():
        expected = {
            needed: "service_completed_successfully"
            if isinstance(TABLE[needed].ready, ExitProbe)
            else "service_healthy"
            for needed in spec.depends_on
        }
        if name == "engine":
            expected["model"] = "service_completed_successfully"
        actual = {needed: how["condition"] for needed, how in services[name].get("depends_on", {}).items()}
        assert actual == expected, name


def test_what_runs_once_is_not_started_again(rendered: dict[str, list[dict[str, Any]]]):
    services = compose_file()["services"]
    once = {name for name, spec in TABLE.items() if isinstance(spec.ready, ExitProbe)} | EXTRA_PROCESSES
    assert {name for name, service in services.items() if service["restart"] == "no"} == once
    jobs = {document["metadata"]["name"] for document in rendered["base"] if document["kind"] == "Job"}
    assert jobs == once - {"bootstrap"}, "bootstrap is the last step of the Job migrate"


def test_the_base_model_is_made_the_same_way(deployed: dict[str, Process]):
    script = deployed["model"].command[-1]
    assert script == compose_file()["services"]["model"]["command"][-1]
    assert "services.training.tiny $directory.new --seed 0" in script
    assert "services.training.gguf $directory.new" in script


def test_artifacts_are_at_one_path(deployed: dict[str, Process]):
    sharing = {name for name, process in deployed.items() if ARTIFACTS in process.mounts}
    assert sharing == {"pool", "generation", "training", "training-worker", "engine", "model"}
    assert {deployed[name].environment["HEADWATER_ARTIFACTS_URL"] for name in sharing - {"engine"}} == {ARTIFACTS}


def test_the_first_key_is_on_a_volume_of_its_own(deployed: dict[str, Process]):
    assert deployed["bootstrap"].environment[KEY_FILE] == "/keys/api_key"
    assert {name for name, process in deployed.items() if any("keys" in mount for mount in process.mounts)} == {
        "bootstrap",
        "gateway",
    }
