"""Who was touched by what: descent over any policies, and steps of RL runs."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from services.cascade.service.lineage import WHOLE_SNAPSHOT, ancestors, first_steps, sources, touched
from shared.contracts.lineage import RunSteps, RunUse
from shared.contracts.policies import Policy, PolicyKind
from shared.contracts.recipe import RlRecipe, SftRecipe
from shared.contracts.runs import Run, RunMethod, RunState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CAMPAIGN = uuid4()


def policy(number: int, parent: UUID | None = None, run: UUID | None = None, step: int | None = None) -> Policy:
    return Policy(
        id=UUID(int=number),
        campaign_id=CAMPAIGN,
        name=f"policy-{number}",
        kind=PolicyKind.CHECKPOINT,
        version=number,
        parent_policy_id=parent,
        run_id=run,
        step=step,
        live=False,
        created_at=NOW,
    )


def run(snapshot: UUID | None = None) -> Run:
    return Run(
        id=uuid4(),
        campaign_id=CAMPAIGN,
        key="run",
        method=RunMethod.SFT if snapshot else RunMethod.RL,
        start_policy_id=uuid4(),
        snapshot_id=snapshot,
        order_id=None if snapshot else uuid4(),
        sft=SftRecipe() if snapshot else None,
        rl=None if snapshot else RlRecipe(),
        publish_name="run",
        first_version=1,
        state=RunState.SUCCEEDED,
        step=8,
        steps=8,
        created_at=NOW,
    )


def test_a_batch_touches_the_versions_after_its_step_and_what_was_trained_from_them():
    rl = uuid4()
    start, early, late = policy(1), policy(2, UUID(int=1), rl, 4), policy(3, UUID(int=1), rl, 8)
    child, cousin = policy(4, late.id, uuid4(), 8), policy(5, early.id, uuid4(), 8)
    found = touched([child, late, early, start, cousin], {rl: 4})
    assert [(one.policy_id, one.inherited) for one in found] == [(late.id, False), (child.id, True)]
    assert {one.policy_id for one in touched([child, late, early, start, cousin], {rl: 3})} == {
        early.id,
        late.id,
        child.id,
        cousin.id,
    }


def test_a_snapshot_touches_through_every_run_on_it():
    snapshot, other = uuid4(), uuid4()
    on_it, not_on_it = run(snapshot), run(other)
    use = RunUse(run_id=uuid4(), first_step=7, batches=1, acknowledged=0)
    steps = first_steps([snapshot], [use], [on_it, not_on_it])
    assert steps == {use.run_id: 7, on_it.id: WHOLE_SNAPSHOT}
    assert touched([policy(1, run=on_it.id, step=0)], steps)


def test_the_sources_of_a_line_are_its_snapshots_and_the_steps_before_each_version():
    sft, rl = run(uuid4()), run()
    line = [policy(3, UUID(int=2), rl.id, 8), policy(2, UUID(int=1), sft.id, 10), policy(1)]
    assert sources(line, {sft.id: sft, rl.id: rl}) == ((sft.snapshot_id,), (RunSteps(run_id=rl.id, before_step=8),))


@given(st.lists(st.integers(0, 9), min_size=10, max_size=10), st.integers(0, 9))
def test_descent_and_ancestry_are_the_same_relation_also_in_a_circle(parents: list[int], at: int):
    """Any parent for each of ten policies, also itself and circles, which a registry should not hold."""
    runs = [uuid4() for _ in parents]
    policies = [policy(n, UUID(int=parent), runs[n], 1) for n, parent in enumerate(parents)]
    reached = {one.policy_id for one in touched(policies, {runs[at]: 0})}
    by_id = {one.id: one for one in policies}
    descendants = {one.id for one in policies if UUID(int=at) in {one.id, *(a.id for a in ancestors(one, by_id))}}
    assert reached == descendants
    for one in policies:
        line = ancestors(one, by_id)
        assert len({a.id for a in line}) == len(line)
