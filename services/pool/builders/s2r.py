"""`s2r`: trajectories s1, v1, …, sk, vk out of the policy's own attempts (S²R stage 0), for SFT-1.

One attempt a response counts: its first, which no earlier attempt has coloured. Verifications are the policy's own
where it judged, and those of the domain's templates; the builder of trajectories drops every untrue one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from services.pool.builders.answers import AnsweredQuestion
from services.pool.builders.rows import Built, Row, row_of
from shared.contracts.recipe import BuildRecipe, VerificationStyle
from shared.trajectories.build import Attempt, DropReason, Example, Verification, s2r_trajectory
from shared.trajectories.domains import DOMAINS, Domain
from shared.trajectories.rounds import PUBLISHED_TABLE, RoundsTable

ALWAYS_ONE_ROUND = RoundsTable(tuple(replace(rule, keep_probability=1.0) for rule in PUBLISHED_TABLE.rules))


@dataclass(frozen=True, slots=True)
class _Material:
    """What one question offers."""

    question: AnsweredQuestion
    attempts: tuple[Attempt, ...]
    verifications: tuple[Verification, ...]


def build(questions: Sequence[AnsweredQuestion], recipe: BuildRecipe, replay: Sequence[Row], seed: int) -> Built:
    """Built rows, one-round rows, balance, replayed rows, limit, in this order; then shuffled."""
    rng = Random(seed)
    table = _table(recipe.keep_probability)
    dropped: Counter[str] = Counter()
    built: list[tuple[Row, Example]] = []
    materials = [_material(question, recipe, rng) for question in questions]
    for material in materials:
        example = s2r_trajectory(material.attempts, material.verifications, rng, table)
        if isinstance(example, DropReason):
            dropped[example] += 1
        else:
            built.append((_row(material, example), example))
    built.extend(_one_round(materials, built, recipe.one_round_fraction, rng))
    if recipe.balance_verdicts:
        kept = _balanced(built, rng)
        if len(kept) < len(built):
            dropped["verdict_balance"] = len(built) - len(kept)
        built = kept
    rows = [row for row, _ in built]
    rows.extend(rng.sample(replay, min(len(replay), round(recipe.replay_fraction * len(rows)))))
    rng.shuffle(rows)
    if recipe.max_rows and len(rows) > recipe.max_rows:
        dropped["max_rows"] = len(rows) - recipe.max_rows
        rows = rows[: recipe.max_rows]
    return Built(rows, dropped)


def _table(keep_probability: Sequence[float]) -> RoundsTable:
    """The published table with the recipe's probabilities for 1, 2, 3 and 4 rounds."""
    return RoundsTable(
        tuple(replace(rule, keep_probability=keep_probability[rule.rounds - 1]) for rule in PUBLISHED_TABLE.rules)
    )


def _material(question: AnsweredQuestion, recipe: BuildRecipe, rng: Random) -> _Material:
    attempts = tuple(attempt for answer in question.answers if (attempt := answer.first_attempt()) is not None)
    verifications: list[Verification] = []
    if recipe.own_verifications:
        verifications.extend(own for answer in question.answers for own in answer.own_verifications())
    if question.domain in DOMAINS:
        verifications.extend(_template_verifications(question, attempts, DOMAINS[question.domain], recipe, rng))
    return _Material(question, attempts, tuple(verifications))


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


def _one_round(
    materials: Sequence[_Material], built: Sequence[tuple[Row, Example]], fraction: float, rng: Random
) -> list[tuple[Row, Example]]:
    """Right first attempts, at most one a question, as a share of the rows with more rounds."""
    wanted = round(fraction * sum(row.rounds > 1 for row, _ in built))
    used = {row.question_id for row, _ in built if row.rounds == 1}
    added: list[tuple[Row, Example]] = []
    for material in rng.sample(materials, len(materials)):
        if len(added) == wanted:
            break
        right = [attempt for attempt in material.attempts if attempt.correct]
        if material.question.id in used or not right:
            continue
        example = s2r_trajectory(right, material.verifications, rng, ALWAYS_ONE_ROUND)
        if isinstance(example, Example):
            added.append((_row(material, example), example))
    return added


def _balanced(built: Sequence[tuple[Row, Example]], rng: Random) -> list[tuple[Row, Example]]:
    """Rows trimmed at random until as many FIRST verdicts are 'correct' as 'incorrect'.

    Later verdicts follow from their position (the last one is 'correct'); were the first one predictable too, a verifier could
    learn the sentence without the check.
    """
    shuffled = rng.sample(built, len(built))
    one_round = [pair for pair in shuffled if pair[0].rounds == 1]
    more_rounds = [pair for pair in shuffled if pair[0].rounds > 1]
    each = min(len(one_round), len(more_rounds))
    return one_round[:each] + more_rounds[:each]


def _row(material: _Material, example: Example) -> Row:
    return row_of(material.question.id, material.question.question, example)
