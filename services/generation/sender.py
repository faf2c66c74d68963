"""Sends published weights to one engine over NCCL, in a process of its own with a GPU. Started by `client.transfer`, never by hand.

`python -m services.generation.sender DIRECTORY --engine URL --master-address HOST --master-port PORT --world-size N`. vLLM's own sender
drives the engine's calls (init, start, update, finish) and broadcasts as rank 0; we only read safetensors for it, one tensor at a time.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NO_GPU = "NCCL sends from a GPU, and this process sees none; set HEADWATER_ENGINE_WEIGHT_TRANSFER=files."


def source_of(directory: Path, device: str) -> Any:
    """vLLM's WeightSource over the safetensors of a directory: metadata from the headers, tensors read to `device` as they are sent."""
    from safetensors import safe_open
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    paths = sorted(directory.glob("*.safetensors"))

    class Published(WeightSource):  # type: ignore[misc, unused-ignore]
        def metadata(self) -> list[Any]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in _tensors(paths, "meta")]

        def __iter__(self) -> Iterator[tuple[str, Any]]:
            return _tensors(paths, device)

    def _tensors(files: list[Path], where: str) -> Iterator[tuple[str, Any]]:
        for path in files:
            with safe_open(path, framework="pt", device="cpu" if where == "meta" else where) as opened:
                for name in opened.keys():  # noqa: SIM118 (no mapping)
                    tensor = opened.get_tensor(name)
                    yield name, tensor.to("meta") if where == "meta" else tensor

    return Published()


def main() -> None:
    """Rendezvous, send, leave. Exits with a sentence where that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m services.generation.sender", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--engine", required=True, help="its URL")
    parser.add_argument("--master-address", required=True, help="this host, as the engine's workers reach it")
    parser.add_argument("--master-port", type=int, required=True)
    parser.add_argument("--world-size", type=int, required=True, help="the engine's workers, and one")
    parser.add_argument("--timeout", type=float, required=True, help="seconds for each of the engine's calls")
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit(NO_GPU)
    from vllm.distributed.weight_transfer import HTTPVLLMWeightSyncClient, WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    client = HTTPVLLMWeightSyncClient(arguments.engine, arguments.timeout)
    rendezvous = NCCLTrainerInitInfo(
        rank=0,
        master_address=arguments.master_address,
        master_port=arguments.master_port,
        world_size=arguments.world_size,
    )
    sender = WeightTransferTrainerFactory.trainer_init(
        rendezvous, client=client, source=source_of(arguments.directory, "cuda:0")
    )
    try:
        sender.send_weights()
    finally:
        client.shutdown_weight_transfer_engine()


if __name__ == "__main__":
    main()
