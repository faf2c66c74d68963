"""A trainer without a model: its whole training is a durable list of the groups it has trained on.

One step: lease the batch of the step, write the checkpoint that holds it, acknowledge. A checkpoint whose batch went back to the
pool before the acknowledgement is thrown away: the step is leased and trained again. A new life takes a higher fence,
acknowledges what its newest checkpoint holds, gives back what came after, and goes on.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from tests.faults.client import Client, play
from tests.faults.journal import sync_directory, write_durably

GROUPS = 8
LEASE_S = 3.0
POLL_S = 0.05
FINISH = "finish"
VERSION = "version"


def run_id(name: str) -> str:
    """The run that a trainer of this name carries on."""
    return str(uuid5(NAMESPACE_URL, f"faults/{name}"))


def newest_version(directory: Path) -> int:
    """The newest policy version that was published."""
    return int(json.loads((directory / VERSION).read_text()))


@dataclass
class Trainer:
    """One life of a run."""

    client: Client
    fence: int
    checkpoints: Path

    @property
    def _run(self) -> str:
        return run_id(self.client.part.name)

    def resume(self) -> int:
        """The step to go on with."""
        newest = max((int(path.stem) for path in self.checkpoints.glob("*.json")), default=-1)
        holds = newest < 0 or self.acknowledge(newest, json.loads(self._file(newest).read_text())["batch"])
        step = newest + 1 if holds else newest
        self.release(step)
        return step

    def train(self, step: int) -> bool:
        """Lease, checkpoint and acknowledge a step until it holds. False when there is nothing left to train on."""
        while True:
            batch = self.lease(step)
            if batch is None:
                return False
            if self.client.rng.random() < 0.01:
                time.sleep(LEASE_S + 0.5)  # a slow step: the lease may be over, and somebody else may have the groups
            groups = [[group["id"], group["policy_version"]] for group in batch["groups"]]
            write_durably(
                self._file(step), {"run": self._run, "step": step, "batch": batch["batch_id"], "groups": groups}
            )
            if self.acknowledge(step, batch["batch_id"]):
                return True

    def lease(self, step: int) -> Any:
        """The batch of a step; None when everybody is finishing and no group waits."""
        groups = GROUPS
        while True:
            finishing = (self.client.part.path / FINISH).exists()
            batch = self._ask_for_lease(step, groups)
            if batch["batch_id"] is not None and self.client.rng.random() < 0.05:
                batch = self._ask_for_lease(step, groups)  # as if the answer had been lost
            if batch["batch_id"] is not None and self.client.rng.random() < 0.03:
                self.release(step)
                continue
            if batch["batch_id"] is not None:
                return batch
            if finishing and not batch["waiting"]:
                return None
            groups = min(GROUPS, batch["waiting"]) if finishing else GROUPS
            time.sleep(POLL_S)

    def _ask_for_lease(self, step: int, groups: int) -> Any:
        part = self.client.part
        version = newest_version(part.path)
        body = {"order_id": part.order, "run_id": self._run, "step": step, "fence": self.fence, "groups": groups}
        limits = {"policy_version": version, "max_staleness": part.max_staleness, "lease_s": LEASE_S}
        batch = self.client.expect("POST", "/v1/batches/lease", json=body | limits)
        self.client.journal.write(
            "lease",
            run=self._run,
            step=step,
            batch=batch["batch_id"],
            version=version,
            groups=[[group["id"], group["policy_version"]] for group in batch["groups"]],
        )
        return batch

    def acknowledge(self, step: int, batch: str) -> bool:
        """Whether the step holds; if not, its checkpoint is gone."""
        body = {"run_id": self._run, "step": step, "fence": self.fence}
        answer = self.client.ask("POST", f"/v1/batches/{batch}/ack", json=body)
        if answer.is_success:
            self.client.journal.write("trained", run=self._run, step=step, batch=batch)
            return True
        if answer.status_code != 409 or answer.json()["error"]["code"] != "batch_lost":
            raise SystemExit(f"{self.client.part.name}: ack answered {answer.status_code}: {answer.text[:500]}")
        self._file(step).unlink()
        sync_directory(self.checkpoints)
        self.client.journal.write("discarded", run=self._run, step=step, batch=batch)
        return False

    def release(self, from_step: int) -> None:
        """Give back what is in no checkpoint."""
        body = {"run_id": self._run, "fence": self.fence, "from_step": from_step}
        self.client.expect("POST", "/v1/batches/release", json=body)

    def _file(self, step: int) -> Path:
        return self.checkpoints / f"{step}.json"


def main(client: Client) -> None:
    """Train until everything is trained on."""
    home = client.part.path / client.part.name
    (home / "checkpoints").mkdir(parents=True, exist_ok=True)
    fence_file = home / "fence"
    fence = json.loads(fence_file.read_text()) + 1 if fence_file.exists() else 1
    write_durably(fence_file, fence)
    trainer = Trainer(client, fence, home / "checkpoints")
    step = trainer.resume()
    while trainer.train(step):
        step += 1


if __name__ == "__main__":
    play(main)
