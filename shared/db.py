"""The database: one async engine a process, sessions that commit once at the edge.

Each service keeps its tables in a schema of its own, named like the service.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine


class Database:
    """Owns the engine. Sizes: 10 connections a process, 10 more in a burst, 10 for `autocommit`; a wait for one ends after 10 s."""

    def __init__(self, url: str, pool_size: int = 10) -> None:
        self.engine: AsyncEngine = create_async_engine(
            url, pool_size=pool_size, max_overflow=10, pool_timeout=10, pool_pre_ping=True
        )
        self._autocommit: AsyncEngine = create_async_engine(
            url, isolation_level="AUTOCOMMIT", pool_size=pool_size, max_overflow=0, pool_timeout=10
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with self._sessions() as session, session.begin():
            yield session

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which every statement is a transaction of its own, for what has to be one round trip.

        It isn't tried beforehand: after the database was away, a statement may fail as one whose connection was lost does.
        """
        async with self._autocommit.connect() as connection:
            yield connection

    async def ping(self) -> None:
        """One round trip; raises what the driver raises when the database does not answer."""
        async with self.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")

    async def close(self) -> None:
        """Return every connection."""
        await self._autocommit.dispose()
        await self.engine.dispose()
