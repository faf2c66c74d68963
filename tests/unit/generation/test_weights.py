"""What removing weights leaves: every file of every policy whose weights are kept."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.generation.service.weights import WeightsStore

PLACES = [
    "policies/a",
    "policies/a/b",
    "policies/a/b/c",
    "policies/ab",
    "policies/d",
    "policies/engine",
    "runs/a",
    "policies",
    "policies/../runs/a",
]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(PLACES), st.sets(st.sampled_from(PLACES)), st.booleans())
def test_no_file_of_a_kept_policy_is_removed(removed: str, kept: set[str], is_url: bool) -> None:
    with TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        for place in PLACES:
            (root / place).mkdir(parents=True, exist_ok=True)
            (root / place / "model.safetensors").write_bytes(b"weights")
        address = f"file://{root}" if is_url else str(root)
        store = WeightsStore(root / "cache", address, root / "policies/engine")
        for _ in range(2):
            store.remove(
                f"{address}/{removed}",
                "1" * 64,
                [(f"{address}/{place}", "2" * 64) for place in kept],
            )
        left = {place for place in PLACES if (root / place / "model.safetensors").exists()}
        assert kept <= left
        assert "runs/a" in left, "only published policies are ever removed"
        assert "policies/engine" in left, "the engine was started with it"
        overlaps = any(
            place == removed or place.startswith(f"{removed}/") or removed.startswith(f"{place}/") for place in kept
        )
        if removed in ("policies/ab", "policies/d", "policies/a", "policies/a/b", "policies/a/b/c") and not overlaps:
            assert removed not in left


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_fetched_copy_stays_for_those_of_the_same_content(tmp_path: Path, is_shared: bool) -> None:
    copy = tmp_path / "cache" / ("1" * 64)
    shutil.copytree(Path(__file__).parent, copy, ignore=shutil.ignore_patterns("*.pyc"))
    kept = [("s3://bucket/policies/other", "1" * 64 if is_shared else "2" * 64)]
    WeightsStore(tmp_path / "cache", str(tmp_path), None).remove(str(tmp_path / "policies/one"), "1" * 64, kept)
    assert copy.exists() == is_shared
