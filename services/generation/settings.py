"""Generation's own settings, read with the shared ones in `main`."""

import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field

from shared.settings import Settings


class GenerationSettings(Settings):
    """Where weights from remote storage are kept, and how much one engine replica takes at once.

    `weights_cache`: a folder that the engine can read as well. `engine_max_loras`: the engine's `--max-loras`.
    `prompts_in_flight`: prompts running on one replica. `prompts_waiting`: prompts that may wait for one replica before
    new requests are answered 429. `engine_wait_s`: how long a request waits for an engine that restarts. `engine_stall_s`: an
    engine that has prompts and works on none of them for so long is down; so is one that answers no probe, and after
    `engine_abort_s` of that its prompts are given up. `engine_weight_transfer`: full weights as files that the engine reads, or over
    `nccl` from a GPU of this process's host, which the engine's workers reach at `engine_transfer_address`; `engine_workers`:
    how many those are for each replica.
    """

    weights_cache: Path = Path(tempfile.gettempdir()) / "headwater-weights"
    engine_max_loras: int = Field(default=4, ge=1)
    prompts_in_flight: int = Field(default=64, ge=1)
    prompts_waiting: int = Field(default=1024, ge=1)
    engine_wait_s: float = Field(default=20.0, ge=0)
    engine_switch_timeout_s: float = Field(default=300.0, gt=0)
    engine_weight_transfer: Literal["files", "nccl"] = "files"
    engine_transfer_address: str = "127.0.0.1"
    engine_workers: int = Field(default=1, ge=1)
    engine_probe_every_s: float = Field(default=2.0, gt=0)
    engine_stall_s: float = Field(default=120.0, gt=0)
    engine_abort_s: float = Field(default=15.0, ge=0)
