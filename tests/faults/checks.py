"""Was anything lost, doubled, trained twice, skipped or too old? Counted from the evidence, without a line of the pool's code.

Each check answers with a sentence for each thing that is wrong, and with nothing when all is well.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable

from tests.faults.facts import Evidence, twice
from tests.faults.journal import facts_of


def lost_questions(evidence: Evidence) -> list[str]:
    """Every question of an answered submission is stored once."""
    stored = Counter(question["text"] for question in evidence.stored.questions)
    told = {text for fact in facts_of(evidence.journal, "questions") for text in fact["texts"]}
    problems = [
        f"question {text!r} was acknowledged and is stored {stored[text]} times" for text in told if stored[text] != 1
    ]
    for fact in facts_of(evidence.journal, "questions"):
        report = fact["report"]
        if report["accepted"] + report["duplicate"] != len(fact["texts"]):
            problems.append(f"of {len(fact['texts'])} questions the report counts {report}")
    return problems


def lost_orders(evidence: Evidence) -> list[str]:
    """Every acknowledged order is stored with all its assignments, and none of them is left undone."""
    stored = {order["id"]: order for order in evidence.stored.orders}
    problems = [
        f"order {fact['id']} was acknowledged and is not stored"
        for fact in facts_of(evidence.journal, "order")
        if fact["id"] not in stored
    ]
    made = Counter(assignment["order_id"] for assignment in evidence.stored.assignments)
    for fact in facts_of(evidence.journal, "order"):
        if made[fact["id"]] != fact["total"]:
            problems.append(f"order {fact['id']} had {fact['total']} assignments and has {made[fact['id']]}")
    for assignment in evidence.stored.assignments:
        finite = not stored[assignment["order_id"]]["standing"]
        over = ("done", "dead") if finite else ("done", "dead", "withdrawn")
        if assignment["state"] not in over:
            problems.append(f"assignment {assignment['id']} is left {assignment['state']}")
    return problems


def lost_groups(evidence: Evidence) -> list[str]:
    """Every acknowledged group is stored whole, and an assignment is done if and only if it has one."""
    stored = {group["id"]: group for group in evidence.stored.groups}
    problems: list[str] = []
    for fact in facts_of(evidence.journal, "group"):
        group = stored.get(fact["group"])
        if fact["status"] == "refused":
            problems.append(f"the group of assignment {fact['assignment']} was refused: {fact['message']}")
        elif group is None:
            problems.append(f"group {fact['group']} was acknowledged ({fact['status']}) and is not stored")
        elif group["assignment_id"] != fact["assignment"]:
            problems.append(f"group {fact['group']} belongs to another assignment than was said")
    problems.extend(
        f"group {group['id']} has {group['responses']} responses of {group['k']}"
        for group in stored.values()
        if group["responses"] != group["k"]
    )
    done = {assignment["id"] for assignment in evidence.stored.assignments if assignment["state"] == "done"}
    with_group = {group["assignment_id"] for group in evidence.stored.groups}
    problems.extend(
        f"assignment {id_} is done without a group, or has a group and is not done" for id_ in done ^ with_group
    )
    return problems


def doubled_groups(evidence: Evidence) -> list[str]:
    """An assignment has one group, and was told once at most that it was new."""
    problems = [
        f"assignment {id_} has several groups"
        for id_ in twice(group["assignment_id"] for group in evidence.stored.groups)
    ]
    told: dict[str, set[str]] = defaultdict(set)
    new: list[str] = []
    for fact in facts_of(evidence.journal, "group"):
        if fact["status"] != "refused":
            told[fact["assignment"]].add(fact["group"])
        if fact["status"] in ("stored", "late"):
            new.append(fact["assignment"])
    problems.extend(f"assignment {id_} was told of groups {groups}" for id_, groups in told.items() if len(groups) > 1)
    problems.extend(f"assignment {id_} was told twice that its group is new" for id_ in twice(new))
    return problems


def trained_twice(evidence: Evidence) -> list[str]:
    """No group is in two checkpoints, of one run or of several."""
    groups = [group for checkpoint in evidence.checkpoints for group, _ in checkpoint["groups"]]
    return [f"group {group} was trained on more than once" for group in twice(groups)]


def skipped(evidence: Evidence) -> list[str]:
    """What a checkpoint holds is consumed and the other way round; steps have no gap; what was not trained on has a reason."""
    stored = {group["id"]: group for group in evidence.stored.groups}
    problems: list[str] = []
    trained = {group for checkpoint in evidence.checkpoints for group, _ in checkpoint["groups"]}
    consumed = {group["id"] for group in stored.values() if group["consumption"] == "consumed"}
    problems.extend(f"group {id_} is in a checkpoint and not consumed" for id_ in trained - consumed)
    problems.extend(f"group {id_} is consumed and in no checkpoint" for id_ in consumed - trained)
    for group in stored.values():
        if group["order_id"] == evidence.standing_order and group["consumption"] not in ("consumed", "dropped"):
            problems.append(f"group {group['id']} is left {group['consumption']}")
        if group["consumption"] == "dropped" and not group["drop_reason"]:
            problems.append(f"group {group['id']} was dropped without a reason")
    for run, steps in itertools.groupby(evidence.checkpoints, key=lambda checkpoint: checkpoint["run"]):
        found = [checkpoint["step"] for checkpoint in steps]
        if found != list(range(len(found))):
            problems.append(f"run {run} has a gap in its {len(found)} steps")
    return problems


def lost_acknowledgements(evidence: Evidence) -> list[str]:
    """Every batch that was acknowledged stays so, with the groups of its checkpoint."""
    batches = {(batch["run_id"], batch["step"]): batch for batch in evidence.stored.batches}
    members: dict[str, set[str]] = defaultdict(set)
    for row in evidence.stored.batch_groups:
        members[row["batch_id"]].add(row["group_id"])
    held = {(point["run"], point["step"]): {group for group, _ in point["groups"]} for point in evidence.checkpoints}
    problems: list[str] = []
    for fact in facts_of(evidence.journal, "trained"):
        key = (fact["run"], fact["step"])
        batch = batches.get(key)
        if batch is None or (batch["id"], batch["state"]) != (fact["batch"], "acknowledged"):
            problems.append(
                f"batch {fact['batch']} was acknowledged and is stored as {dict(batch) if batch else 'nothing'}"
            )
        elif members[batch["id"]] != held.get(key):
            problems.append(f"batch {batch['id']} holds other groups than the checkpoint of its step")
    return problems


def broken_bound(evidence: Evidence) -> list[str]:
    """No trainer was handed a group older than its bound, and none was dropped as too old that was not."""
    bound = evidence.max_staleness
    problems: list[str] = []
    newest = 0
    for fact in facts_of(evidence.journal, "lease"):
        newest = max(newest, fact["version"])
        problems.extend(
            f"step {fact['step']} of run {fact['run']} at version {fact['version']} was handed group {group} of version {version}"
            for group, version in fact["groups"]
            if fact["version"] - version > bound
        )
    problems.extend(
        f"group {row['group_id']} is in a batch with staleness {row['staleness']}"
        for row in evidence.stored.batch_groups
        if row["staleness"] > bound
    )
    problems.extend(
        f"group {group['id']} of version {group['policy_version']} was dropped as stale at version {newest} or before"
        for group in evidence.stored.groups
        if group["drop_reason"] == "stale" and newest - group["policy_version"] <= bound
    )
    return problems


def wrong_counters(evidence: Evidence) -> list[str]:
    """What the pool counts is what there is."""
    stored = evidence.stored
    problems: list[str] = []
    states = Counter((assignment["order_id"], assignment["state"]) for assignment in stored.assignments)
    made = Counter(assignment["order_id"] for assignment in stored.assignments)
    for order_id, counted in evidence.counted_orders.items():
        there = {
            "total": made[order_id] - states[order_id, "withdrawn"],
            "done": states[order_id, "done"],
            "dead": states[order_id, "dead"],
        }
        if there != {name: counted[name] for name in there}:
            problems.append(f"order {order_id} counts {counted} and has {there}")
    questions = Counter(question["state"] for question in stored.questions)
    pool = {
        "groups": len(stored.groups),
        "responses": sum(group["responses"] for group in stored.groups),
        "train": sum(question["split"] == "train" for question in stored.questions),
        **{state: questions[state] for state in ("candidate", "certain", "hard", "noise", "trivial")},
    }
    counted_pool = {name: evidence.counted_pool[name] for name in pool}
    if pool != counted_pool:
        problems.append(f"the pool counts {counted_pool} and has {pool}")
    return problems


def broken_answers(evidence: Evidence) -> list[str]:
    """While anything was down, the pool said 'repeat the request' (503), never that it is broken."""
    return [
        f"{fact['path']} answered {fact['status']}: {fact['body']}" for fact in facts_of(evidence.journal, "broken")
    ]


CHECKS: tuple[Callable[[Evidence], list[str]], ...] = (
    lost_questions,
    lost_orders,
    lost_groups,
    doubled_groups,
    trained_twice,
    skipped,
    lost_acknowledgements,
    broken_bound,
    wrong_counters,
    broken_answers,
)


def problems(evidence: Evidence) -> dict[str, list[str]]:
    """What each check found, by its name."""
    return {check.__name__: check(evidence) for check in CHECKS}
