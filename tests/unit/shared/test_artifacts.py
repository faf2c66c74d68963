"""Remote artifacts: nothing is in the cache that was not verified."""

from pathlib import Path

import fsspec
import pytest

from shared.artifacts import fetch_directory, hash_directory, publish_directory
from shared.errors import HeadwaterError


def test_a_remote_artifact_is_kept_only_when_it_is_what_it_should_be(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "file").write_text("weights")
    uri, content_hash = publish_directory(made, "memory://artifacts", "policy")
    cache = tmp_path / "cache"
    fetched = fetch_directory(uri, content_hash, cache)
    assert fetched == cache / content_hash == fetch_directory(uri, content_hash, cache)
    assert hash_directory(fetched) == content_hash
    fsspec.filesystem("memory").pipe_file(f"{uri.removeprefix('memory:/')}/sub/file", b"other")
    for wrong in (content_hash, "../elsewhere"):
        with pytest.raises(HeadwaterError, match="content hash"):
            fetch_directory(uri, wrong, tmp_path / "fresh")
    assert list((tmp_path / "fresh").iterdir()) == []
    assert not (tmp_path / "elsewhere").exists()
