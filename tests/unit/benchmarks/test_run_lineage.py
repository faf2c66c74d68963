"""Each check of a run's rows finds what it is there for, and nothing in a run where all is well."""

import copy
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from benchmarks.run_lineage import CHECKS, Evidence, Seen, problems
from shared.contracts.recipe import RlRecipe
from shared.contracts.runs import RunIn, RunMethod

STEPS, GROUPS, K = 4, 2, 3
SAMPLE = {"response_tokens": 40.5, "unparsed_rate": 0.0, "staleness_mean": 0.0, "accuracy": 0.5}


def whole_run() -> Evidence:
    """Four steps of two groups; a version is published after two of them, and at the end."""
    recipe = RlRecipe(steps=STEPS, groups_per_step=GROUPS, k=K, publish_every_steps=2, max_staleness=1)
    spec = RunIn(
        campaign_id=uuid4(),
        key="rl",
        method=RunMethod.RL,
        start_policy_id=uuid4(),
        order_id=uuid4(),
        rl=recipe,
        publish_name="rl",
        first_version=3,
    )
    groups = [(step, f"g{step}{number}", 2 + step // 2) for step in range(STEPS) for number in range(GROUPS)]
    states = {"consumption": "consumed", "drop_reason": None, "responses": K}
    rows: dict[str, list[Any]] = {
        "runs": [{"state": "succeeded", "step": STEPS, "spec": spec.model_dump_json(), "policy_version": 4}],
        "points": [{"step": step + 1, "values": json.dumps(SAMPLE)} for step in range(STEPS)],
        "samples": [{"step": step, **SAMPLE} for step in range(STEPS)],
        "batches": [{"step": step, "state": "acknowledged"} for step in range(STEPS)],
        "batch_groups": [
            {"step": step, "state": "acknowledged", "group_id": group, "staleness": 0, "versions_behind": 0}
            for step, group, _ in groups
        ],
        "groups": [
            {"id": group, "assignment_id": f"a{group}", "policy_id": f"p{version}", "policy_version": version, **states}
            for _, group, version in groups
        ],
        "done": [{"id": f"a{group}"} for _, group, _ in groups],
        "policies": [
            {"id": f"p{version}", "version": version, "content_hash": f"h{version}", "is_ours": version > 2}
            for version in (2, 3, 4)
        ],
    }
    acknowledged = {step: {group for at, group, _ in groups if at == step} for step in range(STEPS)}
    seen = Seen({group for _, group, _ in groups}, acknowledged, {f"p{version}": f"h{version}" for version in (2, 3)})
    return Evidence(rows, seen)


def set_in(table: str, number: int, **values: Any) -> Callable[[Any], None]:
    return lambda rows: rows[table][number].update(values)


def gone(table: str, number: int) -> Callable[[Any], None]:
    return lambda rows: rows[table].pop(number)


def twice(table: str, number: int, **values: Any) -> Callable[[Any], None]:
    return lambda rows: rows[table].append(rows[table][number] | values)


def other_tokens(rows: Any) -> None:
    rows["points"][1]["values"] = json.dumps(SAMPLE | {"response_tokens": 41.5})


WRONGS: list[tuple[str, Callable[[Any], None]]] = [
    ("wrong_steps", gone("batches", 3)),
    ("wrong_steps", set_in("batches", 1, state="leased")),
    ("wrong_steps", gone("batch_groups", 0)),
    ("wrong_steps", set_in("runs", 0, state="failed")),
    ("trained_twice", twice("batch_groups", 0, step=3)),
    ("trained_on_others", other_tokens),
    ("trained_on_others", gone("points", 3)),
    ("skipped", set_in("groups", 0, consumption="waiting")),
    ("skipped", twice("groups", 0, id="other")),
    ("skipped", twice("groups", 0, id="other", consumption="leased")),
    ("skipped", twice("groups", 0, id="other", consumption="dropped")),
    ("broken_bound", set_in("batch_groups", 0, staleness=2, versions_behind=2)),
    ("broken_bound", set_in("batch_groups", 0, versions_behind=1)),
    ("mixed_policies", set_in("groups", 0, policy_version=3)),
    ("mixed_policies", twice("policies", 2)),
    ("mixed_policies", set_in("runs", 0, policy_version=3)),
    ("half_groups", set_in("groups", 0, responses=K - 1)),
    ("half_groups", twice("groups", 0, id="other")),
    ("half_groups", gone("done", 0)),
    ("lost", gone("groups", 0)),
    ("lost", set_in("batch_groups", 0, group_id="other")),
    ("lost", set_in("policies", 0, content_hash="other")),
]


def test_a_run_where_all_is_well_has_no_problems() -> None:
    evidence = whole_run()
    assert problems(evidence) == {check.__name__: [] for check in CHECKS}
    assert Evidence.restore(json.loads(json.dumps(evidence.dump()))) == evidence


@pytest.mark.parametrize(("check", "wrong"), WRONGS)
def test_what_is_wrong_is_found(check: str, wrong: Callable[[Any], None]) -> None:
    evidence = copy.deepcopy(whole_run())
    wrong(evidence.rows)
    assert problems(evidence)[check]
