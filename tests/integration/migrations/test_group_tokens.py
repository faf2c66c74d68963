"""Token arrays move out of groups and responses and back, value by value."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.migrations.database import configuration, migrate

pytestmark = pytest.mark.integration
GROUPS = 450
FILL = f"""
    INSERT INTO pool.campaigns (id, name, router) VALUES (gen_random_uuid(), 'test', '{{}}');
    INSERT INTO pool.questions (id, campaign_id, text_hash, text, answer, kind, split, domain, source)
        SELECT gen_random_uuid(), id, '', '?', '1', 'math', 'train', 'text', '' FROM pool.campaigns;
    INSERT INTO pool.orders (id, campaign_id, key, request_hash, purpose, policy_id, policy_version, k, sampling, selection,
        max_attempts, deadline_s) SELECT id, id, 'probe', '', 'probe', id, 1, 3, '{{}}', '{{}}', 1, 1 FROM pool.campaigns;
    INSERT INTO pool.assignments (order_id, question_id, policy_id, policy_version)
        SELECT o.id, q.id, o.id, 1 FROM pool.orders o, pool.questions q, generate_series(1, {GROUPS});
    INSERT INTO pool.groups (id, assignment_id, order_id, question_id, policy_id, policy_version, prompt_token_ids, scored,
        correct, unscored, tokens, late, consumption, created_at)
        SELECT gen_random_uuid(), id, order_id, question_id, policy_id, 1, decode(md5(id::text), 'hex'), 0, 0, 0, 0, false, 'none',
            now() - sequence * interval '1 hour' FROM pool.assignments;
    INSERT INTO pool.responses (group_id, position, text, finish_reason, token_ids, logprobs, token_ends, outcome, segments,
        verifier, milliseconds)
        SELECT id, n, 'text', 'stop', decode(repeat(md5(id::text || n), n * 200), 'hex'),
            decode(repeat(md5(n || id::text), n * 200), 'hex'),
            decode(repeat('0a000000', n * 800), 'hex'), 'correct', '[]', 'test@1', 0 FROM pool.groups, generate_series(0, 2) AS n;
"""  # fmt: skip
BEFORE = """
    SELECT g.id, g.prompt_token_ids, array_agg(r.token_ids ORDER BY position), array_agg(r.logprobs ORDER BY position),
        array_agg(r.token_ends ORDER BY position) FROM pool.groups g JOIN pool.responses r ON r.group_id = g.id GROUP BY g.id
"""
AFTER = """
    SELECT g.id, t.prompt_token_ids, t.token_ids, t.logprobs, t.token_ends,
        (SELECT array_agg(tokens ORDER BY position) FROM pool.responses WHERE group_id = g.id)
    FROM pool.groups g JOIN pool.group_tokens t ON t.group_id = g.id AND t.created_at = g.created_at
"""


async def test_token_arrays_move_out_and_back(empty: AsyncEngine):
    config = configuration()
    assert await migrate(config, "upgrade", "0010_ingest") is None
    async with empty.begin() as connection:
        for statement in FILL.split(";\n"):
            if statement.strip():
                await connection.execute(text(statement))
        before = {row[0]: row for row in await connection.execute(text(BEFORE))}
    assert len(before) == GROUPS
    assert await migrate(config, "upgrade", "0011_group_tokens") is None
    async with empty.begin() as connection:
        rows = (await connection.execute(text(AFTER))).all()
        strays = (await connection.execute(text("SELECT count(*) FROM pool.group_tokens_default"))).scalar_one()
    assert (len(rows), strays) == (GROUPS, 0)
    for group_id, prompt, *arrays, tokens in rows:
        _, prompt_before, *arrays_before = before[group_id]
        assert prompt == prompt_before
        assert arrays == [b"".join(parts) for parts in arrays_before]
        assert tokens == [0, 800, 1600]
    assert await migrate(config, "downgrade", "0010_ingest") is None
    async with empty.begin() as connection:
        after = {row[0]: row for row in await connection.execute(text(BEFORE))}
    assert after == before
