"""Prompts are asked for once, and remembered within bounds."""

from typing import cast

from services.generation.client.engine import EngineClient
from services.generation.service.prompts import Prompts


class Engine:
    """A token a character."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def prompt_token_ids(self, text: str) -> tuple[int, ...]:
        self.asked.append(text)
        return tuple(map(ord, text))


async def test_the_least_recently_used_are_forgotten_beyond_the_bound():
    engine = Engine()
    prompts = Prompts(cast("EngineClient", engine), tokens_remembered=5)
    for text in ("ab", "cd", "ab", "ef", "ab", "cd"):
        assert await prompts.token_ids(text) == tuple(map(ord, text))
    assert engine.asked == ["ab", "cd", "ef", "cd"]
    prompts.forget()
    await prompts.token_ids("ab")
    assert engine.asked[-1] == "ab"


async def test_a_prompt_beyond_the_bound_is_answered_and_not_kept():
    engine = Engine()
    prompts = Prompts(cast("EngineClient", engine), tokens_remembered=1)
    assert len(await prompts.token_ids("abc")) == 3
    assert len(await prompts.token_ids("abc")) == 3
    assert engine.asked == ["abc", "abc"]
