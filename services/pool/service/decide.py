"""What becomes of the good items of a chunk: a pure function of them and of what is stored.

Eval questions come first, so that they win over train questions whichever came first; a train question that is equal to or near
an eval question is refused; one that is near a train question of the same kind and answer is left out as its duplicate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from services.pool import identity
from services.pool.repository.ingest import NewQuestion, StoredQuestion
from services.pool.router import UNUSABLE_STATES
from services.pool.service.items import shown
from shared.contracts.questions import NearDuplicate, Refusal, RefusalReason, Split


class Near(NamedTuple):
    """A question whose text is near that of an item: a stored one, or another item of the chunk."""

    question: StoredQuestion
    similarity: float
    is_stored: bool


class Leaked(NamedTuple):
    """A stored train question that an eval question of item `line` is equal to or near."""

    question_id: UUID
    line: int
    similarity: float


@dataclass(slots=True)
class Decision:
    """What to store, what to refuse, what to leave out, whom to quarantine."""

    accepted: dict[UUID, NewQuestion] = field(default_factory=dict)
    duplicates: int = 0
    near_duplicates: list[NearDuplicate] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    leaked: dict[UUID, Leaked] = field(default_factory=dict)


def decide(
    new: Sequence[NewQuestion], stored: Sequence[StoredQuestion], near: Mapping[int, Sequence[Near]]
) -> Decision:
    """`near` is by the item's line; `stored` has the questions with the text of an item."""
    decision = Decision()
    answers = {question.id: question.answer for question in stored}
    evals = {question.text_hash for question in stored if question.split is Split.EVAL}
    for item in _of_split(new, Split.EVAL):
        evals.add(item.text_hash)
        if not _is_known(item, answers, decision):
            decision.accepted[item.id] = item
            _expose(item, stored, near.get(item.line, ()), decision)
    for item in _of_split(new, Split.TRAIN):
        if item.text_hash in evals:
            decision.refusals.append(_leak(item.line))
        elif not _is_known(item, answers, decision):
            _take(item, near.get(item.line, ()), decision)
    return decision


def _of_split(new: Sequence[NewQuestion], split: Split) -> list[NewQuestion]:
    return [item for item in new if item.question.split is split]


def _is_known(item: NewQuestion, answers: Mapping[UUID, str], decision: Decision) -> bool:
    """Whether the question is stored or accepted; then it is a duplicate, or a conflict when the answers differ."""
    if (first := decision.accepted.get(item.id)) is not None:
        answer = first.question.answer
    elif item.id in answers:
        answer = answers[item.id]
    else:
        return False
    if _same(item.question.answer, answer):
        decision.duplicates += 1
    else:
        decision.refusals.append(_conflict(item.line, answer))
    return True


def _expose(item: NewQuestion, stored: Sequence[StoredQuestion], near: Sequence[Near], decision: Decision) -> None:
    """Note the stored train questions that a new eval question takes out of training."""
    equal = (Near(question, 1.0, True) for question in stored if question.text_hash == item.text_hash)
    for question, similarity, is_stored in (*equal, *near):
        if is_stored and question.split is Split.TRAIN and question.state not in UNUSABLE_STATES:
            decision.leaked.setdefault(question.id, Leaked(question.id, item.line, similarity))


def _take(item: NewQuestion, near: Sequence[Near], decision: Decision) -> None:
    """Accept a train question, unless it is near an eval question or asks the same as another train question."""
    if not near:
        decision.accepted[item.id] = item
        return
    there = [found for found in near if found.is_stored or found.question.id in decision.accepted]
    evals = [found for found in there if found.question.split is Split.EVAL]
    same = [found for found in there if found.question.split is Split.TRAIN and _asks_the_same(item, found.question)]
    if evals:
        decision.refusals.append(_near_leak(item.line, max(evals, key=_similarity)))
    elif same:
        nearest = max(same, key=_similarity)
        found = NearDuplicate(line=item.line, question_id=nearest.question.id, similarity=round(nearest.similarity, 4))
        decision.near_duplicates.append(found)
    else:
        decision.accepted[item.id] = item


def _similarity(found: Near) -> float:
    return found.similarity


def _asks_the_same(item: NewQuestion, stored: StoredQuestion) -> bool:
    """Whether a near question is usable and of the same kind and answer: another answer makes it another question."""
    is_usable = stored.state not in UNUSABLE_STATES
    return is_usable and stored.kind == item.question.kind and _same(stored.answer, item.question.answer)


def _same(one: str, other: str) -> bool:
    return one == other or identity.normal_text(one) == identity.normal_text(other)


def _conflict(line: int, stored: str) -> Refusal:
    return Refusal(
        line=line,
        field="answer",
        reason=RefusalReason.CONFLICT,
        message=f"Item {line} is stored already with the answer '{shown(stored)}', and a stored question never changes; "
        "leave the item out, or start another campaign if the stored answer is wrong.",
    )


def _leak(line: int) -> Refusal:
    return Refusal(
        line=line,
        field="question",
        reason=RefusalReason.EVAL_LEAK,
        message=f"Item {line} has the text of an eval question, and those never train; leave it out.",
    )


def _near_leak(line: int, found: Near) -> Refusal:
    return Refusal(
        line=line,
        field="question",
        reason=RefusalReason.EVAL_LEAK,
        message=f"Item {line} is nearly the eval question {found.question.id} ({found.similarity:.0%} of their word 3-grams in "
        "common), and those never train; leave it out.",
    )
