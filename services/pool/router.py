"""Where a question goes: pure functions over pass rates, configured by the campaign (algorithms: STAgent's split)."""

from collections import Counter
from dataclasses import dataclass, replace

from shared.contracts.orders import OrderPurpose
from shared.contracts.questions import QuestionState, Split
from shared.contracts.recipe import RouterRecipe

UNUSABLE_STATES = (QuestionState.QUARANTINED, QuestionState.RETRACTED)
USABLE_STATES = tuple(state for state in QuestionState if state not in UNUSABLE_STATES)
TINY_POOL = "tiny"


@dataclass(frozen=True, slots=True)
class PassRate:
    """`correct` right ones of `n` > 0 scored responses; unscored responses are in neither."""

    n: int
    correct: int

    def __post_init__(self) -> None:
        if self.n <= 0 or not 0 <= self.correct <= self.n:
            raise ValueError(f"cannot have {self.correct} right ones of {self.n} scored responses")

    @property
    def mean(self) -> float:
        """Share of right responses, in [0, 1]."""
        return self.correct / self.n

    @property
    def variance(self) -> float:
        """Variance of the 0/1 outcome: mean · (1 - mean)."""
        return self.mean * (1.0 - self.mean)


def level_of(pass_rate: PassRate, router: RouterRecipe) -> int:
    """1 (easy) to 5 (hard): one more for every cut that the mean is below."""
    return 1 + sum(pass_rate.mean < cut for cut in router.level_cuts)


def state_of(pass_rate: PassRate, router: RouterRecipe) -> QuestionState:
    """noise up to `noise_below`, trivial from `trivial_from`, certain from `certain_from`, else hard."""
    mean = pass_rate.mean
    if mean <= router.noise_below:
        return QuestionState.NOISE
    if mean >= router.trivial_from:
        return QuestionState.TRIVIAL
    return QuestionState.CERTAIN if mean >= router.certain_from else QuestionState.HARD


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a question stands. `probed_version`: the policy version whose probe said so; None before any probe."""

    split: Split
    state: QuestionState
    tiny: bool = False
    level: int | None = None
    pass_rate: float | None = None
    probed_version: int | None = None

    @property
    def usable(self) -> bool:
        """Whether it may be sampled and trained on."""
        return self.state not in UNUSABLE_STATES

    def quarantined(self) -> "Standing":
        """Out for good; what was measured stays readable."""
        return replace(self, state=QuestionState.QUARANTINED)

    def retracted(self) -> "Standing":
        """Out for good, by a person's word; what was measured stays readable."""
        return replace(self, state=QuestionState.RETRACTED)

    def counted_as(self) -> frozenset[str]:
        """The campaign's counters that this question is in. States, levels and `tiny` count train questions."""
        if self.split is Split.EVAL:
            return frozenset({"eval"} if self.usable else ())
        names = {f"state:{self.state}"}
        if self.usable:
            names.add("train")
            names.update({"tiny"} if self.tiny else ())
            names.update({f"level:{self.level}"} if self.level is not None else ())
        return frozenset(names)


def pool_moves(before: Standing, after: Standing) -> list[tuple[str, str]]:
    """(from, to) of each pool that a question changed. `tiny` lies beside the states, so it is entered from one and left to one."""
    moves = [(str(before.state), str(after.state))] if before.state is not after.state else []
    if before.tiny is not after.tiny:
        moves.append((str(after.state), TINY_POOL) if after.tiny else (TINY_POOL, str(after.state)))
    return moves


def measured_as(before: Standing, after: Standing) -> Counter[tuple[int, int]]:
    """What changes in the counts of questions by (policy version, level): the newest probe under a version counts for it."""
    changes: Counter[tuple[int, int]] = Counter()
    if after.probed_version is not None and after.level is not None:
        changes[after.probed_version, after.level] += 1
        if before.probed_version == after.probed_version and before.level is not None:
            changes[after.probed_version, before.level] -= 1
    return changes


@dataclass(frozen=True, slots=True)
class Answered:
    """What one group says about its question."""

    purpose: OrderPurpose
    policy_version: int
    scored: int
    correct: int
    reference_unparseable: bool


def after_group(standing: Standing, answered: Answered, router: RouterRecipe) -> Standing:
    """Where a question stands after one more group.

    A probe sets level and pass rate, and routes a train question; one by an older policy than the last changes nothing.
    A right answer for `teach` makes a train question tiny. A reference that no response could be compared with
    quarantines. A group without any scored response says nothing else.
    """
    if not standing.usable:
        return standing
    if answered.reference_unparseable:
        return standing.quarantined()
    train = standing.split is Split.TRAIN
    if answered.purpose is OrderPurpose.TEACH and train and answered.correct:
        return replace(standing, tiny=True)
    older = standing.probed_version is not None and answered.policy_version < standing.probed_version
    if answered.purpose is not OrderPurpose.PROBE or not answered.scored or older:
        return standing
    pass_rate = PassRate(answered.scored, answered.correct)
    return replace(
        standing,
        state=state_of(pass_rate, router) if train else standing.state,
        level=level_of(pass_rate, router),
        pass_rate=pass_rate.mean,
        probed_version=answered.policy_version,
    )
