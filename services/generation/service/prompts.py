"""Prompts in the model's chat template, remembered: the same question comes back with every policy."""

from array import array
from collections import OrderedDict

from services.generation.client.engine import EngineClient

TOKENS_REMEMBERED = 4_000_000


class Prompts:
    """The token ids of one engine's prompts; the least recently used are forgotten beyond TOKENS_REMEMBERED tokens, 4 bytes each."""

    def __init__(self, client: EngineClient, tokens_remembered: int = TOKENS_REMEMBERED) -> None:
        self._client = client
        self._room = self._capacity = tokens_remembered
        self._known: OrderedDict[str, array[int]] = OrderedDict()

    async def token_ids(self, text: str) -> tuple[int, ...]:
        """The prompt's tokens. Raises: what the engine raises."""
        if text in self._known:
            self._known.move_to_end(text)
            return tuple(self._known[text])
        token_ids = await self._client.prompt_token_ids(text)
        if text not in self._known:
            self._known[text] = array("i", token_ids)
            self._room -= len(token_ids)
        while self._room < 0:
            _, forgotten = self._known.popitem(last=False)
            self._room += len(forgotten)
        return token_ids

    def forget(self) -> None:
        """All of them: the engine may have another template."""
        self._known.clear()
        self._room = self._capacity
