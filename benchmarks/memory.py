"""The pool's API in a process of its own, with Postgres and Valkey, and what memory it takes."""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.servers import KillablePool, KillablePostgres, KillableValkey, migrate

SAMPLE_EVERY_S = 0.1


class Watch:
    """The memory of a process, in MB: RSS, and PSS, in which pages that other processes use too are shared out.

    `before` is its RSS when the watch begins, `rss` and `pss` are the most there was while it lasted.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/smaps_rollup")
        self._ended = threading.Event()
        self.before, self.pss = self._read()
        self.rss = self.before
        self.samples = 0

    def _read(self) -> tuple[float, float]:
        fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines()[1:])
        return int(fields["Rss"].split()[0]) / 1000, int(fields["Pss"].split()[0]) / 1000

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            rss, pss = self._read()
            self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)
            self.samples += 1

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def pool_process() -> Iterator[KillablePool]:
    """A pool that is ready, on an empty database."""
    with tempfile.TemporaryDirectory(prefix="headwater-memory-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        postgres, valkey = KillablePostgres(directory / "postgres"), KillableValkey(directory / "valkey")
        try:
            asyncio.run(postgres.until_ready())
            migrate(postgres.url)
            pool = KillablePool(directory, postgres.url, f"redis://127.0.0.1:{valkey.port}/0")
            try:
                pool.until_ready()
                yield pool
            finally:
                pool.stop()
        finally:
            valkey.stop()
            postgres.stop()
