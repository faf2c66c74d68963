"""What an RL run was trained on, counted from the rows: nothing twice, skipped, too old, or lost of what was once committed.

`Witness` reads the rows while everything dies: what it has seen was committed, so it has to be there at the end. `CHECKS` are pure. What a
step was trained on is known from two sides: the batch in the pool, and the point that the trainer logged out of what it had in its hands.
"""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from shared.contracts.recipe import RlRecipe
from shared.contracts.runs import RunIn

Row = Mapping[str, Any]
ANSWER_S = 10.0
QUERIES = {
    "runs": "SELECT id::text, state, step, attempts, spec, policy_id::text, policy_version FROM training.runs WHERE id = $1",
    "points": "SELECT step, values FROM training.run_metrics WHERE run_id = $1 AND step > 0",
    "batches": "SELECT id::text, step, state, policy_version FROM pool.batches WHERE run_id = $1",
    "batch_groups": """
        SELECT b.step, b.state, m.group_id::text, m.staleness, b.policy_version - g.policy_version AS versions_behind
        FROM pool.batches b JOIN pool.batch_groups m ON m.batch_id = b.id JOIN pool.groups g ON g.id = m.group_id WHERE b.run_id = $1
    """,
    "groups": """
        SELECT g.id::text, g.assignment_id::text, g.policy_id::text, g.policy_version, g.consumption, g.drop_reason,
            (SELECT count(*) FROM pool.responses r WHERE r.group_id = g.id) AS responses
        FROM pool.groups g JOIN training.runs t ON g.order_id = (t.spec ->> 'order_id')::uuid WHERE t.id = $1
    """,
    "done": """
        SELECT a.id::text FROM pool.assignments a JOIN training.runs t ON a.order_id = (t.spec ->> 'order_id')::uuid
        WHERE t.id = $1 AND a.state = 'done'
    """,
    "policies": """
        SELECT p.id::text, p.name, p.version, p.step, p.content_hash, p.run_id = t.id AS is_ours
        FROM generation.policies p JOIN training.runs t ON p.campaign_id = t.campaign_id WHERE t.id = $1
    """,
    "samples": """
        SELECT b.step, avg(r.tokens)::float8 AS response_tokens, avg((r.unparsed IS NOT NULL)::int)::float8 AS unparsed_rate,
            avg(b.policy_version - g.policy_version)::float8 AS staleness_mean,
            (avg((r.outcome = 'correct')::int) FILTER (WHERE r.outcome <> 'unscored'))::float8 AS accuracy
        FROM pool.batches b JOIN pool.batch_groups m ON m.batch_id = b.id JOIN pool.groups g ON g.id = m.group_id
            JOIN pool.responses r ON r.group_id = g.id WHERE b.run_id = $1 GROUP BY b.step
    """,
}
COMPARED = ("response_tokens", "unparsed_rate", "staleness_mean", "accuracy")
_LOOK = ("runs", "batch_groups", "groups", "policies")
_SILENCES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


@dataclass(frozen=True)
class Seen:
    """What was committed at some time: groups, the acknowledged groups of each step, and policies by their content."""

    groups: set[str] = field(default_factory=set)
    acknowledged: dict[int, set[str]] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """The rows at the end (by the names of QUERIES), and what was seen on the way."""

    rows: Mapping[str, list[Row]]
    seen: Seen

    def dump(self) -> dict[str, Any]:
        """JSON form."""
        acknowledged = {str(step): sorted(groups) for step, groups in self.seen.acknowledged.items()}
        seen = {"groups": sorted(self.seen.groups), "acknowledged": acknowledged, "policies": self.seen.policies}
        return {"rows": {name: [dict(row) for row in rows] for name, rows in self.rows.items()}, "seen": seen}

    @staticmethod
    def restore(dumped: Mapping[str, Any]) -> "Evidence":
        """Inverse of `dump`."""
        seen = dumped["seen"]
        acknowledged = {int(step): set(groups) for step, groups in seen["acknowledged"].items()}
        return Evidence(dumped["rows"], Seen(set(seen["groups"]), acknowledged, seen["policies"]))

    @property
    def run(self) -> Row:
        """The run's own row."""
        return self.rows["runs"][0]

    @property
    def spec(self) -> RunIn:
        """What was ordered."""
        return RunIn.model_validate_json(self.run["spec"])

    @property
    def recipe(self) -> RlRecipe:
        """How it was to be trained."""
        recipe = self.spec.rl
        assert recipe is not None
        return recipe


@dataclass
class Witness:
    """Looks at one run in the Postgres at `url` again and again; a Postgres that is down shows nothing new."""

    url: str
    run_id: UUID
    seen: Seen = field(default_factory=Seen)
    step: int = 0
    looks: int = 0

    def look(self) -> bool:
        """Take in what is committed now; whether the run is over."""
        try:
            rows = asyncio.run(self._read(*_LOOK))
        except _SILENCES:
            return False
        self.looks += 1
        run = rows["runs"][0]
        self.step = max(self.step, run["step"])
        self.seen.groups.update(row["id"] for row in rows["groups"])
        self.seen.policies.update({row["id"]: row["content_hash"] for row in rows["policies"]})
        for row in rows["batch_groups"]:
            if row["state"] == "acknowledged":
                self.seen.acknowledged.setdefault(row["step"], set()).add(row["group_id"])
        return run["state"] in ("succeeded", "failed", "cancelled")

    def evidence(self) -> Evidence:
        """All rows, as of one moment."""
        return Evidence(asyncio.run(self._read(*QUERIES)), self.seen)

    async def _read(self, *names: str) -> dict[str, list[Row]]:
        async with asyncio.timeout(ANSWER_S):
            connection = await asyncpg.connect(self.url)
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    return {name: list(await connection.fetch(QUERIES[name], self.run_id)) for name in names}
            finally:
                connection.terminate()


def wrong_steps(evidence: Evidence) -> list[str]:
    """Each step of the run has one batch, acknowledged, with exactly its groups."""
    recipe = evidence.recipe
    states = {row["step"]: row["state"] for row in evidence.rows["batches"]}
    sizes = Counter(row["step"] for row in evidence.rows["batch_groups"])
    found = [f"step {step} is no step of the run" for step in states if step not in range(recipe.steps)]
    found += [
        f"step {step} is {states.get(step)} with {sizes[step]} groups"
        for step in range(recipe.steps)
        if (states.get(step), sizes[step]) != ("acknowledged", recipe.groups_per_step)
    ]
    if (evidence.run["state"], evidence.run["step"]) != ("succeeded", recipe.steps):
        found.append(f"the run is {evidence.run['state']} at step {evidence.run['step']}")
    return found


def trained_twice(evidence: Evidence) -> list[str]:
    """No group is in two batches."""
    times = Counter(row["group_id"] for row in evidence.rows["batch_groups"])
    return [f"group {group} is in {count} batches" for group, count in times.items() if count > 1]


def trained_on_others(evidence: Evidence) -> list[str]:
    """What the trainer logged of each step is what the groups of its batch say."""
    points = {row["step"]: json.loads(row["values"]) for row in evidence.rows["points"]}
    found = []
    for sample in evidence.rows["samples"]:
        point = points.get(sample["step"] + 1, {})
        for name in COMPARED:
            logged, counted = point.get(name), sample[name]
            if logged is None or counted is None or not math.isclose(logged, counted, rel_tol=1e-6, abs_tol=1e-9):
                found.append(f"step {sample['step']} logged {name} {logged}, its groups have {counted}")
    return found


def skipped(evidence: Evidence) -> list[str]:
    """A group is consumed if and only if an acknowledged batch has it; one that was dropped has a reason."""
    held = {row["group_id"] for row in evidence.rows["batch_groups"] if row["state"] == "acknowledged"}
    consumed = {row["id"] for row in evidence.rows["groups"] if row["consumption"] == "consumed"}
    found = [f"group {group} is consumed without a batch, or has one and is not" for group in held ^ consumed]
    for row in evidence.rows["groups"]:
        if row["consumption"] == "dropped" and not row["drop_reason"]:
            found.append(f"group {row['id']} was dropped without a reason")
        if row["consumption"] == "leased":
            found.append(f"group {row['id']} is left leased")
    return found


def broken_bound(evidence: Evidence) -> list[str]:
    """No group was trained on that was more versions behind than the recipe allows."""
    bound = evidence.recipe.max_staleness
    return [
        f"group {row['group_id']} of step {row['step']} was {row['versions_behind']} versions behind, recorded {row['staleness']}"
        for row in evidence.rows["batch_groups"]
        if row["versions_behind"] > bound or row["staleness"] != max(row["versions_behind"], 0)
    ]


def mixed_policies(evidence: Evidence) -> list[str]:
    """The run published each of its versions once, and a group is of the policy that has its version."""
    recipe, first = evidence.recipe, evidence.spec.first_version
    ours = sorted(row["version"] for row in evidence.rows["policies"] if row["is_ours"])
    last = first + (recipe.steps - 1) // recipe.publish_every_steps
    found = [] if ours == list(range(first, last + 1)) else [f"versions {ours} are published, not {first} to {last}"]
    if evidence.run["policy_version"] != last:
        found.append(f"the run ended with version {evidence.run['policy_version']}, not {last}")
    version_of = {row["id"]: row["version"] for row in evidence.rows["policies"]}
    return found + [
        f"group {row['id']} of version {row['policy_version']} is of policy {row['policy_id']}"
        for row in evidence.rows["groups"]
        if version_of.get(row["policy_id"]) != row["policy_version"]
    ]


def half_groups(evidence: Evidence) -> list[str]:
    """An assignment is done if and only if it has its one group, whole."""
    groups = evidence.rows["groups"]
    assignments = Counter(row["assignment_id"] for row in groups)
    found = [f"assignment {id_} has {count} groups" for id_, count in assignments.items() if count > 1]
    found += [
        f"assignment {id_} is done without a group, or has one and is not"
        for id_ in {row["id"] for row in evidence.rows["done"]} ^ set(assignments)
    ]
    return found + [
        f"group {row['id']} has {row['responses']} responses" for row in groups if row["responses"] != evidence.recipe.k
    ]


def lost(evidence: Evidence) -> list[str]:
    """What was once committed is there: groups, the groups of acknowledged steps, policies with their content."""
    groups = {row["id"] for row in evidence.rows["groups"]}
    found = [f"group {group} was stored and is not there" for group in evidence.seen.groups - groups]
    held: dict[int, set[str]] = {}
    for row in evidence.rows["batch_groups"]:
        held.setdefault(row["step"], set()).add(row["group_id"])
    for step, then in evidence.seen.acknowledged.items():
        if held.get(step) != then:
            found.append(f"step {step} was acknowledged with other groups than it has")
    policies = {row["id"]: row["content_hash"] for row in evidence.rows["policies"]}
    return found + [f"policy {id_} changed or went" for id_ in evidence.seen.policies.items() - policies.items()]


CHECKS: tuple[Callable[[Evidence], list[str]], ...] = (
    wrong_steps,
    trained_twice,
    trained_on_others,
    skipped,
    broken_bound,
    mixed_policies,
    half_groups,
    lost,
)


def problems(evidence: Evidence) -> dict[str, list[str]]:
    """What each check found, by its name."""
    return {check.__name__: check(evidence) for check in CHECKS}
