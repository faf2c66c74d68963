"""How many rounds a self-correcting trajectory gets, by how often the policy was wrong (S²R, stage 0).

The published table is for K=5 responses; here its thresholds are shares w/K, so it holds for every K.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoundsRule:
    """For questions with a wrong share up to `wrong_share_up_to`: wanted rounds, and what happens to them.

    `keep_probability` is for questions with enough distinct wrong attempts. With too few, fewer rounds are built, not below
    `fewest_rounds`, and kept with `fallback_keep_probability`; when even those cannot be had, the question is dropped.
    """

    wrong_share_up_to: float
    rounds: int
    keep_probability: float
    fewest_rounds: int
    fallback_keep_probability: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.fewest_rounds <= self.rounds:
            raise ValueError(f"fewest_rounds {self.fewest_rounds} must be in 1..{self.rounds}")
        if not (0 <= self.keep_probability <= 1 and 0 <= self.fallback_keep_probability <= 1):
            raise ValueError("keep probabilities must be in 0..1")


@dataclass(frozen=True, slots=True)
class RoundsTable:
    """Rules by rising wrong share; the last one must reach 1."""

    rules: tuple[RoundsRule, ...] = (
        RoundsRule(0.0, rounds=1, keep_probability=0.24, fewest_rounds=1),
        RoundsRule(0.2, rounds=2, keep_probability=0.5, fewest_rounds=2),
        RoundsRule(0.6, rounds=3, keep_probability=0.5, fewest_rounds=2),
        RoundsRule(1.0, rounds=4, keep_probability=0.5, fewest_rounds=2),
    )

    def __post_init__(self) -> None:
        shares = [rule.wrong_share_up_to for rule in self.rules]
        if not shares or shares != sorted(set(shares)) or shares[-1] != 1.0:
            raise ValueError(f"wrong shares must rise to 1.0, not {shares}")


PUBLISHED_TABLE = RoundsTable()


def rounds_for(wrong: int, k: int, table: RoundsTable = PUBLISHED_TABLE) -> RoundsRule:
    """The rule for `wrong` wrong answers out of `k`. Raises ValueError unless 0 <= wrong <= k and k > 0."""
    if k <= 0 or not 0 <= wrong <= k:
        raise ValueError(f"cannot have {wrong} wrong answers out of {k}")
    return next(rule for rule in table.rules if wrong <= rule.wrong_share_up_to * k + 1e-9)
