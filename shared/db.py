"""The database: one async engine a process, sessions that commit once at the edge.

Each service keeps its tables in a schema of its own, named like the service.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine


class Database:
    """Owns the engine. Sizes: 10 connections a process, 10 more in a burst, 10 for `autocommit`; a wait for one ends after 10 s."""

    def __init__(self, url: str, pool_size: int = 10) -> None:
        self.engine: AsyncEngine = create_async_engine(url, pool_size=pool_size, max_overflow=10, pool_timeout=10)
        self._autocommit: AsyncEngine = create_async_engine(
            url, isolation_level="AUTOCOMMIT", pool_size=pool_size, max_overflow=0, pool_timeout=10
        )
        for engine in (self.engine, self._autocommit):
            event.listen(engine.sync_engine, "checkout", _refuse_closed)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._statements = async_sessionmaker(self._autocommit, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with self._sessions() as session, session.begin():
            yield session

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncSession]:
        """A session in which every statement is a transaction of its own: one round trip in place of three."""
        async with self._statements() as session:
            yield session

    async def ping(self) -> None:
        """One round trip; raises what the driver raises when the database does not answer."""
        async with self.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")

    async def close(self) -> None:
        """Return every connection."""
        await self._autocommit.dispose()
        await self.engine.dispose()


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """Take no connection that the database has closed. It costs no round trip, as SQLAlchemy's own ping does three."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError("the database closed its connections")
