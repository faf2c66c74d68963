"""`s2r`: trajectories s1, v1, …, sk, vk out of the policy's own attempts (S²R stage 0), for SFT-1.

One attempt a response counts: its first, which no earlier attempt has coloured. Verifications are those that were
ordered, the policy's own where it judged, and those of the domain's templates; the builder of trajectories drops every untrue one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import pyarrow as pa

from services.pool.builders.answers import AnsweredQuestion
from services.pool.builders.builder import Candidate, Choice, Kinds
from services.pool.builders.lots import Lots, Mask, draw, generator_of, lowest, numbered, redrawn
from services.pool.builders.rows import SCHEMA, row_of
from shared.contracts.recipe import BuildRecipe, VerificationStyle
from shared.trajectories.build import Attempt, DropReason, Example, Verification, s2r_trajectory
from shared.trajectories.domains import DOMAINS, Domain
from shared.trajectories.rounds import PUBLISHED_TABLE, RoundsTable

ALWAYS_ONE_ROUND = RoundsTable(tuple(replace(rule, keep_probability=1.0) for rule in PUBLISHED_TABLE.rules))


BALANCE_LOT, LIMIT_LOT = 1, 2
ONE_ROUND, MORE_ROUNDS, ADDED = range(3)


@dataclass(frozen=True, slots=True)
class _Material:
    """What one question offers."""

    attempts: tuple[Attempt, ...]
    verifications: tuple[Verification, ...]


@dataclass(frozen=True, slots=True)
class S2rBuilder:
    """Built rows, one-round rows added, balance, replayed rows, limit, in this order."""

    recipe: BuildRecipe
    seed: int
    dropped: Counter[str] = field(default_factory=Counter)
    schema: pa.Schema = SCHEMA

    def candidates(self, item: AnsweredQuestion) -> Iterator[Candidate]:
        """The trajectory of a question and, unless it has one round, its right first attempt in one round."""
        rng = generator_of(self.seed, item.id)
        lot = draw(rng)
        material = _material(item, self.recipe, rng)
        table = _table(self.recipe.keep_probability)
        example = s2r_trajectory(material.attempts, material.verifications, rng, table)
        kind = ADDED
        if isinstance(example, DropReason):
            self.dropped[example] += 1
        else:
            row = row_of(item.id, item.question, example)
            kind = ONE_ROUND if row.rounds == 1 else MORE_ROUNDS
            yield Candidate(row.record(), kind, lot)
        right = [attempt for attempt in material.attempts if attempt.correct]
        if kind != ONE_ROUND and right and self.recipe.one_round_fraction:
            example = s2r_trajectory(right, material.verifications, rng, ALWAYS_ONE_ROUND)
            if isinstance(example, Example):
                yield Candidate(row_of(item.id, item.question, example).record(), ADDED, lot)

    def choose(self, kinds: Kinds, lots: Lots, replayable: int) -> Choice:
        """The balanced rows, the share of replayed ones, all of them up to the limit."""
        more = kinds == MORE_ROUNDS
        added = lowest(kinds == ADDED, lots, round(self.recipe.one_round_fraction * int(more.sum())))
        own = more | (kinds == ONE_ROUND) | added
        if self.recipe.balance_verdicts:
            own = self._balanced(own & ~more, more, redrawn(lots, BALANCE_LOT))
        replay_lots = numbered(replayable, self.seed)
        wanted = round(self.recipe.replay_fraction * int(own.sum()))
        replayed = lowest(np.ones(replayable, dtype=np.bool_), replay_lots, wanted)
        return self._limited(Choice(own, replayed), np.concatenate([redrawn(lots, LIMIT_LOT), replay_lots]))

    def complete(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """As they are."""
        return batch

    def _balanced(self, one_round: Mask, more_rounds: Mask, lots: Lots) -> Mask:
        """As many rows whose FIRST verdict is 'correct' as 'incorrect'.

        Later verdicts follow from their position (the last one is 'correct'); were the first one predictable too, a verifier could
        learn the sentence without the check.
        """
        each = min(int(one_round.sum()), int(more_rounds.sum()))
        kept = lowest(one_round, lots, each) | lowest(more_rounds, lots, each)
        self._count("verdict_balance", int(one_round.sum()) + int(more_rounds.sum()) - int(kept.sum()))
        return kept

    def _limited(self, choice: Choice, lots: Lots) -> Choice:
        everything = np.concatenate([choice.own, choice.replayed])
        limit = self.recipe.max_rows or int(everything.sum())
        kept = lowest(everything, lots, limit)
        self._count("max_rows", int(everything.sum()) - int(kept.sum()))
        return Choice(kept[: len(choice.own)], kept[len(choice.own) :])

    def _count(self, reason: str, rows: int) -> None:
        if rows:
            self.dropped[reason] += rows


def _table(keep_probability: Sequence[float]) -> RoundsTable:
    """The published table with the recipe's probabilities for 1, 2, 3 and 4 rounds."""
    return RoundsTable(
        tuple(replace(rule, keep_probability=keep_probability[rule.rounds - 1]) for rule in PUBLISHED_TABLE.rules)
    )


def _material(question: AnsweredQuestion, recipe: BuildRecipe, rng: Random) -> _Material:
    attempts = tuple(attempt for answer in question.answers if (attempt := answer.first_attempt()) is not None)
    verifications: list[Verification] = []
    verifications.extend(one for answer in question.answers if (one := answer.verification()) is not None)
    if recipe.own_verifications:
        verifications.extend(own for answer in question.answers for own in answer.own_verifications())
    if question.domain in DOMAINS:
        verifications.extend(_template_verifications(question, attempts, DOMAINS[question.domain], recipe, rng))
    return _Material(attempts, tuple(verifications))


def _template_verifications(
    question: AnsweredQuestion, attempts: Sequence[Attempt], domain: Domain, recipe: BuildRecipe, rng: Random
) -> Iterator[Verification]:
    """One of the domain for each distinct answer, in a style drawn by its weight; the other style where that one cannot."""
    styles = [style for style in VerificationStyle if recipe.styles.get(style, 0.0) > 0]
    weights = [recipe.styles[style] for style in styles]
    solution = domain.solve(question.question, question.solution)
    right = [attempt.text for attempt in attempts if attempt.correct]
    others = [*([solution] if solution is not None else ()), *right]
    for answer in dict.fromkeys(attempt.answer for attempt in attempts if attempt.answer):
        drawn = rng.choices(styles, weights)[0] if styles else None
        other = rng.choice(others) if others else None
        for style in sorted(styles, key=lambda style: style is not drawn):
            text = None
            if style is VerificationStyle.CONFIRMATIVE:
                text = domain.confirm(question.question, answer)
            elif other is not None:
                text = domain.recompute(question.question, answer, other)
            if text is not None:
                yield Verification(answer, text)
                break
