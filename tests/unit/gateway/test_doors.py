"""Which paths have a door."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.doors import door_for
from shared.errors import HeadwaterError

INTERNAL = ("assignments", "lineage", "samples", "verdicts", "", ".", "..", "health", "metrics")
SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/%\\"), max_size=8)


@given(st.sampled_from(["GET", "POST", "PUT", "DELETE"]), st.sampled_from(INTERNAL), st.lists(SEGMENT, max_size=3))
def test_internal_paths_have_none(method: str, first: str, rest: list[str]):
    with pytest.raises(HeadwaterError) as refused:
        door_for(method, "/".join(["/v1", first, *rest]))
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("method", "path", "service"),
    [
        ("POST", "/v1/campaigns/sums/resume", "cascade"),
        ("GET", "/v1/orders/1/metrics", "pool"),
        ("POST", "/v1/snapshots", "pool"),
        ("GET", "/v1/snapshots/1/export", "pool"),
        ("POST", "/v1/policies/1/live", "generation"),
        ("POST", "/v1/chat/completions", "generation"),
        ("POST", "/v1/completions", "generation"),
        ("POST", "/v1/runs/1/cancel", "training"),
        ("GET", "/v1/questions/1/lineage", "cascade"),
        ("POST", "/v1/questions/1/retract", "cascade"),
        ("POST", "/v1/questions/retract", "cascade"),
        ("GET", "/v1/questions/1/difficulty", "pool"),
        ("GET", "/v1/questions/lineage", "pool"),
        ("GET", "/v1/pools/difficulty", "pool"),
        ("GET", "/v1/policies/1/lineage", "cascade"),
        ("GET", "/v1/policies/1", "generation"),
        ("GET", "/v1/campaigns/caf%C3%A9", "cascade"),
    ],
)
def test_public_paths_have_one(method: str, path: str, service: str):
    assert door_for(method, path).service == service


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/campaigns/1/settings"),
        ("POST", "/v1/orders"),
        ("POST", "/v1/batches"),
        ("DELETE", "/v1/runs/1"),
    ],
)
def test_other_methods_are_refused(method: str, path: str):
    with pytest.raises(HeadwaterError) as refused:
        door_for(method, path)
    assert refused.value.status == 405


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_the_list_of_batches_is_public(method: str):
    with pytest.raises(HeadwaterError) as refused:
        door_for(method, "/v1/batches/lease")
    assert refused.value.status == 404
