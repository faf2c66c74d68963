"""Artifacts: checkpoints and snapshots through fsspec, content hash beside each, verified on load.

A directory artifact's hash is the sha256 over the sorted (relative path, file sha256) pairs.
"""

import hashlib
from pathlib import Path

import fsspec

from shared.errors import HeadwaterError

HASH_FILE = "CONTENT_HASH"
_CHUNK_BYTES = 1 << 20


def hash_file(path: Path) -> str:
    """sha256 of one local file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def hash_directory(directory: Path) -> str:
    """Content hash of a local directory, leaving out its own hash file."""
    digest = hashlib.sha256()
    for path in sorted(item for item in directory.rglob("*") if item.is_file() and item.name != HASH_FILE):
        digest.update(f"{path.relative_to(directory).as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def publish_directory(local: Path, artifacts_url: str, name: str) -> tuple[str, str]:
    """Copy `local` to `artifacts_url/name-<hash12>`; returns (uri, content hash). Publishing twice is harmless."""
    content_hash = hash_directory(local)
    uri = f"{artifacts_url.rstrip('/')}/{name}-{content_hash[:12]}"
    filesystem, root = fsspec.core.url_to_fs(uri)
    if not filesystem.exists(f"{root}/{HASH_FILE}"):
        filesystem.makedirs(root, exist_ok=True)
        for path in sorted(item for item in local.rglob("*") if item.is_file() and item.name != HASH_FILE):
            target = f"{root}/{path.relative_to(local).as_posix()}"
            filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            filesystem.put_file(str(path), target)
        # The hash file is written last: a directory without it is unfinished.
        filesystem.pipe_file(f"{root}/{HASH_FILE}", content_hash.encode())
    return uri, content_hash


def fetch_directory(uri: str, content_hash: str, cache: Path) -> Path:
    """A local directory with the artifact's files, verified. A local uri is used in place.

    Raises: HeadwaterError `artifact_missing` / `artifact_damaged`.
    """
    filesystem, root = fsspec.core.url_to_fs(uri)
    if not filesystem.exists(root):
        raise HeadwaterError("artifact_missing", f"There is nothing at {uri}.", 409)
    if "file" in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)):
        local = Path(root)
    else:
        local = cache / content_hash
        if not (local / HASH_FILE).exists():
            filesystem.get(f"{root}/", f"{local}/", recursive=True)
    if content_hash and hash_directory(local) != content_hash:
        raise HeadwaterError(
            "artifact_damaged", f"The files at {uri} do not have the content hash {content_hash[:12]}.", 409
        )
    return local
