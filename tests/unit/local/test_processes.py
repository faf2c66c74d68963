"""The process table is data that others rely on: names, addresses, dependencies, secrets."""

from pathlib import Path

import pytest

from services.local.directory import DataDirectory
from services.local.engine import EngineModel
from services.local.ports import DEFAULT_PORTS
from services.local.processes import HttpProbe, ProcessSpec, StackSettings, process_table
from shared.settings import Settings

SETTINGS = StackSettings(
    DataDirectory(Path("/data")),
    EngineModel("tiny", "/data/models/tiny", context_tokens=512),
    postgres_password="pg-secret",
    service_token="token-secret",
    flower_password="flower-secret",
)
TABLE = {spec.name: spec for spec in process_table(SETTINGS)}


def test_every_service_and_server_has_its_process():
    assert list(TABLE) == [
        *("postgres", "valkey", "migrate", "bootstrap", "engine"),
        *("pool", "generation", "verification", "training", "cascade", "gateway"),
        *("sampling-worker", "cascade-worker", "training-worker", "beat", "flower"),
    ]


@pytest.mark.parametrize("spec", TABLE.values(), ids=TABLE)
def test_dependencies_exist_and_come_first(spec: ProcessSpec):
    assert set(spec.depends_on) <= set(list(TABLE)[: list(TABLE).index(spec.name)]) | {"engine"}


@pytest.mark.parametrize("spec", TABLE.values(), ids=TABLE)
def test_no_secret_is_on_a_command_line(spec: ProcessSpec):
    assert "secret" not in " ".join(spec.command)


@pytest.mark.parametrize("spec", [s for s in TABLE.values() if s.port], ids=lambda spec: spec.name)
def test_servers_listen_on_this_machine_only(spec: ProcessSpec):
    words = " ".join(spec.command)
    assert "127.0.0.1" in words
    assert "0.0.0.0" not in words
    assert str(spec.port) in words
    if isinstance(spec.ready, HttpProbe):
        assert spec.ready.port == spec.port


def test_the_default_addresses_are_those_of_the_settings():
    environment = TABLE["gateway"].environment
    for name, value in Settings().model_dump().items():
        key = f"HEADWATER_{name.upper()}"
        assert key in environment
        if name.endswith("_url") and name not in ("database_url", "artifacts_url"):
            assert environment[key] == value
    assert set(DEFAULT_PORTS) >= {spec.name for spec in TABLE.values() if spec.port}


def test_the_engine_takes_adapters_at_run_time_and_never_prefills_in_chunks():
    engine = TABLE["engine"]
    assert {"--enable-lora", "--no-enable-chunked-prefill"} <= set(engine.command)
    assert engine.command[engine.command.index("--max-model-len") + 1] == "512"
    assert engine.command[engine.command.index("--logprobs-mode") + 1] == "raw_logprobs", "RL's ratios are to these"
    assert engine.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


def test_every_process_with_torch_waits_passively():
    assert all(TABLE[name].environment["OMP_WAIT_POLICY"] == "passive" for name in ("engine", "training-worker"))


def test_training_needs_memory_for_a_trainer_and_the_weights():
    def needed(weights_bytes: int) -> int:
        model = EngineModel("some", "/data/models/some", weights_bytes=weights_bytes)
        table = {spec.name: spec for spec in process_table(StackSettings(DataDirectory(Path("/data")), model))}
        return table["training-worker"].memory_bytes

    assert needed(0) >= 1 << 30
    assert needed(7 << 30) == needed(0) + (7 << 30)


def test_a_machine_of_eight_gigabytes_is_enough_for_the_tiny_model():
    assert sum(spec.memory_bytes for spec in TABLE.values()) < 7 << 30
