"""The cascade as data: its stages in order, and what the report calls the policies that come out of it."""

from dataclasses import dataclass

from services.cascade.service.register import Registration
from services.cascade.service.runs import ReinforcementRun, SupervisedRun
from services.cascade.service.sampling import Sampling
from services.cascade.service.snapshots import Building
from services.cascade.service.stage import Work
from services.cascade.service.verifying import Verifying
from shared.contracts.campaigns import StageName as S
from shared.contracts.orders import OrderPurpose
from shared.contracts.questions import Split
from shared.contracts.snapshots import SnapshotRecipe

# An eval comes right after its policy, before a stage that would put other weights into the engine. The first probe gives the
# eval questions their level too, and nothing does so later: one yardstick for every policy.
CASCADE: tuple[Work, ...] = (
    Registration(S.REGISTER),
    Sampling(S.EVAL_BASE, OrderPurpose.EVAL, "eval", policy_of=S.REGISTER, split=Split.EVAL, gathers=True),
    Sampling(S.TEACH, OrderPurpose.TEACH, "teach", policy_of=S.TEACH),
    Building(S.DISTILL, SnapshotRecipe.DISTILL, order_of=S.TEACH),
    SupervisedRun(S.SFT_0, "sft0", start_from=S.REGISTER, snapshot_of=S.DISTILL, version=1),
    Sampling(S.EVAL_SFT_0, OrderPurpose.EVAL, "eval", policy_of=S.SFT_0, split=Split.EVAL),
    Sampling(S.PROBE_SFT_0, OrderPurpose.PROBE, "probe", policy_of=S.SFT_0, split=None),
    Verifying(S.VERIFY, order_of=S.PROBE_SFT_0, policy_of=S.SFT_0, teacher_of=S.TEACH),
    Building(S.BUILD, SnapshotRecipe.S2R, order_of=S.PROBE_SFT_0, more_of=S.VERIFY, replay_of=S.DISTILL),
    SupervisedRun(S.SFT_1, "sft1", start_from=S.SFT_0, snapshot_of=S.BUILD, version=2),
    Sampling(S.EVAL_SFT_1, OrderPurpose.EVAL, "eval", policy_of=S.SFT_1, split=Split.EVAL),
    Sampling(S.PROBE_SFT_1, OrderPurpose.PROBE, "reprobe", policy_of=S.SFT_1),
    ReinforcementRun(S.RL, start_from=S.SFT_1, version=3),
    Sampling(S.EVAL_RL, OrderPurpose.EVAL, "eval", policy_of=S.RL, split=Split.EVAL),
)
NAMES = tuple(work.name for work in CASCADE)
PROBES = tuple(work.name for work in CASCADE if isinstance(work, Sampling) and work.purpose is OrderPurpose.PROBE)


def work_of(name: str) -> Work:
    """The work of a stage."""
    return CASCADE[NAMES.index(S(name))]


def after(name: S) -> S | None:
    """The stage after this one; None after the last."""
    following = NAMES[NAMES.index(name) + 1 :]
    return following[0] if following else None


@dataclass(frozen=True)
class ReportedPolicy:
    """One row of the report: the policy of `policy_of`, judged in `evaluated_by`, which cost the stages in `made_by`."""

    stage: str
    policy_of: S
    evaluated_by: S
    made_by: tuple[S, ...] = ()


REPORTED = (
    ReportedPolicy("base", S.REGISTER, S.EVAL_BASE),
    ReportedPolicy("sft-0", S.SFT_0, S.EVAL_SFT_0, (S.TEACH, S.DISTILL, S.SFT_0)),
    ReportedPolicy("sft-1", S.SFT_1, S.EVAL_SFT_1, (S.PROBE_SFT_0, S.VERIFY, S.BUILD, S.SFT_1)),
    ReportedPolicy("rl", S.RL, S.EVAL_RL, (S.PROBE_SFT_1, S.RL)),
)
