"""Items of a submission on their way in: some of them together, judged when it is their turn."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from services.pool.service import items
from services.pool.service.bodies import BrokenStreamError
from services.pool.service.lines import Item
from shared.contracts.questions import QuestionIn, Refusal

CHUNK_ITEMS = 4000
CHUNK_BYTES = 2_000_000


class Judged(NamedTuple):
    """The question of an item, or why there is none."""

    line: int
    outcome: QuestionIn | Refusal


class Block(Protocol):
    """Some items that follow each other, not judged yet."""

    @property
    def size_bytes(self) -> int:
        """About how much is held."""

    def __len__(self) -> int:
        """How many items."""

    def judge(self) -> list[Judged]:
        """Judge each; takes processor time and waits for nothing."""


class Lines:
    """Items of JSON or NDJSON."""

    def __init__(self, found: Sequence[Item]) -> None:
        self._found = found
        self.size_bytes = sum(len(item.data) for item in found if item.data is not None)

    def __len__(self) -> int:
        """How many items."""
        return len(self._found)

    def judge(self) -> list[Judged]:
        """Judge each."""
        outcomes = items.read_all(self._found)
        return [Judged(item.line, outcome) for item, outcome in zip(self._found, outcomes, strict=True)]


async def of_lines(stream: AsyncIterator[list[Item]]) -> AsyncIterator[Block]:
    """Items as they were cut, never more than a chunk together."""
    async for found in stream:
        for start in range(0, len(found), CHUNK_ITEMS):
            yield Lines(found[start : start + CHUNK_ITEMS])


async def chunks(stream: AsyncIterator[Block]) -> AsyncIterator[list[Block]]:
    """Blocks put together to chunks that are worth a transaction, whatever the stream breaks with at its end.

    Never more than `CHUNK_ITEMS` items and one block; or `CHUNK_BYTES` and one block.
    """
    chunk: list[Block] = []
    try:
        async for block in stream:
            chunk.append(block)
            if sum(map(len, chunk)) >= CHUNK_ITEMS or sum(block.size_bytes for block in chunk) >= CHUNK_BYTES:
                yield chunk
                chunk = []
    except BrokenStreamError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk
