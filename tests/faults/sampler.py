"""A sampling worker without a model: claims assignments, hands in small verified groups, fails, stalls and repeats itself."""

from __future__ import annotations

import time
from typing import Any

import redis

from shared.bus import SAMPLING_QUEUE
from shared.contracts.base import pack_float32, pack_int32
from tests.faults.client import Client, play

LEASE_S = 3.0
SWEEP_S = 0.5
TOKENS = 4


def main(client: Client) -> None:
    """Until it is told to stop: whatever there is, and a wait for a hint when there is nothing."""
    with redis.Redis(port=client.part.valkey_port, socket_timeout=5) as valkey:
        while not client.stopping:
            body = {"worker": client.part.name, "limit": client.rng.randint(1, 32), "lease_s": LEASE_S}
            assignments = client.expect("POST", "/v1/assignments/claim", json=body)["assignments"]
            if assignments:
                work(client, assignments)
            else:
                wait_for_hint(valkey)


def wait_for_hint(valkey: redis.Redis) -> None:
    """As a worker of the bus does: until a message comes, or the sweep would have sent one."""
    try:
        valkey.brpop([SAMPLING_QUEUE], timeout=SWEEP_S)
    except redis.RedisError:
        time.sleep(SWEEP_S)


def work(client: Client, assignments: list[Any]) -> None:
    """Answer what was claimed, in parts; one in fifty fails, and now and then one comes late or twice."""
    rng = client.rng
    if rng.random() < 0.02:
        time.sleep(LEASE_S + 0.2)
    kept = [assignment for assignment in assignments if rng.random() > 0.02]
    for assignment in assignments:
        if assignment not in kept:
            fail(client, assignment)
    if rng.random() < 0.1:
        leases = [{"assignment_id": one["id"], "lease_token": one["lease_token"]} for one in kept]
        client.expect("POST", "/v1/assignments/heartbeat", json={"leases": leases, "lease_s": LEASE_S})
    while kept:
        size = rng.randint(1, 16)
        groups, kept = [group(client, assignment) for assignment in kept[:size]], kept[size:]
        for _ in range(2 if rng.random() < 0.03 else 1):
            hand_in(client, groups)


def hand_in(client: Client, groups: list[Any]) -> None:
    """Hand groups in and write down what became of each."""
    for receipt in client.expect("POST", "/v1/groups", json={"groups": groups})["receipts"]:
        client.journal.write(
            "group",
            assignment=receipt["assignment_id"],
            group=receipt["group_id"],
            status=receipt["status"],
            message=receipt["message"],
        )


def fail(client: Client, assignment: Any) -> None:
    """Give an assignment back; that somebody else has it by now is fine."""
    failure = {"reason": "engine-died", "counts_as_attempt": client.rng.random() < 0.5}
    lease = {"assignment_id": assignment["id"], "lease_token": assignment["lease_token"]}
    answer = client.ask("POST", "/v1/assignments/fail", json=lease | failure)
    if not answer.is_success and answer.status_code != 409:
        raise SystemExit(f"{client.part.name}: fail answered {answer.status_code}: {answer.text[:500]}")


def group(client: Client, assignment: Any) -> dict[str, Any]:
    """The group of an assignment: right, wrong or unscored by chance, a few tokens long."""
    return {
        "assignment_id": assignment["id"],
        "lease_token": assignment["lease_token"],
        "policy_id": assignment["policy_id"],
        "prompt_token_ids": pack_int32([1, 2, 3]),
        "responses": [response(client.rng.choices(OUTCOMES, WEIGHTS)[0]) for _ in range(assignment["k"])],
    }


OUTCOMES, WEIGHTS = ("correct", "incorrect", "unscored"), (50, 45, 5)


def response(outcome: str) -> dict[str, Any]:
    """One response with its verdict."""
    text = "ab42"
    reward = {"correct": 1.0, "incorrect": -1.0, "unscored": None}[outcome]
    segments = [{"kind": "solve", "start": 0, "end": len(text), "answer": "42", "reward": reward}]
    return {
        "text": text,
        "finish_reason": "stop",
        "token_ids": pack_int32(range(TOKENS)),
        "logprobs": pack_float32([-0.5] * TOKENS),
        "token_ends": pack_int32(range(1, TOKENS + 1)),
        "verdict": {
            "outcome": outcome,
            "unscored_reason": "timeout" if outcome == "unscored" else None,
            "answer": "42",
            "segments": [] if outcome == "unscored" else segments,
            "verifier": "faults@1",
        },
    }


if __name__ == "__main__":
    play(main)
