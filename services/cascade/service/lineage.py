"""Lineage across the services: the pool's uses of a question, joined with the runs of training and the policies of generation.

A run touches a question by its snapshot (SFT: the whole of it) or by a batch (RL: policies published after that step). A
policy hands on what touched it to every policy that was trained from it, or sits on it. Pure functions, then the reading.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from uuid import UUID

from services.cascade.client import Peers
from shared.contracts.lineage import (
    PolicyAncestor,
    PolicyLineage,
    QuestionLineage,
    RetractedUses,
    Retraction,
    Retractions,
    RetractManyIn,
    RunLineage,
    RunSteps,
    RunUse,
    TouchedPolicy,
    TrainedOnRequest,
)
from shared.contracts.policies import Policy
from shared.contracts.runs import Run

WHOLE_SNAPSHOT = -1  # the step from which a run on a snapshot has touched each of its questions


def first_steps(snapshots: Iterable[UUID], uses: Iterable[RunUse], runs: Iterable[Run]) -> dict[UUID, int]:
    """By run that touched a question: the first step that did."""
    steps = {use.run_id: use.first_step for use in uses}
    of_snapshots = set(snapshots)
    return steps | {run.id: WHOLE_SNAPSHOT for run in runs if run.snapshot_id in of_snapshots}


def touched(policies: Sequence[Policy], steps: Mapping[UUID, int]) -> tuple[TouchedPolicy, ...]:
    """The policies that those runs made after those steps, and everything that descends from them, by version."""
    own = {policy.id for policy in policies if _is_made_after(policy, steps)}
    reached = set(own)
    while more := {policy.id for policy in policies if policy.id not in reached and reached & set(_parents(policy))}:
        reached |= more
    return tuple(
        TouchedPolicy(
            policy_id=policy.id,
            name=policy.name,
            version=policy.version,
            run_id=policy.run_id,
            step=policy.step,
            inherited=policy.id not in own,
        )
        for policy in sorted(policies, key=lambda policy: (policy.version, policy.created_at, policy.id))
        if policy.id in reached
    )


def _is_made_after(policy: Policy, steps: Mapping[UUID, int]) -> bool:
    first_step = steps.get(policy.run_id) if policy.run_id else None
    return first_step is not None and (policy.step is None or first_step < policy.step)


def _parents(policy: Policy) -> Iterator[UUID]:
    yield from (parent for parent in (policy.parent_policy_id, policy.base_policy_id) if parent is not None)


def ancestors(policy: Policy, policies: Mapping[UUID, Policy]) -> list[Policy]:
    """What a policy was trained from or sits on, nearest first, each once."""
    found: dict[UUID, Policy] = {}
    waiting = list(_parents(policy))
    while waiting:
        parent = policies.get(waiting.pop(0))
        if parent is not None and parent.id not in found and parent.id != policy.id:
            found[parent.id] = parent
            waiting.extend(_parents(parent))
    return list(found.values())


def sources(line: Iterable[Policy], runs: Mapping[UUID, Run]) -> tuple[tuple[UUID, ...], tuple[RunSteps, ...]]:
    """(snapshots, steps of runs) that shaped the policies of a line."""
    snapshots: dict[UUID, None] = {}
    batches: dict[tuple[UUID, int | None], None] = {}
    for policy in line:
        run = runs.get(policy.run_id) if policy.run_id else None
        if run is not None and run.snapshot_id is not None:
            snapshots[run.snapshot_id] = None
        elif run is not None:
            batches[run.id, policy.step] = None
    return tuple(snapshots), tuple(RunSteps(run_id=run_id, before_step=step) for run_id, step in batches)


class Lineage:
    """Reading lineage, and retracting: the pool decides, this adds who was touched."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def of_question(self, question_id: UUID, after: int, limit: int) -> QuestionLineage:
        """A question's lineage. Raises: HeadwaterError of a peer."""
        uses = await self._peers.pool.question_uses(question_id, after, limit)
        runs, policies = await self._of_campaign(uses.campaign_id)
        steps = first_steps([snapshot.snapshot_id for snapshot in uses.snapshots], uses.runs, runs)
        return QuestionLineage(
            **dict(uses),
            trained_by=tuple(_run(run) for run in runs if run.id in steps),
            policies=touched(policies, steps),
        )

    async def of_policy(self, policy_id: UUID, after: UUID | None, limit: int) -> PolicyLineage:
        """A policy's lineage, with `limit` questions behind `after`. Raises: HeadwaterError of a peer."""
        policy = await self._peers.generation.policy(policy_id)
        runs, policies = await self._of_campaign(policy.campaign_id)
        runs_by_id = {run.id: run for run in runs}
        line = [policy, *ancestors(policy, {one.id: one for one in policies})]
        snapshots, steps = sources(line, runs_by_id)
        found = await self._peers.pool.trained_on(
            TrainedOnRequest(snapshots=snapshots, runs=steps, after=after, limit=limit)
        )
        shown, *rest = (_ancestor(one, runs_by_id) for one in line)
        return PolicyLineage(policy=shown, ancestors=tuple(rest), questions=found.items, next=found.next)

    async def retract(self, request: RetractManyIn) -> Retractions:
        """Retract, then say who was touched. Raises: HeadwaterError of a peer, also after the pool retracted: repeat it."""
        answer = await self._peers.pool.retract(request)
        campaigns = sorted({item.campaign_id for item in answer.items if item.campaign_id is not None})
        known = dict(zip(campaigns, await asyncio.gather(*map(self._of_campaign, campaigns)), strict=True))
        items = [_retraction(item, *known.get(item.campaign_id or UUID(int=0), ((), ()))) for item in answer.items]
        return Retractions(items=tuple(items), more=answer.more)

    async def _of_campaign(self, campaign_id: UUID) -> tuple[Sequence[Run], Sequence[Policy]]:
        return await asyncio.gather(
            self._peers.training.runs(campaign_id), self._peers.generation.policies(campaign_id)
        )


def _retraction(item: RetractedUses, runs: Sequence[Run], policies: Sequence[Policy]) -> Retraction:
    steps = first_steps(item.snapshots, item.runs, runs)
    return Retraction(
        question_id=item.question_id,
        status=item.status,
        from_state=item.from_state,
        dropped_groups=item.dropped_groups,
        runs=tuple(sorted(steps)),
        policies=touched(policies, steps),
    )


def _run(run: Run) -> RunLineage:
    return RunLineage(
        run_id=run.id,
        key=run.key,
        method=run.method,
        state=run.state,
        start_policy_id=run.start_policy_id,
        snapshot_id=run.snapshot_id,
        order_id=run.order_id,
    )


def _ancestor(policy: Policy, runs: Mapping[UUID, Run]) -> PolicyAncestor:
    run = runs.get(policy.run_id) if policy.run_id else None
    return PolicyAncestor(
        policy_id=policy.id,
        name=policy.name,
        kind=policy.kind,
        version=policy.version,
        step=policy.step,
        run=None if run is None else _run(run),
    )
