"""Artifacts: checkpoints and snapshots through fsspec, content hash beside each, verified on load.

A directory artifact's hash is the sha256 over the sorted (relative path, file sha256) pairs.
"""

import hashlib
import tempfile
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
    """A local directory with the artifact's files, verified. A local uri is used in place; others are kept in `cache`.

    Raises: HeadwaterError `artifact_missing` / `artifact_damaged`.
    """
    filesystem, root = fsspec.core.url_to_fs(uri)
    if not filesystem.exists(root):
        raise HeadwaterError("artifact_missing", f"There is nothing at {uri}.", 409)
    if "file" in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)):
        _require_hash(Path(root), uri, content_hash)
        return Path(root)
    if content_hash and (cache / content_hash).is_dir():
        _require_hash(cache / content_hash, uri, content_hash)
        return cache / content_hash
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="incoming-", ignore_cleanup_errors=True) as scratch:
        fetched = Path(scratch) / "files"
        filesystem.get(f"{root}/", f"{fetched}/", recursive=True)
        kept = cache / _require_hash(fetched, uri, content_hash)
        try:
            fetched.rename(kept)
        except OSError:
            if not kept.is_dir():  # else another process was faster
                raise
    return kept


def _require_hash(directory: Path, uri: str, content_hash: str) -> str:
    found = hash_directory(directory)
    if content_hash and found != content_hash:
        raise HeadwaterError(
            "artifact_damaged", f"The files at {uri} do not have the content hash {content_hash[:12]}.", 409
        )
    return found
