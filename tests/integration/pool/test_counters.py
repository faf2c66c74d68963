"""Counters: folding changes no sum, and leaves little to sum."""

from uuid import uuid4

import pytest
from sqlalchemy import text

from services.pool.repository import counters
from shared.db import Database

pytestmark = pytest.mark.integration


async def test_folding_a_long_tail_ends_and_changes_no_sum(database_url: str):
    database, scopes = Database(database_url), [uuid4(), uuid4()]
    for number in range(120):
        async with database.transaction() as session:
            deltas = counters.Deltas()
            deltas.add(scopes[0], "busy", number)
            deltas.add(scopes[1], "busy", -1)
            if number < 3:
                deltas.add(scopes[1], "quiet")
            await deltas.write(session)
    folds = 0
    async with database.transaction() as session:
        before = await counters.of_scopes(session, scopes)
        while await counters.fold(session, above=10, at_once=50):
            folds += 1
        assert await counters.of_scopes(session, scopes) == before
        left = (await session.execute(text("SELECT count(*) FROM pool.counters"))).scalar_one()
    await database.close()
    assert before == {scopes[0]: {"busy": 7140}, scopes[1]: {"busy": -120, "quiet": 3}}
    assert folds >= 4
    assert left <= 10 + 10 + 3
