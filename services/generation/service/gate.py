"""Who may use an engine that holds one full set of weights at a time.

Invariant: while a request is inside, the weights it entered for stay. A request for other weights waits until those
inside have left, then the weights are switched once and everybody who waits for them is let in together. Newcomers
queue behind a waiting switch, so neither side starves, and two policies that compete take turns in batches.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Switch = Callable[[str], Awaitable[None]]


class SwitchFailedError(Exception):
    """The asked weights could not be loaded, but `resident` is what the engine holds now. `cause` is for the requests."""

    def __init__(self, cause: Exception, resident: str | None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.resident = resident


class ResidencyGate:
    """Keys are content hashes of full weights. `switch(key)` makes them resident or raises; it runs alone. After any error
    but SwitchFailedError what the engine holds is unknown, and the next one to enter has its weights loaded.

    A switch belongs to the gate and not to a request: a request that is cancelled never leaves an engine half-way.
    """

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._switching: asyncio.Task[None] | None = None
        self._target: str | None = None
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self.resident: str | None = None
        self.inside = 0

    @asynccontextmanager
    async def enter(self, key: str) -> AsyncIterator[None]:
        """Hold the weights `key` for as long as the block runs. Raises what the switch raised."""
        await self._admission(key)
        try:
            yield
        finally:
            self.inside -= 1
            self._advance()

    @property
    def is_switching(self) -> bool:
        """Whether the weights are being replaced right now."""
        return self._switching is not None

    @property
    def wanted(self) -> frozenset[str]:
        """The weights that are resident, being loaded, or waited for."""
        return frozenset(key for key in (self.resident, self._target, *self._waiting) if key is not None)

    def adopt(self, resident: str | None) -> None:
        """Take over what the engine says that it holds; None, after a restart, is: unknown, load it again."""
        if self._switching is None:
            self.resident = resident
            self._advance()

    async def _admission(self, key: str) -> None:
        if key == self.resident and not self._waiting and self._switching is None:
            self.inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(turn)
        self._advance()
        try:
            await turn
        except asyncio.CancelledError:
            self._withdraw(key, turn)
            raise

    def _withdraw(self, key: str, turn: asyncio.Future[None]) -> None:
        if turn in self._waiting.get(key, ()):
            self._waiting[key].remove(turn)
            if not self._waiting[key]:
                del self._waiting[key]
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self.inside -= 1
        self._advance()

    def _advance(self) -> None:
        """Let in those whose turn it is, or start the next switch when the engine is empty."""
        while self._waiting and self._switching is None:
            key = next(iter(self._waiting))
            if key != self.resident:
                if self.inside == 0:
                    self._switching = asyncio.get_running_loop().create_task(self._run_switch(key))
                return
            for turn in self._waiting.pop(key):
                if not turn.cancelled():
                    self.inside += 1
                    turn.set_result(None)

    async def _run_switch(self, key: str) -> None:
        failure: Exception | None = None
        self.resident, self._target = None, key
        try:
            await self._switch(key)
            self.resident = key
        except SwitchFailedError as error:
            failure, self.resident = error.cause, error.resident
        except Exception as error:  # noqa: BLE001 - handed to every request that waited for this switch
            failure = error
        self._switching = self._target = None
        if failure is not None:
            for turn in self._waiting.pop(key, ()):
                if not turn.cancelled():
                    turn.set_exception(failure)
        self._advance()
