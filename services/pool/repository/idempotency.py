"""Answers to writes that came with an `Idempotency-Key`, for a day; and who is carried out under which key at the moment."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import IdempotencyClaimRow, IdempotencyKeyRow

KEPT_FOR = timedelta(days=1)
_IS_OVER = IdempotencyClaimRow.until <= func.now()


async def get(session: AsyncSession, key: str) -> IdempotencyKeyRow | None:
    """The answer that is kept under a key."""
    is_kept = IdempotencyKeyRow.created_at > func.now() - KEPT_FOR
    return (
        await session.execute(select(IdempotencyKeyRow).where(IdempotencyKeyRow.key == key, is_kept))
    ).scalar_one_or_none()


async def keep(
    session: AsyncSession, key: str, request_hash: bytes, status: int, content_type: str, body: bytes
) -> bool:
    """Keep an answer; False when the key has one that is not expired."""
    values = {"request_hash": request_hash, "status": status, "content_type": content_type, "body": body}
    statement = insert(IdempotencyKeyRow).values(key=key, **values)
    taken = statement.on_conflict_do_update(
        index_elements=["key"],
        set_=values | {"created_at": func.now()},
        where=IdempotencyKeyRow.created_at <= func.now() - KEPT_FOR,
    )
    return (await session.execute(taken.returning(IdempotencyKeyRow.key))).scalar_one_or_none() is not None


async def claim(session: AsyncSession, key: str, token: UUID, claimed_for: timedelta) -> bool:
    """Claim a key; False when another token has a claim that is not over."""
    values = {"token": token, "until": func.now() + claimed_for}
    statement = insert(IdempotencyClaimRow).values(key=key, **values)
    taken = statement.on_conflict_do_update(index_elements=["key"], set_=values, where=_IS_OVER)
    return (await session.execute(taken.returning(IdempotencyClaimRow.key))).scalar_one_or_none() is not None


async def extend(session: AsyncSession, key: str, token: UUID, claimed_for: timedelta) -> bool:
    """Claim a key for longer; False when the claim is lost."""
    own = (IdempotencyClaimRow.key == key, IdempotencyClaimRow.token == token)
    extended = update(IdempotencyClaimRow).where(*own).values(until=func.now() + claimed_for)
    return (await session.execute(extended.returning(IdempotencyClaimRow.key))).scalar_one_or_none() is not None


async def release(session: AsyncSession, key: str, token: UUID) -> None:
    """Give a claim up, where it is not lost."""
    own = (IdempotencyClaimRow.key == key, IdempotencyClaimRow.token == token)
    await session.execute(delete(IdempotencyClaimRow).where(*own).execution_options(synchronize_session=False))


async def expire(session: AsyncSession) -> None:
    """Forget what was kept for long enough, and claims whose holders died."""
    expired = IdempotencyKeyRow.created_at <= func.now() - KEPT_FOR
    for row, is_over in ((IdempotencyKeyRow, expired), (IdempotencyClaimRow, _IS_OVER)):
        await session.execute(delete(row).where(is_over).execution_options(synchronize_session=False))
