"""Orders, leases, hand-ins and batches in any order, held against a model after every call.

Time passes in SQL. `make test` runs the same EXAMPLES each time; HEADWATER_STATEFUL_EXAMPLES=1000 runs as many new ones.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.pool.service import rollouts
from shared.settings import Settings
from tests.faults.submitter import words
from tests.integration.pool.client import PoolClient, RecordedHints, group, serving
from tests.integration.pool.stateful_model import Model, ModelAssignment, ModelOrder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]
EXAMPLES, STEPS = 12, 30
RUNS = tuple(str(UUID(int=number)) for number in (1, 2))
OUTCOME = st.sampled_from(["correct", "incorrect", "unscored"])
PICK = st.integers(0, 1_000)


class World:
    """The pool and its database, spoken to one call after the other."""

    def __init__(self, database_url: str, artifacts: Path) -> None:
        self.runner = asyncio.Runner()
        self._serving = serving(Settings(database_url=database_url, artifacts_url=str(artifacts)), RecordedHints())
        http = self.runner.run(self._serving.__aenter__())
        self.pool = PoolClient(http, RecordedHints(), database_url)
        self.sql = self.runner.run(asyncpg.connect(database_url.replace("+asyncpg", "")))
        tables = self.rows(
            "SELECT oid::regclass::text AS name FROM pg_class "
            "WHERE relnamespace = 'pool'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        self._truncate = f"TRUNCATE {', '.join(table['name'] for table in tables)}"

    def close(self) -> None:
        self.runner.run(self.sql.close())
        self.runner.run(self._serving.__aexit__(None, None, None))
        self.runner.close()

    def rows(self, query: str, *values: Any) -> list[Any]:
        return list(self.runner.run(self.sql.fetch(query, *values)))

    def empty(self) -> None:
        self.rows(self._truncate)
        self.pool.campaign = str(uuid4())
        self.runner.run(self.pool.register())

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.runner.run(self.pool.http.request(method, path, **request))

    def expect(self, method: str, path: str, status: int = 200, **request: Any) -> Any:
        return self.runner.run(self.pool.ask(method, path, status, **request))


class PoolMachine(RuleBasedStateMachine):
    """The calls that clients make. `leases`: every lease that was ever granted, with the version it was granted for."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = Model()
        self.leases: list[tuple[Any, int]] = []
        self.texts: dict[str, str] = {}
        self.run_fences = dict.fromkeys(RUNS, 1)
        world.empty()

    @initialize(count=st.integers(2, 6), watermark=st.integers(3, 6), max_attempts=st.integers(1, 3))
    def begin(self, count: int, watermark: int, max_attempts: int) -> None:
        self.submit(count)
        self.order(max_attempts, watermark)
        self.work(count, "correct", "")

    # Questions and orders

    @precondition(lambda self: len(self.texts) < 10)
    @rule(count=st.integers(1, 4))
    def submit(self, count: int) -> None:
        new = [words(0, len(self.texts) + number) for number in range(count)]
        report = self._submit(new, "train")
        assert (report["accepted"], report["duplicate"], report["refused"]) == (count, 0, 0)
        for row in self.world.rows("SELECT id::text, text FROM pool.questions WHERE text = ANY($1)", new):
            self.texts[row["text"]] = row["id"]
            self.model.train[row["id"]] = True

    @precondition(lambda self: self.texts)
    @rule(pick=PICK)
    def submit_again(self, pick: int) -> None:
        text = self._one(self.texts, pick)
        report = self._submit([text], "train")
        leaked = self.texts[text] in self.model.leaked
        assert (report["duplicate"], report["refused"]) == ((0, 1) if leaked else (1, 0))

    @precondition(lambda self: len(self.model.usable()) > 2)
    @rule(pick=PICK)
    def leak_into_eval(self, pick: int) -> None:
        text = self._one([text for text, id_ in self.texts.items() if self.model.train[id_]], pick)
        self._submit([text], "eval")
        self.model.leak(self.texts[text])

    @precondition(lambda self: len(self.model.usable()) > 2)
    @rule(pick=PICK)
    def retract(self, pick: int) -> None:
        question = self._one(self.model.train, pick)
        body = {"ids": [question], "reason": "wrong answer"}
        [told] = self.world.expect("POST", "/v1/lineage/retractions", json=body)["items"]
        assert told["status"] == ("already" if question in self.model.retracted else "retracted")
        assert told["dropped_groups"] == self.model.retract(question)

    def _submit(self, texts: list[str], split: str) -> Any:
        body = [{"question": text, "answer": "1", "split": split} for text in texts]
        return self.world.expect("POST", "/v1/questions", params={"campaign": self.world.pool.campaign}, json=body)

    @precondition(lambda self: len(self.model.orders) < 4)
    @rule(max_attempts=st.integers(1, 3), watermark=st.none() | st.integers(1, 6))
    def order(self, max_attempts: int, watermark: int | None) -> None:
        fields = {"purpose": "rollout", "watermark_groups": watermark} if watermark else {"purpose": "probe"}
        body = {
            "campaign_id": self.world.pool.campaign,
            "key": f"order-{len(self.model.orders)}",
            "policy_id": policy(1),
            "policy_version": 1,
            "k": 2,
            "sampling": {},
            "max_attempts": max_attempts,
        }
        made = self.world.expect("POST", "/v1/orders", 201, json=body | fields)
        again = self.world.expect("POST", "/v1/orders", 200, json=body | fields)
        assert again["id"] == made["id"]
        self.model.orders[made["id"]] = ModelOrder(2, 1, max_attempts, watermark)
        new = self._new_assignments()
        expected = self.model.usable() if watermark is None else set()
        assert Counter(row["question"] for row in new) == Counter(expected)
        self.model.complete_finished()

    @precondition(lambda self: self.model.orders)
    @rule(pick=PICK, change=st.integers(-1, 1))
    def set_policy(self, pick: int, change: int) -> None:
        order = self._one(self.model.orders, pick)
        known = self.model.orders[order]
        version = known.version + change
        body = {"policy_id": policy(version), "policy_version": version}
        answer = self.world.ask("PUT", f"/v1/orders/{order}/policy", json=body)
        allowed = known.watermark is not None and change >= 0
        assert answer.status_code == (200 if allowed else 409), answer.text
        if allowed:
            self.model.set_policy(order, version)

    @precondition(lambda self: self.model.orders)
    @rule(pick=PICK)
    def close(self, pick: int) -> None:
        order = self._one(self.model.orders, pick)
        self.world.expect("POST", f"/v1/orders/{order}/close")
        self.model.close(order)

    # Assignments

    @rule(limit=st.integers(1, 8))
    def claim(self, limit: int) -> None:
        self._claim(limit)

    def _claim(self, limit: int) -> list[int]:
        """Claim; returns where the new leases are."""
        missing = {order: self.model.missing(order) for order in self.model.orders}
        given_up = Counter(
            self.model.assignments[id_].order for id_ in self.model.hopeless()
        )  # and made up for at once
        answer = self.world.expect("POST", "/v1/assignments/claim", json={"worker": "w", "limit": limit})
        made = Counter(row["order"] for row in self._new_assignments())
        assert made <= Counter(missing) + given_up
        claimable, hopeless = self.model.claimable(), self.model.hopeless()
        claimed = [assignment["id"] for assignment in answer["assignments"]]
        assert len(claimed) == len(set(claimed)) == min(limit, len(claimable))
        assert len(claimed) == limit or made.keys() >= {order for order, short in missing.items() if short}
        assert set(claimed) <= claimable
        for assignment in answer["assignments"]:
            known = self.model.assignments[assignment["id"]]
            assert (assignment["order_id"], assignment["question"]["id"]) == (known.order, known.question)
            assert (assignment["policy_version"], assignment["policy_id"]) == (known.version, policy(known.version))
            assert assignment["attempt"] == known.attempts + 1
            self.model.claim(assignment["id"], assignment["lease_token"])
            self.leases.append((assignment, known.version))
        for id_ in hopeless & self._dead():
            self.model.assignments[id_].state = "dead"
        if len(claimed) < limit:
            assert not self.model.hopeless(), "a claim that finds too little gives up what is hopeless"
        self.model.complete_finished()
        return list(range(len(self.leases) - len(claimed), len(self.leases)))

    @rule(limit=st.integers(1, 8), outcome=OUTCOME, first=st.sampled_from(["", "", "expire", "lose", "fail", "beat"]))
    def work(self, limit: int, outcome: str, first: str) -> None:
        """Claim and hand in, with a mishap of the first assignment in between."""
        leases = self._claim(limit)
        if not leases:
            return
        id_ = self.leases[leases[0]][0]["id"]
        if first in ("expire", "lose"):
            self._expire(id_)
        if first == "lose":  # to another worker, who is as slow
            leases += self._claim(1)
        if first == "fail":
            self.fail(leases[0], True)
        if first == "beat":
            self._expire(id_)
            self.heartbeat(leases)
        self._hand_in(leases, outcome)

    @precondition(lambda self: self.leases)
    @rule(picks=st.lists(PICK, min_size=1, max_size=4), outcome=OUTCOME)
    def hand_in(self, picks: list[int], outcome: str) -> None:
        """Whatever was granted once: held, expired, lost to another, given back, handed in already; one twice, perhaps."""
        self._hand_in([pick % len(self.leases) for pick in picks], outcome)

    def _hand_in(self, leases: list[int], outcome: str) -> None:
        bodies, expected = [], []
        for assignment, version in (self.leases[at] for at in leases):
            bodies.append(group(assignment | {"question": {"answer": "1"}}, outcome))
            id_, token = str(uuid5(UUID(assignment["id"]), "group")), assignment["lease_token"]
            expected.append(self.model.hand_in(assignment["id"], token, version, outcome != "unscored", id_))
        receipts = self.world.expect("POST", "/v1/groups", json={"groups": bodies})["receipts"]
        assert [receipt["status"] for receipt in receipts] == expected

    @precondition(lambda self: self.leases)
    @rule(pick=PICK, counts=st.booleans())
    def fail(self, pick: int, counts: bool) -> None:
        assignment, _ = self._one(self.leases, pick)
        known = self.model.assignments[assignment["id"]]
        held = known.state == "leased" and known.token == assignment["lease_token"]
        body = {"reason": "engine-died", "counts_as_attempt": counts}
        lease = {"assignment_id": assignment["id"], "lease_token": assignment["lease_token"]}
        answer = self.world.ask("POST", "/v1/assignments/fail", json=body | lease)
        assert answer.status_code == (200 if held else 409), answer.text
        if held:
            assert answer.json()["state"] == self.model.fail(assignment["id"], counts)
            # The pause lasts until `pauses_end`, however slow this machine is.
            self.world.rows(
                "UPDATE pool.assignments SET available_at = now() + interval '1 day' WHERE id = $1 AND state = 'open'",
                UUID(assignment["id"]),
            )

    @precondition(lambda self: self.leases)
    @rule(picks=st.lists(PICK, min_size=1, max_size=4))
    def heartbeat(self, picks: list[int]) -> None:
        said = {self._one(range(len(self.leases)), pick) for pick in picks}
        leases = [self.leases[at][0] for at in sorted(said)]
        body = [{"assignment_id": one["id"], "lease_token": one["lease_token"]} for one in leases]
        answer = self.world.expect("POST", "/v1/assignments/heartbeat", json={"leases": body})
        held = {one["assignment_id"] for one in answer["held"]}
        expected = {one["id"] for one in leases if self._holds(self.model.assignments[one["id"]], one["lease_token"])}
        assert held == expected
        for id_ in held:
            self.model.assignments[id_].over = False

    def _holds(self, known: ModelAssignment, token: str) -> bool:
        return known.state == "leased" and known.token == token

    # Time

    @precondition(lambda self: any(known.state == "leased" for known in self.model.assignments.values()))
    @rule(pick=PICK)
    def a_lease_expires(self, pick: int) -> None:
        self._expire(self._one([id_ for id_, known in self.model.assignments.items() if known.state == "leased"], pick))

    def _expire(self, id_: str) -> None:
        self.world.rows("UPDATE pool.assignments SET available_at = now() - interval '1 s' WHERE id = $1", UUID(id_))
        self.model.assignments[id_].over = True

    @precondition(lambda self: any(known.paused for known in self.model.assignments.values()))
    @rule()
    def pauses_end(self) -> None:
        self.world.rows(
            "UPDATE pool.assignments SET available_at = now() WHERE state = 'open' AND available_at > now()"
        )
        for known in self.model.assignments.values():
            known.paused = False

    @precondition(lambda self: any(batch.state == "leased" for batch in self.model.batches.values()))
    @rule(pick=PICK)
    def a_batch_expires(self, pick: int) -> None:
        leased = [key for key, batch in self.model.batches.items() if batch.state == "leased"]
        self._expire_batch(*self._one(leased, pick))

    def _expire_batch(self, run: str, step: int) -> None:
        self.world.rows(
            "UPDATE pool.batches SET lease_expires_at = now() - interval '1 s' WHERE run_id = $1 AND step = $2",
            UUID(run),
            step,
        )
        self.model.batches[run, step].over = True

    # Batches

    @precondition(lambda self: any(batch.state == "leased" for batch in self.model.batches.values()))
    @rule(run=st.sampled_from(RUNS))
    def restart(self, run: str) -> None:
        self.run_fences[run] += 1

    @precondition(lambda self: self._standing())
    @rule(
        run=st.sampled_from(RUNS),
        step=st.integers(0, 2),
        pick=PICK,
        groups=st.integers(1, 2),
        first=st.sampled_from(["", "", "ask again", "ask newer", "expire", "lose", "restart", "die"]),
    )
    def train(self, run: str, step: int, pick: int, groups: int, first: str) -> None:
        """A step is leased and acknowledged, with a mishap in between."""

        def lease(of_run: str, ahead: int = 0) -> None:
            self.lease_batch(pick, of_run, step, groups, ahead=ahead, max_staleness=1, old_life=False)

        if len(self.model.waiting(self._one(self._standing(), pick))) < groups:
            self.work(8, "correct", "")
        lease(run)
        batch = self.model.batches.get((run, step))
        if batch is None or batch.state != "leased":
            return
        if first in ("ask again", "ask newer"):
            lease(run, 2 if first == "ask newer" else 0)
        if first in ("expire", "lose"):
            self._expire_batch(run, step)
        if first == "lose":  # to whoever leases next
            lease(next(other for other in RUNS if other != run))
        if first in ("restart", "die"):
            self.run_fences[run] += 1
            self.release(run, step + (first == "restart"))
        self.acknowledge(run, step, old_life=first == "die")

    @precondition(lambda self: self._standing())
    @rule(
        pick=PICK,
        run=st.sampled_from(RUNS),
        step=st.integers(0, 2),
        groups=st.integers(1, 2),
        ahead=st.integers(0, 2),
        max_staleness=st.integers(0, 2),
        old_life=st.integers(0, 9).map(lambda number: number == 0),
    )
    def lease_batch(
        self, pick: int, run: str, step: int, groups: int, ahead: int, max_staleness: int, old_life: bool
    ) -> None:
        order = self._one(self._standing(), pick)
        version = self.model.orders[order].version + ahead
        fence = self.run_fences[run] - old_life
        body = {"order_id": order, "run_id": run, "step": step, "fence": fence, "groups": groups}
        limits = {"policy_version": version, "max_staleness": max_staleness}
        answer = self.world.ask("POST", "/v1/batches/lease", json=body | limits)
        if not self.model.take_fence(run, fence):
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "fenced")
            return
        earlier = self.model.batches.get((run, step))
        if earlier is not None and earlier.order != order:
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "other_order")
            return
        assert answer.status_code == 200, answer.text
        batch = answer.json()
        leased = {one["id"] for one in batch["groups"]}
        held, stale = self.model.prepare_lease(run, step, order, version - max_staleness)
        assert batch["dropped_stale"] == stale
        if held is not None:
            assert leased == held.groups
        else:
            waiting = self.model.waiting(order)
            assert leased <= waiting
            assert len(leased) == (groups if len(waiting) >= groups else 0)
            if leased:
                self.model.lease(run, step, order, leased)
        assert (batch["batch_id"] is None) == (not leased)
        assert batch["waiting"] == len(self.model.waiting(order))
        if held is None or held.state == "leased":
            assert all(version - one["policy_version"] <= max_staleness for one in batch["groups"]), "the bound"

    @precondition(lambda self: self.model.batches)
    @rule(run=st.sampled_from(RUNS), step=st.integers(0, 2), old_life=st.integers(0, 9).map(lambda number: number == 0))
    def acknowledge(self, run: str, step: int, old_life: bool) -> None:
        fence = self.run_fences[run] - old_life
        batch_id = uuid5(UUID(run), f"batch:{step}")
        answer = self.world.ask(
            "POST", f"/v1/batches/{batch_id}/ack", json={"run_id": run, "step": step, "fence": fence}
        )
        known = (run, step) in self.model.batches
        # An unknown batch takes no fence: the call that fails changes nothing.
        if fence < self.model.fences.get(run, 0):
            assert answer.json()["error"]["code"] == "fenced"
            return
        if known:
            self.model.take_fence(run, fence)
        expected = self.model.acknowledge(run, step)
        said = answer.json()["state"] if answer.is_success else answer.json()["error"]["code"]
        assert said == expected

    @precondition(lambda self: self.model.batches)
    @rule(run=st.sampled_from(RUNS), from_step=st.integers(0, 2))
    def release(self, run: str, from_step: int) -> None:
        body = {"run_id": run, "fence": self.run_fences[run], "from_step": from_step}
        assert self.model.take_fence(run, self.run_fences[run])
        answer = self.world.expect("POST", "/v1/batches/release", json=body)
        assert answer["groups"] == self.model.release(run, from_step)

    def _standing(self) -> list[str]:
        return [id_ for id_, order in self.model.orders.items() if order.watermark is not None]

    # What holds after every call

    @invariant()
    def rows_are_the_models(self) -> None:
        stored = {
            row["id"]: (row["state"], row["attempts"], row["policy_version"], row["blameless_failures"])
            for row in self.world.rows("SELECT *, id::text AS id FROM pool.assignments")
        }
        assert stored == {
            id_: (known.state, known.attempts, known.version, known.blameless)
            for id_, known in self.model.assignments.items()
        }
        groups = self.world.rows("SELECT id::text, consumption, policy_version FROM pool.groups")
        assert {(row["id"], row["consumption"], row["policy_version"]) for row in groups} == {
            (id_, known.consumption, known.version) for id_, known in self.model.groups.items()
        }
        members: dict[tuple[str, int], set[str]] = {key: set() for key in self.model.batches}
        query = "SELECT run_id::text, step, group_id::text FROM pool.batch_groups b JOIN pool.batches ON batches.id = b.batch_id"
        for row in self.world.rows(query):
            members[row["run_id"], row["step"]].add(row["group_id"])
        assert members == {key: batch.groups for key, batch in self.model.batches.items()}

    @invariant()
    def what_is_told_is_the_models(self) -> None:
        campaign = {"campaign": self.world.pool.campaign}
        orders = self.world.expect("GET", "/v1/orders", params=campaign)["items"]
        assert {one["id"]: (one["state"], one["total"], one["done"], one["dead"]) for one in orders} == {
            id_: (order.state, *self.model.progress(id_)) for id_, order in self.model.orders.items()
        }
        pools = self.world.expect("GET", "/v1/pools", params=campaign)
        assert {name: pools[name] for name in ("train", "eval", "quarantined", "retracted", "groups", "responses")} == {
            "train": len(self.model.usable()),
            "eval": len(self.model.leaked),
            "quarantined": len(self.model.leaked - self.model.retracted),
            "retracted": len(self.model.retracted),
            "groups": len(self.model.groups),
            "responses": 2 * len(self.model.groups),
        }

    # Reading

    def _one(self, items: Any, pick: int) -> Any:
        found = list(items)
        return found[pick % len(found)]

    def _new_assignments(self) -> list[Any]:
        """Assignments that the model had not seen; it has now."""
        rows = self.world.rows(
            'SELECT id::text, order_id::text AS "order", question_id::text AS question, policy_version FROM pool.assignments'
        )
        new = [row for row in rows if row["id"] not in self.model.assignments]
        for row in new:
            assert row["policy_version"] == self.model.orders[row["order"]].version
            assert self.model.train[row["question"]]
            known = ModelAssignment(row["order"], row["question"], row["policy_version"])
            self.model.assignments[row["id"]] = known
        return new

    def _dead(self) -> set[str]:
        return {row["id"] for row in self.world.rows("SELECT id::text FROM pool.assignments WHERE state = 'dead'")}


def policy(version: int) -> str:
    """The policy of a version."""
    return str(UUID(int=1000 + version))


def test_any_order_of_calls_keeps_to_the_model(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rollouts, "CHECK_EVERY_S", 0.0)  # every claim looks, so that no run depends on the time
    monkeypatch.setattr(rollouts, "CHECK_SHARE", 1e9)
    asked = os.environ.get("HEADWATER_STATEFUL_EXAMPLES")
    world = World(database_url, tmp_path)

    class Machine(PoolMachine):
        def __init__(self) -> None:
            super().__init__(world)

    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=int(asked) if asked else EXAMPLES,
                stateful_step_count=STEPS,
                derandomize=not asked,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        world.close()
