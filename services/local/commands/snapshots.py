"""`headwater export`: a snapshot's rows as a file, for `datasets.load_dataset` and whatever trains on it."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.local.commands.connection import DEFAULT_DATA_DIR, DataDir, gateway
from services.local.errors import LocalError
from services.local.rendering import terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.local.client import Gateway
    from shared.contracts.snapshots import Snapshot


class ExportFormat(StrEnum):
    """The snapshot's own Parquet file, or the same rows as a JSON object a line."""

    PARQUET = "parquet"
    JSONL = "jsonl"


def export(
    snapshot: Annotated[str, typer.Argument(help="Its id, or with --campaign its key.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write; one that is there is replaced.")],
    file_format: Annotated[ExportFormat, typer.Option("--format", help="How it's written.")] = ExportFormat.JSONL,
    campaign: Annotated[str | None, typer.Option("--campaign", help="Whose snapshot it is: a name or an id.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write a snapshot's rows to a file, as `datasets.load_dataset` reads and TRL trains on them."""
    with gateway(data_dir) as api:
        found = _find(api, snapshot, campaign)
        digest = write_export(api, found, file_format, out)
    if file_format is ExportFormat.PARQUET and digest != found.content_hash:
        raise LocalError(f"{out} does not have the snapshot's content hash {found.content_hash}; export it again.")
    terminal().print(f"written: {out} ({found.rows:,} rows, sha256 {digest})", highlight=False)


def write_export(api: Gateway, snapshot: Snapshot, file_format: ExportFormat, out: Path) -> str:
    """Write the file beside its name and then give it its name, so that half a file never has it; returns its sha256."""
    if out.is_dir():
        raise LocalError(f"{out} is a directory; name the file in it: --out {out / snapshot.key}.{file_format}")
    draft = out.with_name(f"{out.name}.part")
    digest = hashlib.sha256()
    try:
        with api.export(snapshot.id, file_format) as (size_bytes, chunks), draft.open("wb") as file:
            for chunk in _shown(chunks, size_bytes, snapshot.key):
                file.write(chunk)
                digest.update(chunk)
        draft.replace(out)
    except OSError as error:
        raise LocalError(f"The file {out} cannot be written: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)
    return digest.hexdigest()


def _find(api: Gateway, name: str, campaign: str | None) -> Snapshot:
    if campaign is None:
        return api.snapshot(name)
    found = api.snapshots(api.campaign(campaign).id)
    keys: list[str] = []
    for snapshot in found:
        if name in (snapshot.key, str(snapshot.id)):
            return snapshot
        keys.append(snapshot.key)
    there_are = f"there are: {', '.join(keys)}" if keys else "there is none yet"
    raise LocalError(f"Campaign {campaign!r} has no snapshot {name!r}; {there_are}.")


def _shown(chunks: Iterable[bytes], size_bytes: int | None, title: str) -> Iterable[bytes]:
    """The chunks, with a bar on a terminal; without a size it only counts."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = terminal()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), DownloadColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=size_bytes)
        for chunk in chunks:
            progress.advance(task, len(chunk))
            yield chunk
