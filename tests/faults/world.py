"""A run of the pool under `kill -9`: real Postgres, Valkey and pool, samplers, trainers and a submitter, and who kills them.

The kills are spread over the items by a seed, not over the clock, so that a slow machine is killed as often as a quick one.
What a client was told is in its journal, what a trainer trained on in its checkpoints; `Evidence` is all of it at the end.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import httpx
from redis import Redis, RedisError
from sqlalchemy.ext.asyncio import create_async_engine

from tests.faults.client import Part
from tests.faults.facts import Evidence, Stored, read_checkpoints, read_stored
from tests.faults.journal import Fact, Tail, write_durably
from tests.faults.servers import Killable, KillablePool, KillablePostgres, KillableValkey, migrate
from tests.faults.trainer import FINISH, VERSION

DEADLINE_S = 1800.0
POLL_S = 0.05
KILLED = ("postgres", "pool", "sampler", "trainer")
ITEMS_A_WIPE = 1000
# Probes come at a quarter, a half, three quarters and all of the questions: 2.5 groups a question.
GROUPS_A_QUESTION = 2.5


@dataclass(frozen=True)
class Plan:
    """How much and how often. Half of the items are groups of probes, half are trained on."""

    items: int
    kills: int
    seed: int = 0
    samplers: int = 2
    trainers: int = 2
    max_staleness: int = 1
    groups_a_version: int = 96
    watermark: int = 128

    @property
    def questions(self) -> int:
        return round(self.items / 2 / GROUPS_A_QUESTION)

    def moments(self) -> list[tuple[int, str]]:
        """(acknowledged items, victim) in order: every kind of victim equally often, and Valkey wiped besides."""
        rng = random.Random(self.seed)
        victims = [KILLED[number % len(KILLED)] for number in range(self.kills)]
        wipes = ["valkey"] * max(2, self.items // ITEMS_A_WIPE)
        planned = [(int(rng.uniform(0.01, 0.9) * self.items), victim) for victim in victims + wipes]
        return sorted(planned)


@dataclass
class World:
    """Everything that runs; `kills` counts the `kill -9`s by victim."""

    plan: Plan
    directory: Path
    postgres: KillablePostgres
    valkey: KillableValkey
    pool: KillablePool
    campaign: str
    order: str = ""
    version: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    wipes: int = 0
    journal: list[Fact] = field(default_factory=list)
    clients: dict[str, Killable] = field(default_factory=dict)
    _lives: dict[str, int] = field(default_factory=dict)
    _handed_in: set[str] = field(default_factory=set)
    _trained: int = 0

    def __post_init__(self) -> None:
        self._tail = Tail(self.directory)
        self._rng = random.Random(f"{self.plan.seed}:killer")
        self._until = time.monotonic() + DEADLINE_S
        self._http = httpx.Client(base_url=self.pool.url, timeout=20, trust_env=False)

    def run(self) -> None:
        """From the first question to the last trained group. Raises: AssertionError when something ends or hangs."""
        self._set_up()
        for moment, victim in self.plan.moments():
            self._wait(f"item {moment}", lambda moment=moment: len(self._handed_in) >= moment)  # type: ignore[misc]
            time.sleep(self._rng.uniform(0, 0.2))
            self._strike(victim)
        self._wait("the submitter", lambda: any(fact["kind"] == "submitted" for fact in self.journal))
        self._wait("the probes", self._probes_are_complete)
        self._wait("the trainers", lambda: self._trained * 8 >= self.plan.items / 2)
        self._finish()

    def _set_up(self) -> None:
        write_durably(self.directory / VERSION, 0)
        self._repeat("PUT", f"/v1/campaigns/{self.campaign}/settings", json={"name": "faults"})
        order = {"key": "rollouts", "purpose": "rollout", "k": 2, "sampling": {}, "max_attempts": 20}
        policy = {"policy_id": self._policy(0), "policy_version": 0, "watermark_groups": self.plan.watermark}
        made = self._repeat("POST", "/v1/orders", json=order | policy | {"campaign_id": self.campaign})
        self.order = made["id"]
        for name in self._names("submitter", 1) + self._names("sampler", self.plan.samplers):
            self._begin(name)
        for name in self._names("trainer", self.plan.trainers):
            self._begin(name)

    def _names(self, role: str, count: int) -> list[str]:
        return [f"{role}-{number}" for number in range(count)]

    def _policy(self, version: int) -> str:
        return str(uuid5(UUID(self.campaign), f"policy:{version}"))

    def _begin(self, name: str) -> None:
        """The next life of a client process."""
        self._lives[name] = life = self._lives.get(name, 0) + 1
        part = Part(
            name=name,
            life=life,
            seed=self.plan.seed,
            pool_url=self.pool.url,
            valkey_port=self.valkey.port,
            directory=str(self.directory),
            campaign=self.campaign,
            order=self.order,
            items=self.plan.questions,
            max_staleness=self.plan.max_staleness,
        )
        role = name.partition("-")[0]
        command = (sys.executable, "-m", f"tests.faults.{role}", part.to_argument())
        self.clients[name] = Killable(command, self.directory / f"{name}.log")

    def _strike(self, victim: str) -> None:
        """Kill one and start it again; a Valkey loses all it had."""
        if victim == "valkey":
            self._wipe_valkey()
        elif victim == "postgres":
            self.postgres.kill()
            self.postgres.start()
        elif victim == "pool":
            self.pool.kill()
            self.pool.start()
        else:
            name = self._rng.choice([name for name in self.clients if name.startswith(victim)])
            self.clients[name].kill()
            self._begin(name)
        if victim != "valkey":
            self.kills[victim] = self.kills.get(victim, 0) + 1

    def _wipe_valkey(self) -> None:
        self.wipes += 1
        if self._rng.random() < 0.5:
            self.valkey.wipe()
            return
        try:
            with Redis(port=self.valkey.port, socket_timeout=5) as client:
                client.flushall()
        except RedisError:
            self.valkey.wipe()

    def _wait(self, what: str, reached: Callable[[], bool]) -> None:
        while not reached():
            self._look_after_everybody()
            self._publish_when_due()
            assert time.monotonic() < self._until, f"{what} was not reached in {DEADLINE_S:.0f} s: {self._standing()}"
            time.sleep(POLL_S)

    def _look_after_everybody(self) -> None:
        """Read what was told; nothing ends but by our hand."""
        for fact in self._tail.new_facts():
            self.journal.append(fact)
            if fact["kind"] == "group" and fact["group"] is not None:
                self._handed_in.add(fact["assignment"])
            self._trained += fact["kind"] == "trained"
        self.postgres.revive()
        assert self.pool.process.poll() is None, f"the pool ended: {self.pool.last_words()}"
        for name, client in self.clients.items():
            code = client.process.poll()
            assert code is None or (code == 0 and name.startswith("submitter")), f"{name} ended: {client.last_words()}"

    def _publish_when_due(self) -> None:
        """A new policy version every so many trained groups: trainers know it first, the order as soon as it can be told."""
        version = self._trained * 8 // self.plan.groups_a_version
        if version > self.version:
            write_durably(self.directory / VERSION, version)
            body = {"policy_id": self._policy(version), "policy_version": version}
            if self._try("PUT", f"/v1/orders/{self.order}/policy", json=body) is not None:
                self.version = version

    def _probes_are_complete(self) -> bool:
        orders = [fact["id"] for fact in self.journal if fact["kind"] == "order"]
        answers = [self._try("GET", f"/v1/orders/{order}") for order in sorted(set(orders))]
        time.sleep(0.2)
        return all(answer is not None and answer["state"] == "complete" for answer in answers)

    def _finish(self) -> None:
        """No more samples, then the trainers train on what waits, down to the last group."""
        self._repeat("POST", f"/v1/orders/{self.order}/close")
        for name in self._names("sampler", self.plan.samplers):
            client = self.clients.pop(name)
            client.stop()
            assert client.process.returncode == 0, f"{name} ended: {client.last_words()}"
        write_durably(self.directory / FINISH, True)
        for name in self._names("trainer", self.plan.trainers):
            client = self.clients.pop(name)
            code = client.process.wait(timeout=60)
            assert code == 0, f"{name} ended: {client.last_words()}"
        self._look_after_everybody()

    def _try(self, method: str, path: str, **request: Any) -> Any:
        """The body of a 2xx answer; None when it should be asked again."""
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError:
            return None
        assert response.is_success or response.status_code == 503, f"{path} answered {response.text}"
        return response.json() if response.is_success else None

    def _repeat(self, method: str, path: str, **request: Any) -> Any:
        while (answer := self._try(method, path, **request)) is None:
            assert time.monotonic() < self._until, f"{path} has no answer: {self.pool.last_words()}"
            self.postgres.revive()
            time.sleep(POLL_S)
        return answer

    def _standing(self) -> str:
        return f"{len(self._handed_in)} groups, {self._trained} steps, {self.kills}; {self.pool.last_words(500)}"

    def evidence(self) -> Evidence:
        """All that is known when everything has ended well."""
        stored = asyncio.run(_read(self.postgres.url))
        orders = {order["id"]: self._repeat("GET", f"/v1/orders/{order['id']}") for order in stored.orders}
        return Evidence(
            stored=stored,
            journal=self.journal,
            checkpoints=read_checkpoints(self.directory),
            counted_orders=orders,
            counted_pool=self._repeat("GET", "/v1/pools", params={"campaign": self.campaign}),
            campaign=self.campaign,
            standing_order=self.order,
            max_staleness=self.plan.max_staleness,
        )


async def _read(database_url: str) -> Stored:
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        stored = await read_stored(connection)
    await engine.dispose()
    return stored


@contextmanager
def running(plan: Plan, directory: Path) -> Iterator[World]:
    """A world with its servers up, which all end with it."""
    servers: list[Killable] = []
    postgres = KillablePostgres(directory / "postgres")
    servers.append(postgres)
    try:
        valkey = KillableValkey(directory / "valkey")
        servers.append(valkey)
        asyncio.run(postgres.until_ready())
        migrate(postgres.url)
        pool = KillablePool(directory, postgres.url, f"redis://127.0.0.1:{valkey.port}/0")
        servers.append(pool)
        pool.until_ready()
        campaign = str(uuid5(UUID(int=plan.seed), "faults"))
        world = World(plan, directory, postgres, valkey, pool, campaign)
        try:
            yield world
        finally:
            for client in world.clients.values():
                client.kill()
    finally:
        for server in reversed(servers):
            server.stop(signal.SIGINT if server is postgres else signal.SIGTERM)
