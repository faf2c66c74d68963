"""One real stack for all end-to-end tests: every process of `headwater up`, vLLM too, in a directory of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.local.client import Gateway
from services.local.directory import DataDirectory
from services.local.state import StackState, load_state

HEADWATER = str(Path(sys.executable).parent / "headwater")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stack:
    """A running stack, driven as a user drives it: by the `headwater` command and the gateway's REST API."""

    directory: Path

    def headwater(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `headwater ARGUMENTS --data-dir …`."""
        command = [HEADWATER, *arguments, "--data-dir", str(self.directory)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        assert not check or result.returncode == 0, f"{arguments}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
        return result

    def up(self) -> None:
        """Start every process and wait until all are ready."""
        self.headwater("up", "--detach", "--model", "tiny")

    def down(self) -> None:
        """Stop every process."""
        self.headwater("down")

    def state(self) -> StackState:
        """What `headwater status` reads."""
        state = load_state(DataDirectory(self.directory))
        assert state is not None
        return state

    def gateway(self) -> Gateway:
        """A client with the first API key."""
        return Gateway(self.state().urls["gateway"], (self.directory / "api_key").read_text().strip())


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack with the tiny model."""
    running = Stack(tmp_path_factory.mktemp("stack") / "data")
    running.up()
    yield running
    running.down()


@pytest.fixture(scope="session")
def questions_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty sums that a small model learns by heart in seconds, sixteen of them held out, and three lines that are no questions."""
    sums = [(left, right) for left in range(1, 10) for right in range(1, 10)]
    Random(0).shuffle(sums)
    lines = [json.dumps(_question(left, right, held_out=index < 16)) for index, (left, right) in enumerate(sums[:80])]
    lines[5:5] = ["{not json", json.dumps({"question": "no answer"}), json.dumps({"question": "a\0b", "answer": "1"})]
    path = tmp_path_factory.mktemp("questions") / "sums.ndjson"
    path.write_text("\n".join(lines) + "\n")
    return path


def _question(left: int, right: int, *, held_out: bool) -> dict[str, Any]:
    return {
        "question": f"Calculate {left}+{right}.",
        "answer": str(left + right),
        "solution": f"{left}+{right}={left + right}\n\\boxed{{{left + right}}}",
        "kind": "numeric",
        "split": "eval" if held_out else "train",
        "domain": "arithmetic",
    }


# A whole campaign in about two minutes; it learns just enough for every stage to have something to do.
MINIATURE_RECIPE = """
minimum_train_questions = 64
minimum_eval_questions = 16

[teach]
fraction = 1.0
copies = 2

[sft0]
steps = 60
batch_size = 32
learning_rate = 3e-3
max_tokens = 160
checkpoint_every_steps = 10

[probe]
k = 4
sampling = { temperature = 1.0, max_tokens = 64 }

[router]
noise_below = 0.0
certain_from = 0.999
trivial_from = 1.0

[build]
keep_probability = [1.0, 1.0, 1.0, 1.0]
max_rows = 128

[sft1]
steps = 20
batch_size = 32
learning_rate = 1e-3
max_tokens = 160
checkpoint_every_steps = 10

[rl]
steps = 4
k = 4
groups_per_step = 4
sampling = { temperature = 1.0, max_tokens = 64 }
publish_every_steps = 2
checkpoint_every_steps = 2
watermark_groups = 8
states = ["candidate", "certain", "hard", "noise", "trivial"]
lora = { rank = 8, alpha = 16 }

[eval]
sampling = { temperature = 0.0, max_tokens = 64 }
"""
