"""The near questions of the items of a chunk: found by shared bands, confirmed by their texts.

Bounded whatever comes in: an item is compared with at most `near.BANDS` × `MAX_PER_HASH` stored questions and as many of its chunk.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.repository import near as repository
from services.pool.repository.ingest import NewQuestion, StoredQuestion
from services.pool.repository.near import MAX_PER_HASH, StoredText
from services.pool.service import near
from services.pool.service.decide import Near
from services.pool.service.near import Words
from shared.contracts.questions import QuestionState, Split

Found = Mapping[int, Sequence[Near]]
WORDS_AT_ONCE = 500


def bands(campaign_id: UUID, texts: Sequence[str]) -> NDArray[np.int64]:
    """The band hashes of texts in a campaign, (N, bands); a few hundred n-gram sets are held at a time."""
    parts = [
        near.bands(campaign_id.bytes, [near.words(text) for text in texts[start : start + WORDS_AT_ONCE]])
        for start in range(0, len(texts), WORDS_AT_ONCE)
    ]
    return np.concatenate([np.empty((0, near.BANDS), np.int64), *parts])


async def find(
    session: AsyncSession, new: Sequence[NewQuestion], hashes: NDArray[np.int64], threshold: float
) -> dict[int, list[Near]]:
    """The near questions of each item, by its line; an item near nothing is left out. `hashes` are its bands."""
    found: dict[int, list[Near]] = defaultdict(list)
    if not len(new):
        return found
    by_hash: dict[int, list[UUID]] = defaultdict(list)
    for hash_, question_id in await repository.matches(session, hashes):
        by_hash[hash_].append(question_id)
    wanted: dict[UUID, set[int]] = defaultdict(set)
    for at, row in enumerate(hashes.tolist()):
        for hash_ in row:
            for question_id in by_hash.get(hash_, ()):
                wanted[question_id].add(at)
    read: dict[int, Words] = {}
    async for stored in repository.texts(session, list(wanted)):
        await asyncio.to_thread(_confirm, new, stored, wanted, threshold, read, found)
    await asyncio.to_thread(_confirm_among, new, hashes, threshold, read, found)
    return found


def _words(new: Sequence[NewQuestion], at: int, read: dict[int, Words]) -> Words:
    if at not in read:
        read[at] = near.words(new[at].question.question)
    return read[at]


def _confirm(
    new: Sequence[NewQuestion],
    stored: Sequence[StoredText],
    wanted: Mapping[UUID, set[int]],
    threshold: float,
    read: dict[int, Words],
    found: dict[int, list[Near]],
) -> None:
    """Which items these stored questions are near."""
    for question, text in stored:
        theirs = near.words(text)
        for at in wanted[question.id]:
            similarity = near.similarity(_words(new, at, read), theirs)
            if similarity >= threshold:
                found[new[at].line].append(Near(question, similarity, True))


def _confirm_among(
    new: Sequence[NewQuestion],
    hashes: NDArray[np.int64],
    threshold: float,
    read: dict[int, Words],
    found: dict[int, list[Near]],
) -> None:
    """Which items of the chunk are near an eval item, or an earlier train item."""
    first: dict[int, list[int]] = defaultdict(list)
    rows = hashes.tolist()
    for at in sorted(range(len(new)), key=lambda at: (new[at].question.split is not Split.EVAL, at)):
        others = {other for hash_ in rows[at] for other in first[hash_]}
        for hash_ in rows[at]:
            if len(first[hash_]) < MAX_PER_HASH:
                first[hash_].append(at)
        if new[at].question.split is Split.EVAL:
            continue
        for other in others:
            similarity = near.similarity(_words(new, at, read), _words(new, other, read))
            if similarity >= threshold:
                found[new[at].line].append(Near(_as_stored(new[other]), similarity, False))


def _as_stored(item: NewQuestion) -> StoredQuestion:
    question = item.question
    return StoredQuestion(
        item.id, item.text_hash, question.kind, question.split, QuestionState.CANDIDATE, question.answer
    )
