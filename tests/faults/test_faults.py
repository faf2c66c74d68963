"""`kill -9` of Postgres, the pool, samplers and trainers, and a wiped Valkey: nothing lost, doubled, trained twice or too old.

The long form is `python -m benchmarks.pool_faults`.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.faults.checks import CHECKS, problems
from tests.faults.facts import Evidence, read_stored
from tests.faults.world import KILLED, Plan, World, running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
PLAN = Plan(items=1200, kills=8, seed=1, groups_a_version=48, watermark=96)


@dataclass(frozen=True)
class Ended:
    """A run that has ended, with its servers still up."""

    world: World
    evidence: Evidence


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    with running(PLAN, tmp_path_factory.mktemp("faults")) as world:
        world.run()
        yield Ended(world, world.evidence())


def test_nothing_is_lost_doubled_trained_twice_or_too_old(ended: Ended):
    assert problems(ended.evidence) == {check.__name__: [] for check in CHECKS}


def test_the_run_was_what_it_claims_to_be(ended: Ended):
    evidence, kills = ended.evidence, ended.world.kills
    assert sum(kills.values()) == PLAN.kills
    assert set(kills) == set(KILLED)
    assert len(evidence.stored.groups) >= PLAN.items
    assert sum(len(checkpoint["groups"]) for checkpoint in evidence.checkpoints) >= PLAN.items / 2
    assert {group["drop_reason"] for group in evidence.stored.groups} >= {"stale", None}
    assert len({group["policy_version"] for group in evidence.stored.groups}) > 4


# Each corrupts the database under the eyes of a check; what it does is rolled back.
CORRUPT_ROWS = {
    "a question is gone": ("lost_questions", "UPDATE pool.questions SET text = 'other' WHERE position = 3"),
    "an order is gone": (
        "lost_orders",
        (
            "UPDATE pool.assignments SET order_id = (SELECT id FROM pool.orders WHERE key = 'rollouts') "
            "WHERE order_id = (SELECT id FROM pool.orders WHERE key = 'probe-0')"
        ),
    ),
    "an assignment is left open": (
        "lost_orders",
        "UPDATE pool.assignments SET state = 'leased' WHERE id = (SELECT id FROM pool.assignments WHERE state = 'done' LIMIT 1)",
    ),
    "a group is another": (
        "lost_groups",
        "UPDATE pool.assignments SET state = 'dead' WHERE id = (SELECT assignment_id FROM pool.groups LIMIT 1)",
    ),
    "a response is gone": (
        "lost_groups",
        "DELETE FROM pool.responses WHERE position = 1 AND group_id = (SELECT id FROM pool.groups LIMIT 1)",
    ),
    "a group is consumed without a checkpoint": (
        "skipped",
        (
            "UPDATE pool.groups SET consumption = 'consumed' "
            "WHERE id = (SELECT id FROM pool.groups WHERE consumption <> 'consumed' LIMIT 1)"
        ),
    ),
    "a trained group waits again": (
        "skipped",
        (
            "UPDATE pool.groups SET consumption = 'waiting' "
            "WHERE id = (SELECT id FROM pool.groups WHERE consumption = 'consumed' LIMIT 1)"
        ),
    ),
    "a group is dropped for nothing": (
        "skipped",
        (
            "UPDATE pool.groups SET drop_reason = NULL "
            "WHERE id = (SELECT id FROM pool.groups WHERE consumption = 'dropped' LIMIT 1)"
        ),
    ),
    "an acknowledged batch is released": (
        "lost_acknowledgements",
        "UPDATE pool.batches SET state = 'released' WHERE id = (SELECT id FROM pool.batches WHERE state = 'acknowledged' LIMIT 1)",
    ),
    "a batch has lost a group": (
        "lost_acknowledgements",
        "DELETE FROM pool.batch_groups WHERE group_id = (SELECT group_id FROM pool.batch_groups LIMIT 1)",
    ),
    "a batch is too old": (
        "broken_bound",
        "UPDATE pool.batch_groups SET staleness = 2 WHERE group_id = (SELECT group_id FROM pool.batch_groups LIMIT 1)",
    ),
    "a fresh group is dropped as stale": (
        "broken_bound",
        (
            "UPDATE pool.groups SET policy_version = 1000 "
            "WHERE id = (SELECT id FROM pool.groups WHERE drop_reason = 'stale' LIMIT 1)"
        ),
    ),
    "an order counts too many": (
        "wrong_counters",
        "UPDATE pool.assignments SET state = 'dead' WHERE id = (SELECT id FROM pool.assignments WHERE state = 'done' LIMIT 1)",
    ),
    "the pool counts too many": (
        "wrong_counters",
        "UPDATE pool.questions SET state = 'hard' WHERE id = (SELECT id FROM pool.questions WHERE state <> 'hard' LIMIT 1)",
    ),
}


@pytest.mark.parametrize("name", CORRUPT_ROWS)
async def test_a_corrupt_row_is_noticed(ended: Ended, name: str):
    check, statement = CORRUPT_ROWS[name]
    engine = create_async_engine(ended.world.postgres.url)
    async with engine.connect() as connection:
        changed = await connection.execute(text(statement))
        assert changed.rowcount, "nothing was corrupted"
        found = problems(replace(ended.evidence, stored=await read_stored(connection)))
        await connection.rollback()
    await engine.dispose()
    assert found[check], found


def first(evidence: Evidence, kind: str):
    return next(fact for fact in evidence.journal if fact["kind"] == kind and fact.get("groups") != [])


def corrupt_submission(evidence: Evidence) -> None:
    first(evidence, "questions")["texts"].append("never stored")


def corrupt_order(evidence: Evidence) -> None:
    first(evidence, "order")["id"] = "never-stored"


def corrupt_receipt(evidence: Evidence) -> None:
    first(evidence, "group")["group"] = "never-stored"


def repeat_receipt(evidence: Evidence) -> None:
    evidence.journal.append(
        next(fact for fact in evidence.journal if fact["kind"] == "group" and fact["status"] == "stored")
    )


def double_group(evidence: Evidence) -> None:
    evidence.stored.groups.append(dict(evidence.stored.groups[0]) | {"id": "second"})


def train_again(evidence: Evidence) -> None:
    evidence.checkpoints[1]["groups"].append(evidence.checkpoints[0]["groups"][0])


def lose_checkpoint(evidence: Evidence) -> None:
    del evidence.checkpoints[1]


def lose_step_of_checkpoint(evidence: Evidence) -> None:
    evidence.checkpoints[1]["step"] = 1000


def acknowledge_nothing(evidence: Evidence) -> None:
    first(evidence, "trained")["step"] = 1000


def be_handed_something_old(evidence: Evidence) -> None:
    first(evidence, "lease")["groups"][0][1] -= PLAN.max_staleness + 1000


def count_wrong(evidence: Evidence) -> None:
    evidence.counted_pool["responses"] += 1


def count_order_wrong(evidence: Evidence) -> None:
    evidence.counted_orders[evidence.standing_order]["total"] -= 1


def break_an_answer(evidence: Evidence) -> None:
    evidence.journal.append({"kind": "broken", "path": "/", "status": 500, "body": ""})


CORRUPT_EVIDENCE: tuple[tuple[str, Callable[[Evidence], None]], ...] = (
    ("lost_questions", corrupt_submission),
    ("lost_orders", corrupt_order),
    ("lost_groups", corrupt_receipt),
    ("doubled_groups", repeat_receipt),
    ("doubled_groups", double_group),
    ("trained_twice", train_again),
    ("skipped", lose_checkpoint),
    ("skipped", lose_step_of_checkpoint),
    ("lost_acknowledgements", acknowledge_nothing),
    ("broken_bound", be_handed_something_old),
    ("wrong_counters", count_wrong),
    ("wrong_counters", count_order_wrong),
    ("broken_answers", break_an_answer),
)


@pytest.mark.parametrize(("check", "corrupt"), CORRUPT_EVIDENCE, ids=lambda value: getattr(value, "__name__", value))
def test_a_corrupt_journal_or_checkpoint_is_noticed(ended: Ended, check: str, corrupt: Callable[[Evidence], None]):
    evidence = copied(ended.evidence)
    corrupt(evidence)
    assert problems(evidence)[check]


def copied(evidence: Evidence) -> Evidence:
    rows = {name: [dict(row) for row in value] for name, value in vars(evidence.stored).items()}
    plain = replace(evidence, stored=type(evidence.stored)(**rows))
    return copy.deepcopy(plain)


def test_every_check_is_shown_to_fail():
    shown = {check for check, _ in CORRUPT_ROWS.values()} | {check for check, _ in CORRUPT_EVIDENCE}
    assert shown == {check.__name__ for check in CHECKS}
