"""New verdicts of stored groups are written: history, what counts, pass rates, levels, pools and counters in one transaction.

Invariant: an unscored verdict replaces none. Limit: only the newest probe under a policy version has a say.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import AssignmentRow, GroupRow, OrderRow, QuestionRow
from services.pool.repository import assignments, campaigns, counters, difficulty, questions, reverification
from services.pool.repository.questions import Move
from services.pool.router import Answered, PassRate, Standing, after_group, level_of
from services.pool.service.unreadable import as_far_as_readable
from shared.contracts.orders import OrderPurpose
from shared.contracts.questions import Split
from shared.contracts.recipe import RouterRecipe
from shared.contracts.reverification import NewVerdicts
from shared.contracts.verdicts import Verdict, VerdictOutcome

Judged = Row[*tuple[Any, ...]]


@dataclass(slots=True)
class Item:
    """New verdicts that will be stored, with what they belong to."""

    new: NewVerdicts
    assignment: AssignmentRow
    order: OrderRow
    group: GroupRow
    source: OrderRow
    before: Sequence[Judged]
    late: bool

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """The new verdicts, as far as the reference can be read."""
        return as_far_as_readable(self.new.verdicts)

    def replacing(self) -> list[tuple[int, Judged, Verdict]]:
        """(position, what counted, what counts now): the scored ones."""
        pairs = zip(self.before, self.verdicts, strict=True)
        return [
            (old.position, old, verdict) for old, verdict in pairs if verdict.outcome is not VerdictOutcome.UNSCORED
        ]

    def outcomes(self) -> Counter[VerdictOutcome]:
        """The outcomes of the group's responses from now on."""
        replaced = {position: verdict.outcome for position, _, verdict in self.replacing()}
        return Counter(replaced.get(old.position, VerdictOutcome(old.outcome)) for old in self.before)


async def write(session: AsyncSession, items: Sequence[Item], locked: Mapping[UUID, QuestionRow]) -> None:
    """Store the new verdicts of locked groups, each once; `locked`: their questions."""
    deltas = counters.Deltas()
    await reverification.keep_first(session, [item.group.id for item in items])
    await reverification.add(session, [row for item in items for row in _history_rows(item)])
    await reverification.replace(
        session,
        [_verdict_row(item, position, verdict) for item in items for position, _, verdict in item.replacing()],
        [_counts_row(item) for item in items],
    )
    await assignments.finish(session, [item.assignment.id for item in items])
    for item in items:
        _count(item, deltas)
    routers = await campaigns.routers(session, sorted({item.order.campaign_id for item in items}))
    await _measure(session, items, routers)
    moves = await _moves(session, items, locked, routers, deltas)
    for campaign_id in routers:
        own = [move for move in moves if locked[move.question_id].campaign_id == campaign_id]
        await questions.move(session, campaign_id, own, deltas)
    await deltas.write(session)


def _verdict_row(item: Item, position: int, verdict: Verdict) -> dict[str, Any]:
    values = verdict.model_dump(mode="json")
    return {"group_id": item.group.id, "position": position} | {name: values[name] for name in reverification.VERDICT}


def _history_rows(item: Item) -> list[dict[str, Any]]:
    return [
        _verdict_row(item, old.position, verdict)
        | {"order_id": item.order.id, "before_outcome": old.outcome, "before_verifier": old.verifier}
        for old, verdict in zip(item.before, item.verdicts, strict=True)
    ]


def _counts_row(item: Item) -> dict[str, Any]:
    outcomes = item.outcomes()
    correct, unscored = outcomes[VerdictOutcome.CORRECT], outcomes[VerdictOutcome.UNSCORED]
    return {"id": item.group.id, "scored": len(item.before) - unscored, "correct": correct, "unscored": unscored}


def _count(item: Item, deltas: counters.Deltas) -> None:
    if item.assignment.state == "dead":
        deltas.add(item.order.id, "dead", -1)
        deltas.add(item.order.id, f"dead:{item.assignment.reason}", -1)
    if item.assignment.state == "withdrawn":
        deltas.add(item.order.id, "total")
    deltas.add(item.order.id, "done")
    deltas.add(item.order.id, "late", int(item.late))
    for _, old, _ in item.replacing():
        if old.unscored_reason is not None:
            deltas.add(item.source.id, f"unscored:{old.unscored_reason}", -1)


async def _measure(session: AsyncSession, items: Sequence[Item], routers: dict[UUID, RouterRecipe]) -> None:
    """Correct the pass rates by question, policy and the order that sampled."""
    measured = await questions.pass_rates(
        session, sorted({item.source.id for item in items}), sorted({item.group.question_id for item in items})
    )
    rows: dict[tuple[UUID, UUID, UUID], dict[str, Any]] = {}
    for item in items:
        after = _counts_row(item)
        key = (item.group.question_id, item.group.policy_id, item.source.id)
        n, correct = measured.get(key, (0, 0))
        measured[key] = (n + after["scored"] - item.group.scored, correct + after["correct"] - item.group.correct)
        if not measured[key][0]:
            continue
        rate = PassRate(*measured[key])
        rows[key] = {
            **dict(zip(("question_id", "policy_id", "order_id"), key, strict=True)),
            "policy_version": item.group.policy_version,
            "n": rate.n,
            "correct": rate.correct,
            "mean": rate.mean,
            "variance": rate.variance,
            "level": level_of(rate, routers[item.order.campaign_id]),
        }
    await questions.put_pass_rates(session, [rows[key] for key in sorted(rows)])


async def _moves(
    session: AsyncSession,
    items: Sequence[Item],
    locked: Mapping[UUID, QuestionRow],
    routers: dict[UUID, RouterRecipe],
    deltas: counters.Deltas,
) -> list[Move]:
    """Where the questions of these groups go: by the probe that decides, and out of or into the tiny pool."""
    ids = sorted({item.group.question_id for item in items})
    deciding, taught = await reverification.deciding_probes(session, ids), await reverification.taught(session, ids)
    moves: dict[UUID, Move] = {}
    for item in items:
        question_id, router = item.group.question_id, routers[item.order.campaign_id]
        original = questions.standing(locked[question_id])
        standing = moves[question_id].after if question_id in moves else original
        if item.group.id in deciding:
            _recount_earlier(item, standing, router, deltas)
            standing = after_group(standing, _answered(item), router)
        if item.source.purpose == OrderPurpose.TEACH and standing.usable and standing.split is Split.TRAIN:
            standing = replace(standing, tiny=question_id in taught)
        if standing != original:
            moves[question_id] = Move(question_id, original, standing, OrderPurpose.REVERIFY, item.order.id)
        else:
            moves.pop(question_id, None)
    return list(moves.values())


def _answered(item: Item) -> Answered:
    after = _counts_row(item)
    return Answered(
        purpose=OrderPurpose.PROBE,
        policy_version=item.group.policy_version,
        scored=after["scored"],
        correct=after["correct"],
        reference_unparseable=False,
    )


def _recount_earlier(item: Item, standing: Standing, router: RouterRecipe, deltas: counters.Deltas) -> None:
    """The probe of an earlier version moves no question, but counts by version and level."""
    version, after = item.group.policy_version, _counts_row(item)
    if standing.usable and (standing.probed_version is None or version >= standing.probed_version):
        return
    campaign_id = item.order.campaign_id
    for scored, correct, change in (
        (item.group.scored, item.group.correct, -1),
        (after["scored"], after["correct"], 1),
    ):
        if scored:
            level = level_of(PassRate(scored, correct), router)
            difficulty.recount(campaign_id, standing.split, version, level, change, deltas)
