"""Answers to writes that came with an `Idempotency-Key`, for a day."""

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pool.models import IdempotencyKeyRow

KEPT_FOR = timedelta(days=1)


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


async def expire(session: AsyncSession) -> None:
    """Forget what was kept for long enough."""
    await session.execute(
        delete(IdempotencyKeyRow)
        .where(IdempotencyKeyRow.created_at <= func.now() - KEPT_FOR)
        .execution_options(synchronize_session=False)
    )
