"""`headwater export`: the whole file under its name, or none and a sentence."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from services.local.client import Gateway
from services.local.commands.snapshots import ExportFormat, _find, write_export
from services.local.errors import LocalError
from shared.contracts.listing import SnapshotPage
from shared.contracts.snapshots import Snapshot, SnapshotRecipe, SnapshotStatus
from tests.unit.local.samples import NUMBER

CONTENT = b"rows " * 100_000


def snapshot(number: int) -> Snapshot:
    return Snapshot(
        id=UUID(int=number),
        campaign_id=NUMBER,
        key=f"sft-{number}",
        recipe=SnapshotRecipe.DISTILL,
        status=SnapshotStatus.READY,
        content_hash=hashlib.sha256(CONTENT).hexdigest(),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def gateway(answer: Callable[[httpx.Request], httpx.Response]) -> Gateway:
    return Gateway("http://gateway", "hw_key", httpx.MockTransport(answer))


@pytest.mark.parametrize("file_format", ExportFormat)
def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path, file_format: ExportFormat):
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.url.path, request.url.params["format"]) == (f"/v1/snapshots/{UUID(int=1)}/export", file_format)
        return httpx.Response(200, content=CONTENT)

    with gateway(answer) as api:
        digest = write_export(api, snapshot(1), file_format, tmp_path / "rows")
    assert digest == snapshot(1).content_hash
    assert (tmp_path / "rows").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


@pytest.mark.parametrize("out", [".", "/"])
def test_a_directory_is_no_file(out: str):
    with gateway(lambda _: httpx.Response(200, content=CONTENT)) as api, pytest.raises(LocalError, match="directory"):
        write_export(api, snapshot(1), ExportFormat.JSONL, Path(out))


def test_an_answer_that_ends_too_early_leaves_the_file_as_it_was(tmp_path: Path):
    def pieces() -> Iterator[bytes]:
        yield CONTENT
        raise httpx.ReadError("connection reset")

    (tmp_path / "rows").write_bytes(b"before")
    with (
        gateway(lambda _: httpx.Response(200, content=pieces())) as api,
        pytest.raises(LocalError, match="before it was whole"),
    ):
        write_export(api, snapshot(1), ExportFormat.JSONL, tmp_path / "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    assert (tmp_path / "rows").read_bytes() == b"before"


def test_what_goes_wrong_is_a_sentence(tmp_path: Path):
    body = {"error": {"code": "snapshot_not_ready", "message": "Snapshot 'sft' is building.", "details": []}}
    with gateway(lambda _: httpx.Response(409, json=body)) as api, pytest.raises(LocalError, match="is building"):
        write_export(api, snapshot(1), ExportFormat.JSONL, tmp_path / "rows")
    with (
        gateway(lambda _: httpx.Response(200, content=CONTENT)) as api,
        pytest.raises(LocalError, match=r"missing/rows cannot be written: No such file"),
    ):
        write_export(api, snapshot(1), ExportFormat.JSONL, tmp_path / "missing" / "rows")


def test_a_snapshot_is_found_by_its_key_on_any_page():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(str(UUID(int=9))):
            return httpx.Response(200, content=snapshot(9).model_dump_json())
        assert request.url.params["campaign"] == str(NUMBER)
        after = UUID(request.url.params.get("after", str(UUID(int=0)))).int
        following = str(UUID(int=after + 2)) if after < 4 else None
        page = SnapshotPage(items=(snapshot(after + 1), snapshot(after + 2)), next=following)
        return httpx.Response(200, content=page.model_dump_json())

    with gateway(answer) as api:
        assert [found.key for found in api.snapshots(NUMBER)] == [f"sft-{number}" for number in range(1, 7)]
        assert _find(api, str(UUID(int=9)), None) == snapshot(9)
        with pytest.raises(LocalError, match="'sft-1' is no id of a snapshot"):
            _find(api, "sft-1", None)
