"""A client that streams questions in, chunk by chunk, repeating what got no answer, and orders a probe of them now and then."""

from __future__ import annotations

import hashlib
import json

from tests.faults.client import Client, play

CHUNK = 25
PROBES = 4


def main(client: Client) -> None:
    """All questions, and PROBES finite orders on the way. A new life begins at the start: everything said twice is said once."""
    part = client.part
    total = part.items
    for start in range(0, total, CHUNK):
        texts = [words(part.seed, number) for number in range(start, min(start + CHUNK, total))]
        lines = "\n".join(json.dumps({"question": text, "answer": "42", "kind": "exact"}) for text in texts)
        report = client.expect(
            "POST",
            "/v1/questions",
            params={"campaign": part.campaign},
            content=lines,
            headers={"Content-Type": "application/x-ndjson"},
        )
        client.journal.write("questions", texts=texts, report=report)
        done = start + len(texts)
        for number in range(PROBES):
            if start < total * (number + 1) // PROBES <= done:
                order(client, number)
    client.journal.write("submitted")


def words(seed: int, number: int) -> str:
    """A text that is like no other, by any measure."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()
    return " ".join(digest[at : at + 5] for at in range(0, 40, 5))


def order(client: Client, number: int) -> None:
    """A finite order over what there is."""
    body = {
        "campaign_id": client.part.campaign,
        "key": f"probe-{number}",
        "purpose": "probe",
        "policy_id": client.part.campaign,
        "policy_version": number,
        "k": 2,
        "sampling": {},
        "max_attempts": 5,
    }
    made = client.expect("POST", "/v1/orders", json=body)
    client.journal.write("order", id=made["id"], total=made["total"])


if __name__ == "__main__":
    play(main)
