"""What every client process of a fault run has: its part, its journal, and an HTTP client that never gives up too early."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.faults.journal import Journal

REPEAT_AFTER_S = 0.1
DEADLINE_S = 180.0


@dataclass(frozen=True)
class Part:
    """What one life of a client process is told; `order` is the standing order, `directory` holds what outlives it."""

    name: str
    life: int
    seed: int
    pool_url: str
    valkey_port: int
    directory: str
    campaign: str
    order: str = ""
    items: int = 0
    max_staleness: int = 1

    def to_argument(self) -> str:
        """One word of a command line."""
        return json.dumps(asdict(self))

    @property
    def path(self) -> Path:
        """The directory."""
        return Path(self.directory)


class Client:
    """A client of the pool in a process of its own."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.rng = random.Random(f"{part.seed}:{part.name}:{part.life}")
        self.journal = Journal(part.path / f"{part.name}-{part.life}")
        self.stopping = False
        self._http = httpx.Client(base_url=part.pool_url, timeout=20, trust_env=False)
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The first answer that is one: a request without it, or with a 5xx, is repeated as it is.

        Raises: TimeoutError after DEADLINE_S.
        """
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code < 500:
                return response
            if response is not None and response.status_code != 503:
                self.journal.write("broken", path=path, status=response.status_code, body=response.text[:500])
            if time.monotonic() > until:
                raise TimeoutError(f"{self.part.name}: {method} {path} has no answer for {DEADLINE_S:.0f} s")
            time.sleep(REPEAT_AFTER_S)

    def expect(self, method: str, path: str, **request: Any) -> Any:
        """The body of a 2xx answer; anything else ends this process with what was said."""
        response = self.ask(method, path, **request)
        if not response.is_success:
            raise SystemExit(
                f"{self.part.name}: {method} {path} answered {response.status_code}: {response.text[:500]}"
            )
        return response.json()


def play(role: Callable[[Client], None]) -> None:
    """The life of a client process."""
    role(Client(Part(**json.loads(sys.argv[1]))))
