"""One of everything that a request can name: a campaign, its question, policy, orders, a group, a batch, a snapshot, a run."""

from typing import Any

import httpx

from tests.integration.openapi.conftest import Apis
from tests.integration.pool.client import group

WAIT_S = 120.0


def make(apis: Apis) -> dict[str, str]:
    """Ids by the name of the parameter or field that takes them."""

    def ask(service: str, method: str, path: str, **request: Any) -> Any:
        answer = httpx.request(method, f"{apis.urls[service]}{path}", timeout=WAIT_S, trust_env=False, **request)
        assert answer.is_success, answer.text
        return answer.json()

    campaign = ask("cascade", "POST", "/v1/campaigns", json={"name": "things", "recipe": {}})["id"]
    question = {"question": "What is 1+1?", "answer": "2"}
    ask("pool", "POST", "/v1/questions", params={"campaign": campaign}, json=question)
    [stored] = ask("pool", "GET", "/v1/questions", params={"campaign": campaign})["items"]
    policy_in = {"campaign_id": campaign, "name": "reference", "kind": "reference"}
    policy = ask("generation", "POST", "/v1/policies", json=policy_in)["id"]
    engine = ask("generation", "GET", "/v1/engine")
    weights = {"uri": engine["uri"], "content_hash": engine["content_hash"]}
    base_in = {"campaign_id": campaign, "name": "base", "kind": "base"} | weights
    base = ask("generation", "POST", "/v1/policies", json=base_in)["id"]
    order_in = {"campaign_id": campaign, "policy_id": policy, "policy_version": 0, "k": 2, "sampling": {}}
    finite = ask("pool", "POST", "/v1/orders", json=order_in | {"key": "probe", "purpose": "probe"})["id"]
    standing_in = order_in | {"key": "rollout", "purpose": "rollout", "watermark_groups": 2}
    order = ask("pool", "POST", "/v1/orders", json=standing_in)["id"]
    claim = {"worker": "things", "limit": 10}
    assignments = ask("pool", "POST", "/v1/assignments/claim", json=claim)["assignments"]
    groups = {"groups": [group(assignment) for assignment in assignments]}
    receipts = ask("pool", "POST", "/v1/groups", json=groups)["receipts"]
    snapshot_in = {"campaign_id": campaign, "key": "things", "recipe": "rejection", "order_id": finite}
    snapshot = ask("pool", "POST", "/v1/snapshots", json=snapshot_in)["id"]
    run_in = {"campaign_id": campaign, "key": "things", "method": "rl", "start_policy_id": base, "order_id": order}
    run_in |= {"rl": {"k": 2, "groups_per_step": 1}, "publish_name": "things", "first_version": 1}
    run = ask("training", "POST", "/v1/runs", json=run_in)["id"]
    lease = {"order_id": order, "run_id": run, "step": 0, "fence": 1, "groups": 1, "policy_version": 0}
    batch = ask("pool", "POST", "/v1/batches/lease", json=lease | {"max_staleness": 0})["batch_id"]
    assert batch is not None, "no group waits"
    [held, *_] = ask("pool", "POST", "/v1/assignments/claim", json=claim)["assignments"]
    ids = {"campaign": campaign, "question": stored["id"], "policy": policy, "order": order, "snapshot": snapshot}
    ids |= {"run": run, "batch": batch, "group": receipts[0]["group_id"], "assignment": held["id"]}
    named = {name: one for thing, one in ids.items() for name in (thing, f"{thing}_id")}
    return named | {"start_policy_id": base, "lease_token": held["lease_token"]}


def named(value: Any, ids: dict[str, str]) -> Any:
    """A JSON value with these ids wherever a field is named like one."""
    if isinstance(value, dict):
        return {key: ids[key] if key in ids else named(part, ids) for key, part in value.items()}
    if isinstance(value, list):
        return [named(part, ids) for part in value]
    return value
