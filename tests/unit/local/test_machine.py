"""Ports, memory, disk, secrets, restarts: what is decided before and between starts."""

import functools
import socket
import stat
from pathlib import Path

import huggingface_hub
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.local import resources
from services.local.directory import DataDirectory
from services.local.engine import make_model
from services.local.errors import LocalError
from services.local.ports import choose_ports
from services.local.processes import ExitProbe, ProcessSpec, StackSettings, process_table
from services.local.state import StackState, exclusive, load_state
from services.local.supervisor import RestartLimit, Restarts


def test_a_taken_port_is_replaced_and_all_are_different():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        ports = choose_ports({"pool": taken, "gateway": taken})
    assert taken not in ports.values()
    assert len(set(ports.values())) == 2


def test_too_little_memory_is_said_in_one_sentence():
    specs = [ProcessSpec("engine", (), ExitProbe(), memory_bytes=4 << 30), ProcessSpec("pool", (), ExitProbe())]
    resources.check_memory(specs, 5 << 30)
    with pytest.raises(LocalError, match=r"needs about 4\.1 GB \(4\.0 GB of it for engine\) and 2\.0 GB are free"):
        resources.check_memory(specs, 2 << 30)


@pytest.mark.parametrize(
    ("directory", "limit", "usage", "cached"),
    [
        (".", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
    ids=["version 2", "version 1"],
)
def test_a_container_has_what_is_left_of_its_limit_and_what_only_caches_files(
    tmp_path: Path, directory: str, limit: str, usage: str, cached: str
):
    cgroup = tmp_path / directory
    cgroup.mkdir(exist_ok=True)
    (cgroup / limit).write_text(f"{100 << 20}\n")
    (cgroup / usage).write_text(f"{90 << 20}\n")
    (cgroup / "memory.stat").write_text(f"anon 1\nactive_file 7\n{cached} {50 << 20}\n")
    assert resources.available_memory_bytes(tmp_path) == 60 << 20


@pytest.mark.parametrize("unlimited", ["max", str((1 << 63) - 4096)])
def test_a_container_without_a_limit_has_the_machine(tmp_path: Path, unlimited: str):
    name = "memory.max" if unlimited == "max" else "memory/memory.limit_in_bytes"
    (tmp_path / "memory").mkdir()
    (tmp_path / name).write_text(unlimited)
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("0")
    (tmp_path / "memory" / "memory.stat").write_text("total_inactive_file 0")
    assert resources.available_memory_bytes(tmp_path) > 100 << 20


def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path):
    resources.check_disk(tmp_path, 1)
    with pytest.raises(LocalError, match=f"The disk of {tmp_path} has .* free and Headwater wants"):
        resources.check_disk(tmp_path, 1 << 60)


def test_secrets_are_private_and_stay(tmp_path: Path):
    directory = DataDirectory.at(tmp_path)
    secret = directory.secret("service_token")
    path = tmp_path / "secrets" / "service_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert directory.secret("service_token") == secret
    assert directory.secret("other") != secret


def test_state_comes_back_as_it_was_saved(tmp_path: Path):
    directory = DataDirectory.at(tmp_path)
    directory.create()
    assert load_state(directory) is None
    state = StackState("run", 1, "2", "tiny", ports={"pool": 1})
    state.save(directory)
    assert load_state(directory) == state


def test_a_directory_is_held_once(tmp_path: Path):
    directory = DataDirectory.at(tmp_path)
    directory.create()
    with exclusive(directory), pytest.raises(LocalError, match="already runs on"), exclusive(directory):
        pass
    with exclusive(directory):
        pass


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40))
def test_restarts_are_limited_within_the_window_and_wait_longer_each_time(gaps_s: list[float]):
    limit = RestartLimit(restarts=3, window_s=60, first_delay_s=1, max_delay_s=3)
    restarts, now = Restarts(limit), 0.0
    granted: list[float] = []
    for gap_s in gaps_s:
        now += gap_s
        delay_s = restarts.next_delay_s(now)
        recent = [time for time in granted if now - time <= limit.window_s]
        assert (delay_s is None) == (len(recent) >= limit.restarts)
        if delay_s is not None:
            assert delay_s == [1, 2, 3][len(recent)]
            granted.append(now)


def test_a_model_that_is_not_there_is_named(tmp_path: Path):
    directory = DataDirectory.at(tmp_path)
    with pytest.raises(LocalError, match=r"There is no model directory '\./nothing'"):
        make_model("./nothing", directory, 0)
    with pytest.raises(LocalError, match="is not a model directory"):
        make_model(str(tmp_path), directory, 0)


@pytest.mark.parametrize(
    ("configuration", "cause"),
    [
        ("[]", "its config.json is not a JSON object"),
        ("{", "its config.json cannot be read"),
        (
            '{"max_position_embeddings": null}',
            "max_position_embeddings in its config.json is null, not a number of tokens",
        ),
        ("{}", r"it has no weights \(\*\.safetensors\)"),
    ],
)
def test_a_directory_that_is_no_model_is_one_sentence(tmp_path: Path, configuration: str, cause: str):
    (tmp_path / "config.json").write_text(configuration)
    with pytest.raises(LocalError, match=f"{tmp_path} is not a model directory: {cause}"):
        make_model(str(tmp_path), DataDirectory.at(tmp_path), 0)


def test_a_model_larger_than_the_memory_is_refused_before_anything_starts(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    for part in (1, 2):
        with (tmp_path / f"model-0000{part}-of-00002.safetensors").open("wb") as weights:
            weights.truncate(7 << 30)  # a file of holes
    model = make_model(str(tmp_path), DataDirectory.at(tmp_path), 0)
    assert (model.weights_bytes, model.memory_bytes) == (14 << 30, 35 << 29)
    table = process_table(StackSettings(DataDirectory.at(tmp_path), model))
    with pytest.raises(LocalError, match=r"17\.5 GB of it for engine.* take a smaller model"):
        resources.check_memory(table, 16 << 30)


def test_a_model_of_the_hub_is_a_directory_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    directory = DataDirectory.at(tmp_path)
    asked: list[str] = []

    def download(name: str, *, local_dir: Path, allow_patterns: list[str]) -> str:
        asked.append(name)
        local_dir.mkdir(parents=True)
        (local_dir / "config.json").write_text('{"max_position_embeddings": 512}')
        (local_dir / "model.safetensors").write_bytes(b"weights")
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    models = [make_model("Qwen/Qwen3-0.6B", directory, 0) for _ in range(2)]
    assert models[0] == models[1]
    assert (models[0].name, models[0].context_tokens) == ("Qwen/Qwen3-0.6B", 512)
    assert (Path(models[0].path) / "config.json").exists()
    assert asked == ["Qwen/Qwen3-0.6B"], "once"


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    download = functools.partial(huggingface_hub.snapshot_download, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(LocalError, match=r"The model 'Qwen/Qwen3' is not .* cannot be had from the hub: .*without one"):
        make_model("Qwen/Qwen3", DataDirectory.at(tmp_path), 0)


def test_lives_that_never_were_ready_are_counted_without_a_window():
    restarts = Restarts(RestartLimit())
    assert restarts.next_delay_s(900.0, unready_since=0.0) is not None
    assert restarts.next_delay_s(1000.0) is not None, "it was ready: the row begins anew"
    for now in (2000.0, 3000.0):
        assert restarts.next_delay_s(now, unready_since=now - 900) is not None
    assert restarts.next_delay_s(4000.0, unready_since=3100.0) is None


def test_quick_refusals_at_the_start_are_left_to_the_back_off():
    restarts = Restarts(RestartLimit())
    delays_s = [restarts.next_delay_s(now, unready_since=now) for now in (0.0, 0.5, 1.5, 3.5)]
    assert delays_s == [0.5, 1.0, 2.0, 4.0]
